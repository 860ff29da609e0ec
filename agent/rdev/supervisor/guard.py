"""Guards the agent: a supervisor with a live job starts it again when it was killed.

    nothing recorded <--> watching the recorded agent --it ends--> looking
       looking --no record: it was meant to end--> nothing recorded
               --another agent is recorded, and lives--> watching that
               --an agent is being started--> looking a little later
               --nobody starts one--> starting it, looking a little later

Many supervisors guard one agent: the guard's lock lets one of them start it, and the new agent
holds that lock until it serves. Nothing here runs while the agent lives.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import random
import resource
import selectors
import time
from typing import NoReturn

from rdev.supervisor.processes import is_alive
from rdev.supervisor.shim import reset_signals
from rdev.wire.guard import AgentRecord, guard_lock, host_of, read_agent

# An agent starts within half a second, and is found by its hello; this is for one that does not.
_LOOK = 0.1
_LONGEST_LOOK = 1.0

# An agent that ends this soon, and again and again, has a defect: it must not become a storm. Its
# start takes a third of a second of CPU time: 3 % of a core, if it never comes to serve.
_SHORT_LIFE = 3.0
_BREATHER = 0.1
_LONGEST_BREATHER = 10.0


class Guard:
    """Guards the agent of one job's machine; without an agent's record it does nothing.

    Args:
        selector: Waits for the agent's end.
        job_directory: The job's.
        descriptors: How many descriptors the login's processes may have, the soft limit; this
            process may have been given more.

    Attributes:
        look_at: When `step` wants to be called, on CLOCK_MONOTONIC; None while all is well.
    """

    def __init__(
        self, selector: selectors.BaseSelector, job_directory: str, *, descriptors: int
    ) -> None:
        self.look_at: float | None = None
        self._descriptors = descriptors
        self._selector = selector
        self._host = host_of(job_directory)
        self._watched: AgentRecord | None = None
        self._handle = -1
        self._pause = _LOOK
        self._breather = 0.0

    def look(self) -> None:
        """Reads who serves: watches that process, or sees to it that there is one."""
        record = read_agent(self._host)
        if record is not None and self._is(record) and self._handle >= 0:
            return
        self._unwatch()
        self.look_at = None
        if record is None:
            return
        handle = _open(record)
        if handle is not None:
            self._watch(record, handle)
        else:
            self._restart(record)

    def step(self) -> None:
        """Does what is due."""
        if self.look_at is not None and time.monotonic() >= self.look_at:
            self.look()

    def _is(self, record: AgentRecord) -> bool:
        known = self._watched
        return known is not None and (known.pid, known.ticks) == (record.pid, record.ticks)

    def _watch(self, record: AgentRecord, handle: int) -> None:
        self._watched, self._handle, self._pause = record, handle, _LOOK
        self._selector.register(handle, selectors.EVENT_READ, self._on_end)

    def _unwatch(self) -> None:
        if self._handle >= 0:
            self._selector.unregister(self._handle)
            os.close(self._handle)
            self._handle = -1

    def _on_end(self, _events: int) -> None:
        self._unwatch()
        now = time.monotonic()
        is_short = self._watched is not None and now - self._watched.served < _SHORT_LIFE
        # One that was killed soon after its start may have had bad luck; the next one waits.
        breather = self._breather if is_short else 0.0
        self._breather = min(max(2 * breather, _BREATHER), _LONGEST_BREATHER) if is_short else 0.0
        self.look_at = now + breather * random.uniform(0.5, 1.0)
        self.step()

    def _restart(self, record: AgentRecord) -> None:
        """The recorded agent was killed: starts it, unless somebody is doing that already."""
        # The first to come starts it, and the others see that by the lock; they do not return in
        # step. One whose start fails again and again is tried ever less often.
        self.look_at = time.monotonic() + self._pause * random.uniform(0.5, 1.0)
        try:
            lock = os.open(guard_lock(self._host), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError:  # the home is being removed
            self.look_at = None
            return
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if read_agent(self._host) == record:
                self._pause = min(2 * self._pause, _LONGEST_BREATHER)
                os.ftruncate(lock, 0)
                _start(record, lock, descriptors=self._descriptors)
        except BlockingIOError:
            self._pause = min(2 * self._pause, max(self._pause, _LONGEST_LOOK))
        except OSError:  # no process or no memory for it: later
            self._pause = min(2 * self._pause, _LONGEST_BREATHER)
        finally:
            os.close(lock)


def _open(record: AgentRecord) -> int | None:
    """A descriptor that is readable once that agent is gone; None if it is gone already."""
    try:
        handle = os.pidfd_open(record.pid)
    except ProcessLookupError:
        return None
    if is_alive(record.pid, ticks=record.ticks):
        return handle
    os.close(handle)
    return None


def _start(record: AgentRecord, lock: int, *, descriptors: int) -> None:
    """Forks twice, so that the agent is no child of this process."""
    middle = os.fork()
    if middle:
        os.waitpid(middle, 0)
        return
    try:
        if os.fork() == 0:
            _become(record, lock, descriptors=descriptors)
    finally:
        os._exit(0)


def _become(record: AgentRecord, lock: int, *, descriptors: int) -> NoReturn:
    """Turns this process into the agent, which holds the lock until it serves or has failed."""
    try:
        os.setsid()
        reset_signals()
        null = os.open(os.devnull, os.O_RDWR)
        log = os.open(record.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        for opened, number in ((null, 0), (log, 1), (log, 2)):
            os.dup2(opened, number)
        os.set_inheritable(lock, True)  # noqa: FBT003  # the standard library's signature
        os.umask(record.umask)
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (descriptors, hard))
        with contextlib.suppress(OSError):
            os.chdir(record.directory)
        argv = [*record.argv, "--ready-fd", str(lock)]
        os.execve(argv[0], argv, dict(record.environment))
    except OSError as error:
        os.write(2, f"unable to start the agent again: {error}\n".encode())
    finally:
        os._exit(127)
