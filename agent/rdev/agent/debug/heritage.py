"""What a client leaves of its session to one that comes after it."""

from __future__ import annotations

from dataclasses import dataclass

from rdev.protocol.dap import Message, sequence


@dataclass(frozen=True, slots=True)
class Inherited:
    """What a client finds that goes on with another's session.

    Attributes:
        first_sequence: It numbers its requests from here.
        files: In which the other one has set breakpoints.
        is_held: Whether the process is stopped.
        away: Seconds since the other one went.
    """

    first_sequence: int
    files: tuple[str, ...]
    is_held: bool
    away: float


class Done:
    """What a session's clients have brought about, for one that comes after them.

    Attributes:
        last_sequence: The highest number of a request.
        files: In which there are breakpoints.
        is_attached: The client was let in and has set what it wanted to.
        stop: The event of the last stop.
        evaluating: Expressions that are not answered yet, by the number of the request.
    """

    def __init__(self) -> None:
        self.last_sequence = 0
        self.files: set[str] = set()
        self.is_attached = False
        self.stop: Message | None = None
        self.evaluating: dict[int, str] = {}

    def asked(self, message: Message) -> None:
        """The client has sent it."""
        self.last_sequence = max(self.last_sequence, sequence(message, "seq"))
        arguments = message.get("arguments") or {}
        if message.get("command") == "evaluate":
            self.evaluating[sequence(message, "seq")] = str(arguments.get("expression", ""))
        if message.get("command") != "setBreakpoints":
            return
        path = (arguments.get("source") or {}).get("path")
        if isinstance(path, str):
            change = self.files.add if arguments.get("breakpoints") else self.files.discard
            change(path)

    def answered(self, message: Message) -> None:
        """The adapter has sent it."""
        if message.get("command") == "evaluate":
            self.evaluating.pop(sequence(message, "request_seq"), None)
        if message.get("type") == "response" and message.get("command") == "attach":
            self.is_attached |= message.get("success") is True
