"""The commands of the terminal debugger; they are pdb's where pdb has them.

A line that is no command is evaluated in the frame, or executed if it is a statement.
"""

from __future__ import annotations

import ast
from collections.abc import Awaitable, Callable, Sequence

from rdev.client.debug.aiming import job_line
from rdev.client.debug.breaking import Breaking
from rdev.client.debug.code import code_from
from rdev.client.debug.helping import help_on, usage
from rdev.client.debug.mapping import lines_of
from rdev.client.debug.paper import Ink, brief, cut
from rdev.client.debug.seat import Seat
from rdev.client.debug.session import Breakpoint
from rdev.client.debug.table import HELP, Outcome, Table, require_expression
from rdev.client.debug.view import AROUND_LISTED, is_group
from rdev.protocol.dap import TOO_LATE
from rdev.protocol.errors import DebuggerUnavailable, RdevError

_RESUMING = {
    "continue": ("c", "cont", "continue"),
    "next": ("n", "next"),
    "stepIn": ("s", "step"),
    "stepOut": ("r", "return", "out", "finish"),
}
_RESUME_BY = {word: command for command, words in _RESUMING.items() for word in words}

# After these, anything is an expression.
_TAKING_ANY = frozenset({"p", "pp", "print", "eval", "!", "whatis", "display", "compare"})

# After these, what begins with a slash is a file, and no division.
_TAKING_A_PATH = frozenset({"b", "break", "tbreak", "clear", "cl", "delete"})

# Lines that `until` steps over before it says so: each takes some milliseconds.
_MOST_STEPS = 500

# The exception by which the hook interrupts.
_INTERRUPTED = "Interrupted"

# Marks what is only one of a kind of value among ranks.
_DIFFERS = "!"


class Commands:
    """Executes command lines.

    Args:
        table: What they act on.
    """

    def __init__(self, table: Table) -> None:
        self._table = table
        self._last = ""
        self._displayed: list[str] = []
        self._commands = self._known()

    @property
    def names(self) -> list[str]:
        """The words that are commands."""
        return sorted([*self._commands, *_RESUME_BY, "detach", "quit", "exit"])

    async def execute(self, line: str) -> Outcome:
        """Executes one command line; trouble with it is said, never raised.

        Raises:
            ConnectionLost: The session is gone.
        """
        line = line.strip() or self._last
        self._last = line
        word, _, rest = line.partition(" ")
        if not word:
            return Outcome.STAY
        # The built-in functions would close the job's stdin, and then raise SystemExit.
        if word in ("detach", "q", "quit", "exit") or line in ("exit()", "quit()"):
            return Outcome.DETACH
        try:
            is_place = word in _TAKING_A_PATH and rest.startswith("/") and ":" in rest
            takes = word in _TAKING_ANY or is_place
            is_expression = not takes and _is_expression(rest)
            if word in _RESUME_BY and not is_expression:
                return await self._resume(_RESUME_BY[word])
            command = self._commands.get(word)
            if command is not None and (wanted := usage(word, rest)):
                self._table.say(wanted, Ink.WARNING)
                return Outcome.STAY
            if command is None or is_expression:
                return await self._evaluate(line.removeprefix("!").strip())
            return await command(rest.strip())
        except DebuggerUnavailable as error:
            # Why it is over is told by the session's end, which is next.
            is_over = self._seat.client.end is not None
            cause = TOO_LATE if is_over else _raised(error.cause)
            self._table.say(cause, Ink.WARNING)
        except RdevError as error:
            self._table.say(error.message, Ink.WARNING)
        return Outcome.STAY

    async def shown_again(self) -> Outcome:
        """Shows what is displayed at every stop."""
        for expression in self._displayed:
            try:
                value = await self._seat.client.evaluate(expression, self._seat.frame)
                self._table.say(f"{expression} = {cut(value.value)}")
            except DebuggerUnavailable as error:
                self._table.say(f"{expression}: {_raised(error.cause)}")
        return Outcome.STAY

    def _known(self) -> dict[str, Callable[[str], Awaitable[Outcome]]]:
        commands = {
            ("p", "print", "eval", "!"): self._evaluate,
            ("pp",): self._pretty,
            ("whatis",): self._whatis,
            ("display",): self._display,
            ("undisplay",): self._undisplay,
            ("locals",): self._locals,
            ("a", "args"): self._arguments,
            ("w", "bt", "where"): self._where,
            ("u", "up"): self._up,
            ("d", "down"): self._down,
            ("f", "frame"): self._frame,
            ("l", "list"): self._list,
            ("ll", "longlist"): self._long_list,
            ("unt", "until"): self._until,
            ("j", "jump"): self._jump,
            **Breaking(self._table).commands(),
            ("threads",): self._threads,
            ("thread",): self._thread,
            ("ranks",): self._ranks,
            ("rank",): self._rank,
            ("compare",): self._compare,
            ("stack",): self._stacks,
            ("wait",): self._wait,
            ("lease",): self._lease,
            ("kill",): self._kill,
            ("h", "help", "?"): self._help,
        }
        return {word: action for words, action in commands.items() for word in words}

    @property
    def _seat(self) -> Seat:
        return self._table.seat

    async def _resume(self, command: str) -> Outcome:
        if command != "continue":
            self._seat.require_goes_on()
            self._table.stepping()
        await self._seat.resume(command)
        return Outcome.RUN

    # Values.

    async def _evaluate(self, expression: str) -> Outcome:
        value = await self._seat.client.evaluate(expression, self._seat.frame)
        if value.value:
            self._table.say(cut(value.value))
        return Outcome.STAY

    async def _pretty(self, expression: str) -> Outcome:
        asking = f"__import__('pprint').pformat({expression})"
        value = await self._seat.client.evaluate(asking, self._seat.frame)
        try:
            text = str(ast.literal_eval(value.value))
        except (ValueError, SyntaxError):  # it was cut on the way
            text = value.value
        self._table.say(cut(text))
        return Outcome.STAY

    async def _whatis(self, expression: str) -> Outcome:
        return await self._evaluate(f"type({expression})")

    async def _display(self, expression: str) -> Outcome:
        if expression and expression not in self._displayed:
            self._displayed.append(expression)
        if not self._displayed:
            self._table.say("nothing is displayed")
        return await self.shown_again()

    async def _undisplay(self, expression: str) -> Outcome:
        gone = [one for one in self._displayed if expression in ("", one)]
        self._displayed = [one for one in self._displayed if one not in gone]
        what = ", ".join(gone)
        missed = f"{expression} is not displayed" if expression else "nothing is displayed"
        self._table.say(f"displayed no more: {what}" if gone else missed)
        return Outcome.STAY

    async def _locals(self, _: str) -> Outcome:
        await self._variables(None)
        return Outcome.STAY

    async def _arguments(self, _: str) -> Outcome:
        function = await self._table.view.function(self._seat.frame)
        await self._variables(function[2])
        return Outcome.STAY

    async def _variables(self, names: Sequence[str] | None) -> None:
        found = await self._seat.client.local_variables(self._seat.frame)
        wanted = [v for v in found if not is_group(v) and (names is None or v.name in names)]
        if not wanted:
            self._table.say("none")
        width = min(max((len(v.name) for v in wanted), default=0), 30)
        for variable in wanted:
            room = self._table.columns - width - 3
            self._table.say(f"{variable.name:<{width}} = {brief(variable.value, room)}")

    # Frames and source.

    async def _where(self, _: str) -> Outcome:
        self._seat.frame  # noqa: B018 - raises where there is nothing to see
        shown = await self._table.view.stack(self._seat.frames, self._seat.chosen)
        self._table.show("\n".join(shown))
        return Outcome.STAY

    async def _up(self, count: str) -> Outcome:
        return await self._choose(self._seat.chosen + _number(count, 1))

    async def _down(self, count: str) -> Outcome:
        return await self._choose(self._seat.chosen - _number(count, 1))

    async def _frame(self, number: str) -> Outcome:
        return await self._choose(_number(number, self._seat.chosen))

    async def _choose(self, number: int) -> Outcome:
        self._seat.choose(number)
        frame = self._seat.frame
        self._table.say(f"{self._seat.chosen}  {await self._table.view.place(frame)}", Ink.STRONG)
        shown = await self._table.view.listing(
            frame.path, frame.line, frame.line, current=frame.line
        )
        self._table.show("\n".join(shown))
        return Outcome.STAY

    async def _list(self, words: str) -> Outcome:
        frame = self._seat.frame
        if words and words != ".":
            begin, _, end = words.partition(",")
            first = await self._line(begin.strip())
            last = await self._line(end.strip()) if end else first + 2 * AROUND_LISTED
        elif self._seat.listed and not words:
            first = self._seat.listed + 1
            last = first + 2 * AROUND_LISTED
        else:
            first, last = frame.line - AROUND_LISTED, frame.line + AROUND_LISTED
        return await self._listed(first, last)

    async def _long_list(self, _: str) -> Outcome:
        first, last, _names = await self._table.view.function(self._seat.frame)
        return await self._listed(first, last)

    async def _listed(self, first: int, last: int) -> Outcome:
        frame, marks = self._seat.frame, self._table.marks
        marked = {m.line for m in marks.enabled() if m.breakpoint.path == frame.path}
        lines = await self._table.view.listing(
            frame.path, first, last, current=frame.line, marked=marked
        )
        if not lines:
            name = self._table.view.sources.shown(frame.path)
            self._table.say(
                "the file ends here" if self._seat.listed else f"nobody knows the text of {name}"
            )
            return Outcome.STAY
        self._seat.listed = last
        self._table.show("\n".join(lines))
        return Outcome.STAY

    async def _line(self, word: str) -> int:
        """The job's line for a number of the editor's in the frame's file."""
        if not word.isdecimal():
            raise DebuggerUnavailable("find a line", f"{word!r} is no line number")
        return await job_line(self._table.view.texts, self._seat.frame.path, int(word))

    # Going on.

    async def _until(self, word: str) -> Outcome:
        frame, depth = self._seat.frame, len(self._seat.frames)
        self._seat.require_goes_on()
        if word:
            is_below = await self._break_below(word)
            return await self._resume("continue" if is_below else "stepOut")
        for _ in range(_MOST_STEPS):
            await self._seat.resume("next")
            if not await self._table.halt():
                return Outcome.RUN
            now = self._seat.frames[0] if self._seat.frames else frame
            if len(self._seat.frames) != depth or now.line > frame.line:
                return Outcome.RUN
        self._table.say(f"still above line {frame.line} after {_MOST_STEPS} lines; `until LINE`")
        return Outcome.RUN

    async def _break_below(self, word: str) -> bool:
        """A breakpoint that goes when hit, below in the function; False if that ends before."""
        frame, marks = self._seat.frame, self._table.marks
        line = await self._line(word)
        if line <= frame.line:
            cause = f"line {word} is not below this one, where `until` could go on to"
            raise DebuggerUnavailable("go on", cause)
        content = await self._table.view.texts.content(frame.path)
        # The debugger would take a line without code for the one before.
        line = line if content is None else code_from(lines_of(content), line)
        _, last, _ = await self._table.view.function(frame)
        if not line or (last and line > last):
            return False
        if any(m.is_enabled and not m.breakpoint.condition for m in marks.at(frame.path, line)):
            return True  # it stops there anyway, and is to stay
        mark = marks.add(Breakpoint(frame.path, line), is_temporary=True)
        await self._table.place([mark])
        return True

    async def _jump(self, word: str) -> Outcome:
        frame, line = self._seat.frame, await self._line(word)
        self._seat.require_goes_on()
        first, last, _ = await self._table.view.function(frame)
        # A number beyond the file's end is taken for its last line elsewhere.
        pairing = await self._table.view.texts.pairing(frame.path)
        is_there = pairing is None or not pairing.here or pairing.to_job(int(word)).is_there
        if not is_there or (last and not first <= line <= last):
            cause = f"line {word} is not in {frame.function}(), and only a line of it can be next"
            raise DebuggerUnavailable("jump", cause)
        await self._seat.client.jump(frame, line, self._seat.thread)
        return Outcome.RUN

    async def _wait(self, _: str) -> Outcome:
        return Outcome.WAIT

    # Threads, ranks, the job.

    async def _threads(self, _: str) -> Outcome:
        for thread in await self._seat.client.threads():
            frames = await self._seat.client.stack(thread.id)
            where = await self._table.view.place(frames[0]) if frames else "no Python frame"
            pointer = ">" if thread.id == self._seat.thread else " "
            self._table.say(f"{pointer} {thread.id}  {thread.name}  {where}")
        return Outcome.STAY

    async def _thread(self, word: str) -> Outcome:
        known = await self._seat.client.threads()
        if not any(str(thread.id) == word for thread in known):
            raise DebuggerUnavailable("look at a thread", f"there is no thread {word!r}")
        await self._seat.look_at(int(word))
        return await self._where("")

    async def _ranks(self, _: str) -> Outcome:
        for line in await self._table.ranks():
            self._table.say(line)
        return Outcome.STAY

    async def _rank(self, word: str) -> Outcome:
        if not word.isdecimal():
            return await self._ranks("")
        await self._table.switch(int(word))
        return Outcome.STAY

    async def _compare(self, expression: str) -> Outcome:
        require_expression(expression)
        function = self._seat.frame.function if self._seat.stop else ""
        values = await self._table.compare(expression, function)
        texts = [value for _, value, _ in values]
        usual = max(texts, key=texts.count, default="")
        for rank, value, remark in values:
            differs = len(set(texts)) > 1 and value != usual
            shown = brief(value, self._table.columns - 16 - len(remark))
            pointer = _DIFFERS if differs else " "
            line = f"{pointer} rank {rank:<3} {shown}  {remark}".rstrip()
            self._table.say(line, Ink.DIFFERENT if differs else Ink.PLAIN)
        return Outcome.STAY

    async def _stacks(self, _: str) -> Outcome:
        self._table.show("\n".join(await self._table.stacks()))
        return Outcome.STAY

    async def _lease(self, _: str) -> Outcome:
        self._table.say(await self._table.lease())
        return Outcome.STAY

    async def _kill(self, _: str) -> Outcome:
        if not self._table.may_kill:
            cause = "`rdev debug --allow-kill` lets you; `rdev stop` ends it in good order"
            raise DebuggerUnavailable("end the job", cause)
        await self._seat.client.kill()
        return Outcome.RUN

    async def _help(self, words: str) -> Outcome:
        self._table.say(help_on(words.split()) if words else HELP)
        return Outcome.STAY


def _is_expression(rest: str) -> bool:
    """True if what follows a word makes it no command: `n = 3`, `b == 2`, `s.shape`."""
    rest = rest.lstrip()
    return bool(rest) and (
        rest[:1] in "=<>*/%@&|^" or rest.startswith(("+=", "-=", "!=", "is ", "in ", "not in "))
    )


def _raised(cause: str) -> str:
    """An exception without the frames of the evaluation itself, as pdb shows it."""
    lines = cause.rstrip().split("\n")
    if lines[-1] == _INTERRUPTED:
        return "interrupted"
    files = [line for line in lines if line.lstrip().startswith("File ")]
    own = ('"<string>"', "/debugpy/_vendored/")  # what does not compile comes with debugpy's frames
    if lines[0].startswith("Traceback ") and all(any(o in line for o in own) for line in files):
        return lines[-1]
    return cause.rstrip()


def _number(word: str, usual: int) -> int:
    if not word:
        return usual
    if not word.isdecimal():
        raise DebuggerUnavailable("count", f"{word!r} is no number")
    return int(word)
