"""One rank of many: its timeouts while another rank is stopped, and what it waits for.

    idle --arm--> armed (a thread watches) --disarm, or nobody renews--> idle

While armed the thread raises the timeouts of groups that are made meanwhile, restores everything
when the agent is silent for too long, and is the budget that the raised timeouts no longer are:
a main thread that makes no progress for as long as the old timeout, in time in which no rank of
the job is held, is reported once.
"""

from __future__ import annotations

import _thread
import contextlib
import os
import threading
import time

from rdev.hook.evaluate import evaluate
from rdev.hook.place import describe, fingerprint, main_frame, waiting_in
from rdev.hook.timeouts import Timeouts
from rdev.wire.clock import active_monotonic
from rdev.wire.thread import ChannelThread

TYPE_CHECKING = False  # not from `typing`, see rdev.hook
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import FrameType
    from typing import Any

    Answer = Mapping[str, Any]
    Report = Callable[[str, Mapping[str, Any]], None]

# How often the main thread is looked at; a look costs 20 us.
TICK = 0.25

# If whoever arms does not say.
RENEW_SECONDS = 60.0

# The watching thread leaves before a fork; it is busy for milliseconds at most.
LEAVE_SECONDS = 1.0

# A thread that computes is making progress even if it is always seen in the same call of C code.
IDLE_SHARE = 0.1


class Groups:
    """Serves `arm`, `disarm`, `hold`, `progress` and `evaluate` of the job's channel.

    Args:
        report: Called with the kind and the fields of each event.
    """

    def __init__(self, report: Report) -> None:
        self._report = report
        self._timeouts = Timeouts()
        self._is_registered = False
        self._begin()

    @property
    def commands(self) -> dict[str, Callable[[Answer], Answer]]:
        """The commands by name."""
        return {
            "arm": self.arm,
            "disarm": self.disarm,
            "hold": self.hold,
            "progress": self.progress,
            "evaluate": evaluate,
        }

    def arm(self, args: Answer) -> Answer:
        """Raises every timeout to `seconds`, for `renew` seconds or until armed again."""
        with self._lock:
            self._seconds = float(args["seconds"])
            self._deadline = time.monotonic() + float(args.get("renew", RENEW_SECONDS))
            self._timeouts.raise_to(self._seconds)
            self._timeouts.watch(self._on_created)
            self._tell()
            if self._watcher is None:
                self._start()
        before, now = self._timeouts.before(), self._timeouts.now()
        rank, size = self._timeouts.world()
        return {
            "rank": rank,
            "size": size,
            "groups": self._timeouts.names(),
            "refused": [f"{name}: {cause}" for name, cause in self._timeouts.refused.items()],
            "shortest": before[0] if before else None,
            "longest": before[-1] if before else None,
            "armed": now[0] if now else None,
        }

    def disarm(self, _args: Answer) -> Answer:
        """Restores every timeout."""
        self._end()
        return self._restore()

    def hold(self, args: Answer) -> Answer:
        """A rank of the job is held, or none is: the budget counts active time only."""
        self._is_held = bool(args.get("held"))
        return {}

    def progress(self, _args: Answer) -> Answer:
        """How far this process is, and what its main thread waits in."""
        frame = main_frame()
        rank, size = self._timeouts.world()
        return {
            "rank": rank,
            "size": size,
            "sequence": self._timeouts.sequence(),
            "step": None,
            "place": describe(frame),
            "waiting": waiting_in(frame),
            "stuck": round(self._stuck, 3),
        }

    def leave(self) -> None:
        """The process ends: the thread that watches must not be in torch then, see `aside`."""
        self._end()
        # One whose time is over has taken itself out already, and restores under the lock.
        if self._lock.acquire(timeout=LEAVE_SECONDS):
            self._lock.release()

    def forget(self) -> None:
        """In a forked child: nothing is armed, and its groups are its parent's."""
        self._begin()
        self._timeouts.forget()

    def _begin(self) -> None:
        self._lock = _thread.allocate_lock()
        self._seconds = 0.0
        self._deadline = 0.0
        self._is_held = False
        self._told: list[str] = []
        self._stuck = 0.0
        self._is_suspected = False
        self._known: set[str] = set()
        self._seen: object = None
        self._at = (0.0, 0.0)
        self._watcher: ChannelThread | None = None
        self._resume = False
        self._wake = _thread.allocate_lock()

    def _on_created(self) -> None:
        # In the program's own thread, which must never wait for one of ours.
        if self._seconds:
            self._timeouts.raise_groups(self._seconds)

    def _tell(self) -> None:
        names = self._timeouts.names()
        if names != self._told:
            self._told = names
            self._report("debug_armed", {"groups": len(names), "seconds": self._seconds})

    def _restore(self) -> Answer:
        with self._lock:
            told = self._put_back()
        self._tell_restored(told)
        return {"groups": told}

    def _put_back(self) -> int:
        self._watcher = None
        self._seconds, self._is_held = 0.0, False
        told, self._told, self._known = len(self._told), [], set()
        self._timeouts.restore()
        return told

    def _tell_restored(self, groups: int) -> None:
        self._clear()
        if groups:
            self._report("debug_disarmed", {"groups": groups})

    # The thread that watches.

    def _start(self) -> None:
        if not self._is_registered:
            self._is_registered = True
            os.register_at_fork(before=self._before_fork, after_in_parent=self._after_fork)
        self._wake = _thread.allocate_lock()
        self._wake.acquire()
        wake = self._wake
        watcher = ChannelThread(lambda: self._watch(wake))
        try:
            watcher.start()
        except RuntimeError:
            return  # The interpreter is shutting down, and nobody will be stopped in it.
        self._watcher = watcher

    def _end(self) -> None:
        watcher, self._watcher = self._watcher, None
        if watcher is None or watcher is threading.current_thread():
            return
        if self._wake.locked():
            self._wake.release()
        watcher.leave(LEAVE_SECONDS)

    def _before_fork(self) -> None:
        self._resume = self._watcher is not None
        self._end()

    def _after_fork(self) -> None:
        if self._resume and self._seconds:
            self._start()

    def _watch(self, wake: _thread.LockType) -> None:
        self._seen, self._at = None, (active_monotonic(), _main_cpu())
        while not wake.acquire(timeout=TICK):
            with self._lock:
                # Together with the restoring: an arming that comes this moment starts anew.
                is_over = time.monotonic() > self._deadline
                told = self._put_back() if is_over else 0
            if is_over:
                self._tell_restored(told)
                return
            # Whatever torch raises while the program takes its groups down, the deadline stays.
            with contextlib.suppress(Exception):
                self._look()

    def _look(self) -> None:
        numbers = self._timeouts.sequence()
        with self._lock:
            # Those made where `watch` could not see it: torch was imported a moment ago.
            self._timeouts.watch(self._on_created)
            if numbers.keys() - self._known and self._seconds:
                self._known = set(numbers)
                self._timeouts.raise_groups(self._seconds)
                self._tell()
        frame = main_frame()
        waiting = waiting_in(frame)
        seen = (fingerprint(frame), tuple(numbers.items()))
        before, self._at = self._at, (active_monotonic(), _main_cpu())
        active, burnt = self._at[0] - before[0], self._at[1] - before[1]
        if seen != self._seen or (burnt > IDLE_SHARE * TICK and not waiting):
            self._clear()
            self._seen = seen
        elif not self._is_held:
            self._stuck += active
            self._suspect(frame, waiting)

    def _clear(self) -> None:
        if self._is_suspected:
            self._report("hang_over", {"seconds": round(self._stuck, 1)})
        self._stuck, self._is_suspected = 0.0, False

    def _suspect(self, frame: FrameType | None, waiting: str) -> None:
        before = self._timeouts.before()
        if self._is_suspected or not before or self._stuck < before[0]:
            return
        self._is_suspected = True
        fields = {"seconds": round(self._stuck, 1), "waiting": waiting}
        self._report("hang_suspected", {**describe(frame), **fields})


def _main_cpu() -> float:
    """Seconds of CPU that the main thread has used; 0 where that cannot be asked."""
    ident = threading.main_thread().ident
    if ident is None or not hasattr(time, "pthread_getcpuclockid"):
        return 0.0
    return time.clock_gettime(time.pthread_getcpuclockid(ident))
