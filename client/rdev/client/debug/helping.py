"""What each command of the terminal debugger takes and does: for `h COMMAND` and usage lines."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Topic:
    """One command.

    Attributes:
        words: That name it, the shortest first.
        takes: What may follow; empty if nothing does.
        does: What it leads to.
        needs_any: It says nothing by itself: what it takes has to be there.
    """

    words: tuple[str, ...]
    takes: str
    does: str
    needs_any: bool = False

    @property
    def line(self) -> str:
        """As `h COMMAND` shows it."""
        return f"{self._form}   {self.does}"

    @property
    def usage(self) -> str:
        """As it is said to whoever left out what it needs."""
        return f"usage: {self._form}"

    @property
    def _form(self) -> str:
        return f"{', '.join(self.words)} {self.takes}".rstrip()


_WHERE = "FILE:LINE|LINE|FUNCTION [if EXPR]"
_WHICH = "N ...|FILE:LINE"

TOPICS = (
    Topic(("n", "next"), "", "to the next line of this function"),
    Topic(("s", "step"), "", "to the next line, into calls, too"),
    Topic(("r", "return", "out", "finish"), "", "to the end of this function"),
    Topic(("c", "cont", "continue"), "", "on to the next breakpoint"),
    Topic(("unt", "until"), "[LINE]", "to a line below this one, or to LINE, which is below it"),
    Topic(("j", "jump"), "LINE", "makes LINE, of this function, the next to run", needs_any=True),
    Topic(("l", "list"), "[A[,B]]", "the source around here, or its lines A to B; again: further"),
    Topic(("ll", "longlist"), "", "the source of the whole function"),
    Topic(("w", "bt", "where"), "", "the frames, innermost first"),
    Topic(("u", "up"), "[N]", "to the frame that called this one, or N frames up"),
    Topic(("d", "down"), "[N]", "back towards where it is held, or N frames down"),
    Topic(("f", "frame"), "[N]", "to frame N, as `w` numbers them"),
    Topic(("locals",), "", "the frame's variables"),
    Topic(("a", "args"), "", "the function's arguments"),
    Topic(("p", "print", "eval", "!"), "EXPR", "a value, or a statement's effect", needs_any=True),
    Topic(("pp",), "EXPR", "a value, prettily", needs_any=True),
    Topic(("whatis",), "EXPR", "the type of a value", needs_any=True),
    Topic(("display",), "[EXPR]", "shows EXPR now and at every stop; alone: what is displayed"),
    Topic(("undisplay",), "[EXPR]", "shows EXPR no more; alone: nothing any more"),
    Topic(("b", "break", "breakpoints"), f"[{_WHERE}]", "sets a breakpoint; alone: lists them"),
    Topic(("tbreak",), _WHERE, "a breakpoint that goes when it is hit", needs_any=True),
    Topic(("cl", "clear", "delete"), f"[{_WHICH}]", "takes breakpoints away; alone: all of them"),
    Topic(("disable",), _WHICH, "keeps breakpoints, and does not stop at them", needs_any=True),
    Topic(("enable",), _WHICH, "stops at them again", needs_any=True),
    Topic(("cond", "condition"), "N [EXPR]", "stops if EXPR is true, or always", needs_any=True),
    Topic(("threads",), "", "the process's threads, and where they are"),
    Topic(("thread",), "N", "looks at thread N", needs_any=True),
    Topic(("ranks",), "", "the ranks: who is held where, and who waits for whom"),
    Topic(("rank",), "[N]", "goes to rank N; alone: the ranks"),
    Topic(
        ("compare",), "EXPR", "a value in every rank; those that differ are marked", needs_any=True
    ),
    Topic(("stack",), "", "what every thread of the job does"),
    Topic(("wait",), "", "waits for the next stop, of another rank"),
    Topic(("lease",), "", "how long this stop lasts"),
    Topic(("kill",), "", "ends the job, with --allow-kill"),
    Topic(("q", "quit", "exit", "detach"), "", "leaves the job running, as Ctrl-D does"),
    Topic(("h", "help", "?"), "[COMMAND]", "this, of one command or of all"),
)

_BY_WORD = {word: topic for topic in TOPICS for word in topic.words}


def topic_of(word: str) -> Topic | None:
    """What a word names; None if it is no command."""
    return _BY_WORD.get(word)


def usage(word: str, rest: str) -> str:
    """What is to be said of a command without what it needs; empty if all is there."""
    topic = topic_of(word)
    return topic.usage if topic is not None and topic.needs_any and not rest.strip() else ""


def help_on(words: Sequence[str]) -> str:
    """One line for each command that is asked for."""
    found = {word: topic_of(word) for word in words}
    return "\n".join(
        topic.line if topic is not None else f"{word!r} is no command; `h` lists them"
        for word, topic in found.items()
    )
