"""One attached rank as a terminal session knows it: where it is held, and which frame is looked at.

running --stopped--> held --continue, step, lease's end--> running        any --> ended
"""

from __future__ import annotations

from dataclasses import dataclass, field

from rdev.client.debug.session import DebugClient, Ended, Frame, Stopped
from rdev.protocol.errors import DebuggerUnavailable


@dataclass(slots=True)
class Seat:
    """One rank.

    Attributes:
        rank: Which.
        client: Its session.
        stop: Where it is held; None while it runs.
        frames: Of the thread that is looked at, innermost first.
        thread: Which thread that is.
        chosen: Which frame is looked at.
        listed: The last line that `list` showed, in the job's lines; 0 if it is to begin anew.
        end: How its session ended; None while it goes on.
        is_past: It is held after an exception came out of the frames that are shown: none of them
            goes on.
    """

    rank: int
    client: DebugClient
    stop: Stopped | None = None
    frames: list[Frame] = field(default_factory=list)
    thread: int = 0
    chosen: int = 0
    listed: int = 0
    end: Ended | None = None
    is_past: bool = False

    @property
    def frame(self) -> Frame:
        """The frame that is looked at.

        Raises:
            DebuggerUnavailable: The thread has none, or nothing is held.
        """
        if self.stop is None:
            raise DebuggerUnavailable("look at a frame", "the job runs")
        if not self.frames:
            raise DebuggerUnavailable("look at a frame", "the thread has no Python frame")
        return self.frames[self.chosen]

    async def hold(self, stop: Stopped) -> None:
        """Takes note of a stop."""
        self.stop = stop
        await self.look_at(stop.thread)

    async def look_at(self, thread: int) -> None:
        """Looks at another thread of the stop."""
        self.frames = await self.client.stack(thread)
        self.thread, self.chosen, self.listed = thread, 0, 0

    def choose(self, number: int) -> None:
        """Looks at another frame, or at the last one where there are fewer."""
        self.chosen = max(0, min(number, len(self.frames) - 1))
        self.listed = 0

    def let_go(self) -> None:
        """Takes note that it runs."""
        self.stop, self.frames, self.is_past = None, [], False

    def require_goes_on(self) -> None:
        """Returns if the frames that are shown have a next line.

        Raises:
            DebuggerUnavailable: They have not.
        """
        if self.is_past:
            cause = "nothing is left to step: the exception has ended these frames; `c` goes on"
            raise DebuggerUnavailable("step", cause)

    async def resume(self, command: str) -> None:
        """Lets it run: `continue`, `next`, `stepIn`, `stepOut`."""
        thread = self.thread
        self.let_go()
        await self.client.resume(command, thread)
