"""A job's stops at the debugger as people read them beside its output: a line each, steps folded.

running --paused: told--> held --resumed: told--> running
                           ^--- paused again within `FOLD_SECONDS`: nothing is told ---'
"""

from __future__ import annotations

from dataclasses import dataclass

from rdev.client.ui.escapes import one_line
from rdev.wire.events import DEBUG_PAUSED, DEBUG_RESUMED, Event, ResumeCause
from rdev.wire.job import Job

# Who steps, or continues to the next breakpoint of a loop, stops again within this; and nobody
# minds to hear a second later that it goes on.
FOLD_SECONDS = 1.0

KINDS = (DEBUG_PAUSED, DEBUG_RESUMED)

_CAUSES = {
    ResumeCause.DETACHED.value: ": its debugger left",
    ResumeCause.LEASE.value: ": nothing was asked of its debugger in time",
    ResumeCause.ADAPTER_LOST.value: ": its debugger went away",
    ResumeCause.UNATTENDED.value: ": no debugger came",
}


@dataclass(slots=True)
class _Held:
    """A process that was told to be paused."""

    seconds: float = 0.0
    resumed_at: float | None = None
    is_unattended: bool = False


class Pauses:
    """Turns events into lines.

    Args:
        job: Whose they are.
        debug: What attaches a debugger to it, as typed.
    """

    def __init__(self, job: Job, debug: str) -> None:
        self._job = job
        self._debug = debug
        self._held: dict[tuple[int, int], _Held] = {}

    def take(self, event: Event, now: float) -> list[str]:
        """What is to be told of an event.

        Args:
            event: A stop, or its end.
            now: The moment, on any clock that only `due` and `wait` share.
        """
        key = (event.rank, event.pid)
        if event.kind == DEBUG_PAUSED:
            return self._pause(key, event)
        if event.kind == DEBUG_RESUMED:
            return self._resume(key, event, now)
        return []

    def due(self, now: float) -> list[str]:
        """What is to be told because nothing more happened."""
        over = [k for k, h in self._held.items() if _since(h, now) >= FOLD_SECONDS]
        return [self._goes_on(key, self._held.pop(key), "") for key in over]

    def wait(self, now: float) -> float | None:
        """Seconds until something is due; None if nothing will be."""
        left = [FOLD_SECONDS - _since(h, now) for h in self._held.values() if h.resumed_at]
        return max(0.0, min(left)) if left else None

    def _pause(self, key: tuple[int, int], event: Event) -> list[str]:
        is_unattended = event.fields.get("unattended") is True
        held = self._held.get(key)
        if held is not None and not (held.is_unattended and not is_unattended):
            held.resumed_at = None
            return []
        self._held[key] = _Held(is_unattended=is_unattended)
        who, place = self._who(key[0]), self._place(event)
        ends = _ends(event.fields.get("lease"))
        if is_unattended:
            return [f"{who} waits at {place} for a debugger: `{self._debug}`{ends}"]
        return [f"{who} is paused at {place} by the debugger{ends}"]

    def _resume(self, key: tuple[int, int], event: Event, now: float) -> list[str]:
        held = self._held.get(key)
        if held is None:  # it was held before anybody looked
            held = self._held[key] = _Held()
        seconds = event.fields.get("seconds")
        held.seconds += seconds if isinstance(seconds, int | float) else 0.0
        cause = str(event.fields.get("cause", ""))
        if cause not in _CAUSES:
            held.resumed_at = now
            return []
        del self._held[key]
        return [self._goes_on(key, held, _CAUSES[cause])]

    def _goes_on(self, key: tuple[int, int], held: _Held, why: str) -> str:
        return f"{self._who(key[0])} goes on after {span(held.seconds)}{why}"

    def _who(self, rank: int) -> str:
        return f"rank {rank}" if self._job.ranks > 1 else self._job.name

    def _place(self, event: Event) -> str:
        file = inside(str(event.fields.get("file", "")), self._job.directory)
        return one_line(f"{file}:{event.fields.get('line', 0)}")


def _since(held: _Held, now: float) -> float:
    return -1.0 if held.resumed_at is None else now - held.resumed_at


def _ends(lease: object) -> str:
    is_known = isinstance(lease, int | float) and lease > 0
    return f" (goes on by itself in {span(float(lease))})" if is_known else ""  # type: ignore[arg-type]  # it is a number


def inside(path: str, folder: str) -> str:
    """A file of the job as people know it: relative to its folder if it lies in that."""
    return path.removeprefix(f"{folder.rstrip('/')}/") if folder else path


def span(seconds: float) -> str:
    """A time in words: `12 s`, `15 min`, `2.5 h`."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
