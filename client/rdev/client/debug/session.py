"""A client of the Debug Adapter Protocol: requests, responses and events over a byte stream.

opening --attach--> running <--continue, step / stopped--> stopped
                       '--------- terminated, stream's end ---------'--> ended
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import re
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

from rdev.protocol.dap import STILL_IN, DapError, Framer, Message, encode, sequence
from rdev.protocol.errors import DebuggerUnavailable, RdevError

# An answer needs the job's interpreter, which may sit in a long call of C code.
ANSWER_SECONDS = 30.0

# What debugpy's adapter answers for a process that has let go of the debugger.
_LOST = "disconnected unexpectedly"

# The agent says why once the process is detached, which takes it at most ten seconds.
END_SECONDS = 12.0
# Whoever leaves an evaluation that keeps the interpreter to itself is told so after that long.
LEAVE_SECONDS = 5.0

# With it the agent ends what it says of a session that is over while the process is not.
_STAYS = f"; the job goes on|; {STILL_IN}"

# What debugpy adds to the name of an exception that is looked at with its frames, and to the frame
# that is executed: the place says it.
_NOTE = "(note: full exception trace"
_CURRENT = " (Current frame)"
_REASONS = ("text", "description")

# A recursion without end has a thousand frames; nobody reads more than these.
MOST_FRAMES = 200


class Pipe(Protocol):
    """A byte stream to the adapter.

    `receive` returns b"" at the end, and for ever after; `send` may be called from several tasks,
    each call's bytes stay together. Both raise only errors of rdev's.
    """

    async def receive(self) -> bytes:
        """The next bytes; b"" at the end."""
        ...

    async def send(self, data: bytes) -> None:
        """Sends all of `data`."""
        ...


@dataclass(frozen=True, slots=True)
class Breakpoint:
    """A breakpoint as asked for.

    Attributes:
        path: Source file on the host, absolute.
        line: Line, from 1.
        condition: Python expression; empty stops always.
    """

    path: str
    line: int
    condition: str = ""


@dataclass(frozen=True, slots=True)
class Placed:
    """What became of a breakpoint.

    Attributes:
        breakpoint: As asked for.
        verified: Whether it can be hit.
        line: The line that it really is at.
        message: Why it is not verified; may be empty.
    """

    breakpoint: Breakpoint
    verified: bool
    line: int
    message: str = ""


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame of a stopped thread, `path` on the host."""

    id: int
    path: str
    line: int
    function: str


@dataclass(frozen=True, slots=True)
class Variable:
    """A name with its value as text; `reference` leads to its parts unless it is 0."""

    name: str
    value: str
    type: str = ""
    reference: int = 0


@dataclass(frozen=True, slots=True)
class Stopped:
    """A thread was stopped; `reason` as the protocol words it."""

    thread: int
    reason: str
    text: str = ""


@dataclass(frozen=True, slots=True)
class Resumed:
    """What was stopped runs again, and not because this client said so."""


@dataclass(frozen=True, slots=True)
class Thread:
    """A thread of the process."""

    id: int
    name: str


@dataclass(frozen=True, slots=True)
class Ended:
    """The session is over: the process ended, or the connection did."""

    cause: str


@dataclass(frozen=True, slots=True)
class Inherited:
    """What another client has left of its session.

    Attributes:
        first_sequence: Requests are numbered from here.
        files: Files with breakpoints of its.
        is_held: The process is stopped.
        away: Seconds since it went.
    """

    first_sequence: int
    files: tuple[str, ...] = ()
    is_held: bool = False
    away: float = 0.0


# What happens to a process that is debugged.
Halt = Stopped | Resumed | Ended


@dataclass(slots=True)
class _State:
    pending: dict[int, asyncio.Future[Message]] = field(default_factory=dict)
    halts: asyncio.Queue[Halt] = field(default_factory=asyncio.Queue)
    initialized: asyncio.Future[None] = field(default_factory=asyncio.Future)
    ended: asyncio.Future[Ended] = field(default_factory=asyncio.Future)
    is_held: bool = False


class DebugClient:
    """One session with an adapter; use it within `debugging`.

    Args:
        pipe: Leads to the adapter.
        tell: Told what the agent wants the person to know, a line at a time.
        inherited: What another client has left, if the session was its.
    """

    def __init__(
        self,
        pipe: Pipe,
        tell: Callable[[str], None] = lambda _line: None,
        *,
        inherited: Inherited | None = None,
    ) -> None:
        self._pipe = pipe
        self._tell = tell
        self._state = _State()
        self._inherited = inherited
        self._numbers = itertools.count(inherited.first_sequence if inherited else 1)
        self._breakpoints: list[Breakpoint] = []
        self._told = ""
        self._evaluating: asyncio.Future[Message] | None = None
        self._show: Callable[[str], None] = lambda _line: None
        self._printed = self._expression = self._left_in = ""

    def show_printed(self, show: Callable[[str], None]) -> None:
        """Shows what an expression prints while it is evaluated, a line at a time."""
        self._show = show

    async def request(self, command: str, arguments: Mapping[str, Any] | None = None) -> Message:
        """Sends one request and returns the body of its response.

        Raises:
            DebuggerUnavailable: It was refused, not answered in time, or the session ended.
        """
        return await self._answer(command, await self._ask(command, arguments or {}))

    async def attach(self, breakpoints: Sequence[Breakpoint]) -> list[Placed]:
        """Attaches and places breakpoints; afterwards the process runs and may hit them.

        A session that was another client's is attached: only its breakpoints are replaced.

        Raises:
            DebuggerUnavailable: The adapter or the process refused.
        """
        if self._inherited is not None:
            # Those of the other client, whatever their lines: `place` takes them away.
            self._breakpoints = [Breakpoint(path, 0) for path in self._inherited.files]
            return await self.place(breakpoints)
        await self.request(
            "initialize",
            {
                "clientID": "rdev",
                "adapterID": "debugpy",
                "pathFormat": "path",
                "linesStartAt1": True,
                "columnsStartAt1": True,
                "supportsVariableType": True,
            },
        )
        # Its response comes only after `configurationDone`; a refusal comes at once.
        attached = await self._ask("attach", {"justMyCode": False})
        ready = self._state.initialized
        either: set[asyncio.Future[Any]] = {attached, ready}
        await asyncio.wait(either, timeout=ANSWER_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        if not ready.done():
            await self._answer("attach", attached)
        placed = await self.place(breakpoints)
        await self.request("configurationDone")
        await self._answer("attach", attached)
        return placed

    async def place(self, breakpoints: Sequence[Breakpoint]) -> list[Placed]:
        """Makes `breakpoints` the only ones; returns what became of each, in order."""
        paths = dict.fromkeys(b.path for b in [*breakpoints, *self._breakpoints])
        self._breakpoints = list(breakpoints)
        placed: dict[Breakpoint, Placed] = {}
        for path in paths:
            wanted = [b for b in breakpoints if b.path == path]
            body = await self.request(
                "setBreakpoints",
                {
                    "source": {"path": path},
                    "breakpoints": [
                        {"line": b.line, **({"condition": b.condition} if b.condition else {})}
                        for b in wanted
                    ],
                },
            )
            for asked, got in zip(wanted, body.get("breakpoints", []), strict=False):
                placed[asked] = Placed(
                    asked,
                    verified=bool(got.get("verified")),
                    line=int(got.get("line", asked.line)),
                    message=str(got.get("message") or ""),
                )
        return [
            placed.get(b, Placed(b, verified=False, line=b.line, message="no answer"))
            for b in breakpoints
        ]

    @property
    def breakpoints(self) -> tuple[Breakpoint, ...]:
        """The breakpoints as last placed."""
        return tuple(self._breakpoints)

    @property
    def inherits_stop(self) -> bool:
        """Whether the session was another client's, and the process is stopped in it."""
        return self._inherited is not None and self._inherited.is_held

    @property
    def end(self) -> Ended | None:
        """How the session ended; None while it goes on."""
        return self._state.ended.result() if self._state.ended.done() else None

    async def over(self) -> Ended:
        """Waits until the session has ended."""
        return await asyncio.shield(self._state.ended)

    async def halted(self) -> Halt:
        """Waits until a thread stops, runs again unasked, or the session ends."""
        if self.end is not None and self._state.halts.empty():
            return self.end
        return await self._state.halts.get()

    async def stack(self, thread: int) -> list[Frame]:
        """The frames of a stopped thread, innermost first."""
        asking = {"threadId": thread, "startFrame": 0, "levels": MOST_FRAMES}
        body = await self.request("stackTrace", asking)
        return [
            Frame(
                id=int(frame["id"]),
                path=str((frame.get("source") or {}).get("path") or ""),
                line=int(frame.get("line") or 0),
                function=str(frame.get("name") or "").removesuffix(_CURRENT),
            )
            for frame in body.get("stackFrames", [])
        ]

    async def local_variables(self, frame: Frame) -> list[Variable]:
        """The names local to a frame, without those that debugpy adds."""
        body = await self.request("scopes", {"frameId": frame.id})
        scopes = body.get("scopes") or []
        if not scopes:
            return []
        return await self.parts(int(scopes[0]["variablesReference"]))

    async def parts(self, reference: int) -> list[Variable]:
        """What a variable or a scope holds."""
        body = await self.request("variables", {"variablesReference": reference})
        return [_variable(item, str(item.get("name"))) for item in body.get("variables", [])]

    async def evaluate(self, expression: str, frame: Frame) -> Variable:
        """Evaluates an expression, or executes a statement, in a frame, for as long as it takes.

        Raises:
            DebuggerUnavailable: It raised; the cause is the exception.
        """
        asking = {"expression": expression, "frameId": frame.id, "context": "repl"}
        self._expression = expression
        self._evaluating = await self._ask("evaluate", asking)
        try:
            body = await self._body("evaluate", await self._evaluating)
        finally:
            self._evaluating = None
            if self._printed:  # without an end of its line
                self._print("\n")
        return _variable({**body, "value": body.get("result", "")}, expression)

    @property
    def is_evaluating(self) -> bool:
        """Whether an evaluation is waited for."""
        return self._evaluating is not None and not self._evaluating.done()

    async def interrupt(self, seconds: float) -> bool:
        """Interrupts the evaluation that is waited for; False if it goes on for so long."""
        answer = self._evaluating
        if answer is None:
            return True
        await self._ask("cancel", {})
        await asyncio.wait({answer}, timeout=seconds)
        return answer.done()

    def abandon(self) -> None:
        """Waits for the evaluation no more."""
        if self._evaluating is not None and not self._evaluating.done():
            self._left_in = self._expression
            self._evaluating.set_result({"success": False, "message": "left while it is evaluated"})

    async def resume(self, command: str, thread: int) -> None:
        """Lets a stopped thread go: `continue`, `next`, `stepIn`, `stepOut`."""
        self._state.is_held = False
        await self.request(command, {"threadId": thread})

    async def pause(self) -> None:
        """Stops every thread where it is."""
        await self.request("pause", {"threadId": 1})

    async def threads(self) -> list[Thread]:
        """The process's threads."""
        body = await self.request("threads")
        return [Thread(int(t["id"]), str(t.get("name", ""))) for t in body.get("threads", [])]

    async def completions(self, text: str, cursor: int, frame: Frame) -> list[tuple[str, int]]:
        """What may stand at the cursor, and how many characters of it stand there already."""
        asking = {"text": text, "column": cursor + 1, "frameId": frame.id}
        body = await self.request("completions", asking)
        return [
            (str(target.get("text") or target["label"]), int(target.get("length") or 0))
            for target in body.get("targets", [])
        ]

    async def jump(self, frame: Frame, line: int, thread: int) -> None:
        """Makes a line of the frame's function the next to run.

        Raises:
            DebuggerUnavailable: It cannot be.
        """
        source = {"path": frame.path}
        body = await self.request("gotoTargets", {"source": source, "line": line})
        targets = body.get("targets") or []
        if not targets:
            raise DebuggerUnavailable("jump", f"line {line} is no place to go to")
        await self.request("goto", {"threadId": thread, "targetId": targets[0]["id"]})

    async def kill(self) -> None:
        """Ends the job, where the session may."""
        await self.request("terminate")

    async def detach(self) -> None:
        """Leaves the process running without a debugger."""
        if self.end is not None:
            return
        try:
            # What follows waits for the agent, which does as much.
            async with asyncio.timeout(LEAVE_SECONDS if self._left_in else None):
                await self.request("disconnect", {"terminateDebuggee": False})
        except DebuggerUnavailable:
            pass  # the adapter says `terminated` first, and may hang up before it answers
        except TimeoutError:
            shown = " ".join(self._left_in.split())
            self._tell(f"{STILL_IN}`{shown}`, and goes on once that returns")

    async def pump(self) -> None:
        """Reads until the stream ends; `debugging` runs it."""
        framer = Framer()
        cause = "the debug session has ended"
        try:
            while data := await self._pipe.receive():
                for message in framer.feed(data):
                    self._take(message)
        except DapError as error:
            cause = str(error)
        except RdevError as error:
            cause = error.cause or error.message
        finally:
            self._end(cause)
            cause = self.end.cause if self.end is not None else cause  # which came before
            for waiting in self._state.pending.values():
                if not waiting.done():
                    waiting.set_result({"success": False, "message": cause})

    async def _ask(self, command: str, arguments: Mapping[str, Any]) -> asyncio.Future[Message]:
        if self.end is not None:
            raise DebuggerUnavailable(_asking(command), self.end.cause)
        number = next(self._numbers)
        answer: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
        self._state.pending[number] = answer
        message = {"seq": number, "type": "request", "command": command}
        await self._pipe.send(encode({**message, "arguments": dict(arguments)}))
        return answer

    async def _answer(self, command: str, answer: asyncio.Future[Message]) -> Message:
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                response = await answer
        except TimeoutError as error:
            cause = f"no answer within {ANSWER_SECONDS:g} s"
            raise DebuggerUnavailable(_asking(command), cause) from error
        return await self._body(command, response)

    async def _body(self, command: str, response: Message) -> Message:
        if not response.get("success"):
            cause = str(response.get("message") or "it refused")
            raise DebuggerUnavailable(_asking(command), await self._truly(cause))
        body = response.get("body")
        return body if isinstance(body, dict) else {}

    async def _truly(self, cause: str) -> str:
        """Why the process let go, where all that the adapter knows is that it has."""
        if cause.endswith(_LOST):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(END_SECONDS):
                    return (await self.over()).cause
        return cause

    def _take(self, message: Message) -> None:
        if message.get("type") == "response":
            waiting = self._state.pending.pop(sequence(message, "request_seq"), None)
            if waiting is not None and not waiting.done():
                waiting.set_result(message)
            return
        if message.get("type") != "event":
            return
        body = message.get("body") or {}
        match message.get("event"):
            case "initialized":
                if not self._state.initialized.done():
                    self._state.initialized.set_result(None)
            case "stopped":
                thread, reason = int(body.get("threadId", 0)), str(body.get("reason", ""))
                stop = Stopped(thread, reason, _why_stopped(body))
                self._state.is_held = True
                self._state.halts.put_nowait(stop)
            case "continued" if self._state.is_held:
                self._state.is_held = False
                self._state.halts.put_nowait(Resumed())
            case "output":
                self._take_output(str(body.get("category")), str(body.get("output", "")))
            case "terminated" | "exited":
                told = re.split(_STAYS, self._told)
                self._end(told[0] if len(told) > 1 else "the process has ended")

    def _take_output(self, category: str, text: str) -> None:
        if category == "important":
            self._told = text.rstrip("\n")
            self._tell(self._told)
        elif category in ("stdout", "stderr"):
            self._print(text)

    def _print(self, text: str) -> None:
        *lines, self._printed = (self._printed + text).split("\n")
        for line in lines:
            self._show(line)

    def _end(self, cause: str) -> None:
        if self.end is None:
            self._state.ended.set_result(Ended(cause))
            self._state.halts.put_nowait(Ended(cause))


def _why_stopped(body: Mapping[str, Any]) -> str:
    """Of an exception its name and its message."""
    parts = (str(body.get(name) or "").partition(_NOTE)[0].strip() for name in _REASONS)
    return ": ".join(dict.fromkeys(part for part in parts if part))


def _asking(command: str) -> str:
    return f"ask the debugger for `{command}`"


def _variable(item: Mapping[str, Any], name: str) -> Variable:
    return Variable(
        name=name,
        value=str(item.get("value", "")),
        type=str(item.get("type") or ""),
        reference=int(item.get("variablesReference") or 0),
    )


@asynccontextmanager
async def debugging(
    pipe: Pipe,
    tell: Callable[[str], None] = lambda _line: None,
    *,
    inherited: Inherited | None = None,
) -> AsyncIterator[DebugClient]:
    """A client whose stream is read for as long as the block runs; see `DebugClient`."""
    client = DebugClient(pipe, tell, inherited=inherited)
    failure: RdevError | None = None
    async with asyncio.TaskGroup() as group:
        reader = group.create_task(client.pump())
        try:
            yield client
        except RdevError as error:
            failure = error  # A group would wrap it, and the caller catches it by its class.
        finally:
            reader.cancel()
    if failure is not None:
        raise failure
