"""The keeper: parent and subreaper of one job; it records the exit status and little else.

    locked -> [not started] -> forks the job, marks it started, opens the gate
           -> forks the supervisor, and again whenever that dies
           -> the job ends: its raw wait status into the reserved block, a byte to the supervisor
           -> the supervisor ends after a final status: ends
                              after one that begins another attempt: [not started], once more

The started marker names its attempt, so each attempt is executed once at most, whoever is killed
when. A keeper that finds the marker comes after one that was killed. It holds the output and
keeps a supervisor, but it is not the job's parent, so the exit status is lost.

It is in no session or group of the job's, holds the FIFOs so that no byte in them is lost between
two supervisors, and sits in waitpid: idle it costs nothing.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from typing import NoReturn, TypeVar

from rdev.supervisor.execute import become
from rdev.supervisor.feed import FED, Conduit
from rdev.supervisor.membership import OURS
from rdev.supervisor.memory import kills_between, kills_where
from rdev.supervisor.platform import become_subreaper, complain, lock, set_process_name
from rdev.supervisor.processes import look_at
from rdev.supervisor.supervisor import Keeper, Phase, supervise
from rdev.supervisor.terminal import Pty
from rdev.wire.blocks import read_file, write_block
from rdev.wire.channel import ATTEMPT_VARIABLE
from rdev.wire.files import JobFiles, read_exit, read_started, read_status
from rdev.wire.job import JobState, Usage
from rdev.wire.records import Exit, Launch, Started, Status

_T = TypeVar("_T")

# A supervisor that fails at once, on a defect or for lack of memory, must not become a fork storm;
# one that is killed has done nothing wrong and is back before the job has filled its pipe.
_SHORT_LIFE = 1.0
_BREATHER = 0.05
_LONGEST_BREATHER = 5.0

# What of a long command is named when it fails: a character may take 12 bytes in the record of the
# exit, and all of it has to fit in the block, see rdev.wire.files.
_MAX_OBJECT = 100


def keep(directory: str, *, ready: int) -> NoReturn:
    """Runs a keeper in this process, which was forked for it; never returns.

    Args:
        directory: The job's.
        ready: Write end of a pipe; a byte says that this keeper has the job, its end that another
            one has or that nothing is left to do.
    """
    code = 1
    try:
        set_process_name("rdev-keeper")
        os.setsid()
        os.umask(0o077)
        os.chdir(directory)
        files = JobFiles(directory)
        _redirect(files.complaints)
        _ignore_signals()
        become_subreaper()
        if lock(files.keeper_lock, wait=False) and not read_status(files).state.is_final:
            os.write(ready, b"k")
            os.close(ready)
            _Keeping(files).run()
        code = 0
    except BaseException:  # noqa: BLE001  # the edge: nothing may unwind into the zygote's loop
        complain()
    finally:
        os._exit(code)


class _Keeping:
    def __init__(self, files: JobFiles) -> None:
        self.files = files
        self.launch = Launch.from_json(read_file(files.launch))
        # Held open and never read: what is in a FIFO lives as long as somebody has it open.
        self.held = [
            os.open(files.fifo(*output), os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
            for output in self.launch.outputs
        ]
        self.attempt = read_status(files).attempt
        self.wake_read, self.wake_write = os.pipe()
        self.phase = Phase.STARTING
        self.conduit: Conduit | None = None
        self.terminal: Pty | None = None
        self.main = 0
        self.failure: dict[str, object] = {}
        self.kills = kills_where(os.getpid())
        # What the job has used, all attempts together, and nothing of ours.
        self.usage = Usage(0.0, 0.0, peak_memory=0)

    def run(self) -> None:
        supervisor, born = self._begin(), time.monotonic()
        breather = 0.0
        while True:
            pid = self._next_death()
            oom_kills = self._count_oom_kills(pid) if pid == self.main else 0
            status = self._reap(pid)
            if pid == self.main:
                self._record_exit(status, oom_kills=oom_kills)
            if pid != supervisor:
                continue
            found = self._read_status()
            if found is not None and found.state.is_final:
                return
            if found is not None and found.attempt > self.attempt:
                self._renew(found.attempt)
                supervisor, born = self._begin(), time.monotonic()
                continue
            has_failed = os.WIFEXITED(status) and time.monotonic() - born < _SHORT_LIFE
            breather = _longer(breather) if has_failed else 0.0
            time.sleep(breather)
            supervisor, born = self._fork_supervisor(), time.monotonic()

    def _begin(self) -> int:
        """Starts the attempt unless that was done, and its supervisor; returns the latter."""
        report = -1
        if _insist(lambda: read_started(self.files, attempt=self.attempt)) is None:
            report = self._start()
        else:
            self.phase = Phase.ORPHANED
        supervisor = self._fork_supervisor()
        if report >= 0:
            self._await_exec(report)
        return supervisor

    def _renew(self, attempt: int) -> None:
        """Forgets the attempt that has failed."""
        self.attempt = attempt
        self.phase, self.main, self.failure = Phase.STARTING, 0, {}
        self.kills = kills_where(os.getpid())
        # A byte for the supervisor that has gone would wake the next one for nothing.
        os.close(self.wake_read)
        os.close(self.wake_write)
        self.wake_read, self.wake_write = _insist(os.pipe)

    def _next_death(self) -> int:
        """Waits for the end of a child, which remains to be looked at as a zombie."""
        while True:
            ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOWAIT)
            if ended is not None:
                return ended.si_pid

    def _reap(self, pid: int) -> int:
        """Takes a zombie's status and adds up what it used, unless it was one of ours."""
        zombie = _insist(lambda: look_at(pid))
        _, status, used = os.wait4(pid, 0)
        if pid == self.main or zombie is None or zombie.name not in OURS:
            peak = max(self.usage.peak_memory, used.ru_maxrss << 10)
            self.usage = Usage(
                self.usage.user_seconds + used.ru_utime,
                self.usage.system_seconds + used.ru_stime,
                peak_memory=peak,
            )
        return status

    def _count_oom_kills(self, zombie: int) -> int:
        return kills_between(self.kills, kills_where(os.getpid()), of_job=kills_where(zombie))

    def _read_status(self) -> Status | None:
        """None if it cannot be read; it may be another time, and the job is not to blame."""
        try:
            return read_status(self.files)
        except FileNotFoundError:  # its directory was removed, as is done once a job has ended
            return Status(state=JobState.LOST)
        except (OSError, ValueError, KeyError, TypeError):
            complain()
            return None

    def _start(self) -> int:
        """Forks the job and opens its gate; returns the pipe that tells how exec went."""
        _insist(self._open_input)
        gate_read, gate_write = _insist(os.pipe)
        report_read, report_write = _insist(os.pipe)
        self.main = _insist(os.fork)
        if self.main == 0:
            os.close(gate_write)
            os.close(self.wake_write)
            attempt = {ATTEMPT_VARIABLE: str(self.attempt)}
            become(
                self.files,
                replace(self.launch, environment={**self.launch.environment, **attempt}),
                gate=gate_read,
                report=report_write,
                terminal=self.terminal,
            )
        os.close(gate_read)
        os.close(report_write)
        process = _insist(lambda: look_at(self.main))
        ticks = process.ticks if process else 0
        marker = Started(
            self.main,
            ticks,
            time=time.time(),
            monotonic=time.monotonic(),
            attempt=self.attempt,
        )
        _insist(lambda: write_block(self.files.started, marker.to_json()))
        with contextlib.suppress(BrokenPipeError):  # somebody has killed it at the gate
            os.write(gate_write, b"g")
        os.close(gate_write)
        return report_read

    def _open_input(self) -> None:
        """Once, before the first attempt; the next ones go on with what the one before left."""
        if self.launch.takes_input and self.conduit is None:
            self.conduit = conduit = Conduit.open(self.files)
            signal.signal(FED, lambda *_: conduit.close_fed())
        if self.launch.terminal is not None and self.terminal is None:
            self.terminal = Pty.open(self.launch.terminal)

    def _await_exec(self, report: int) -> None:
        content = b""
        while data := os.read(report, 4096):
            content += data
        os.close(report)
        if content:
            self.failure = json.loads(content)
            return
        self.phase = Phase.RUNNING
        self._wake()

    def _record_exit(self, status: int, *, oom_kills: int) -> None:
        if _insist(lambda: read_exit(self.files, attempt=self.attempt)) is None:
            failure, message = self.failure, ""
            if failure:
                message = f"unable to {failure['step']} {self._object()}: {failure['cause']}"
            error = int(str(failure.get("errno", 0)))
            record = Exit(
                status,
                time=time.time(),
                error=error,
                message=message,
                attempt=self.attempt,
                usage=self.usage,
                oom_kills=oom_kills,
            )
            _insist(lambda: write_block(self.files.exit, record.to_json()))
        self._wake()

    def _object(self) -> str:
        words = {"enter the folder": self.launch.directory, "execute": self.launch.argv[0]}
        named = words.get(str(self.failure["step"]), "the job")
        return named if len(named) <= _MAX_OBJECT else f"{named[: _MAX_OBJECT - 1]}…"

    def _wake(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.write(self.wake_write, b"w")

    def _fork_supervisor(self) -> int:
        keeper = Keeper(
            os.getpid(),
            wake=self.wake_read,
            phase=self.phase,
            attempt=self.attempt,
            conduit=self.conduit,
            terminal=self.terminal,
        )
        pid = _insist(os.fork)
        if pid:
            return pid
        code = 1
        try:
            os.close(self.wake_write)
            signal.signal(FED, signal.SIG_IGN)
            for descriptor in self.held:
                os.close(descriptor)
            supervise(self.files, self.launch, keeper)
            code = 0
        except BaseException:  # noqa: BLE001  # the edge: nothing may unwind into the keeper's loop
            complain()
        finally:
            os._exit(code)


def _insist(call: Callable[[], _T]) -> _T:
    """Calls again until it works: want of memory, of processes or of disk may pass.

    Raises:
        FileNotFoundError: The job's directory was removed; there is nothing left to keep.
    """
    breather = 0.0
    while True:
        try:
            return call()
        except FileNotFoundError:
            raise
        except OSError:
            complain()
        breather = _longer(breather)
        time.sleep(breather)


def _longer(breather: float) -> float:
    return min(max(2 * breather, _BREATHER), _LONGEST_BREATHER)


def _redirect(complaints: str) -> None:
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    os.close(null)
    log = os.open(complaints, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(log)


def _ignore_signals() -> None:
    """Only KILL ends a keeper: TERM to everything of a user's is no reason to lose a job."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(number, signal.SIG_IGN)
