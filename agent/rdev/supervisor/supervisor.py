"""The supervisor of one job: moves its output, answers for it, stops it, says when it is over.

    waiting for exec -> running -> exit status known -> leftovers gone, output drained -> final
                          '-- failed, and may be started again --> the next attempt is recorded

One thread, one selector, no clock that ticks: idle it costs nothing. Its keeper starts it again
whenever it dies, and it begins from what is on disk.
"""

from __future__ import annotations

import contextlib
import enum
import os
import selectors
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from rdev.supervisor import lifecycle
from rdev.supervisor.commands import Commands
from rdev.supervisor.connections import AGENT, Peer, Server
from rdev.supervisor.feed import Conduit, Feed
from rdev.supervisor.guard import Guard
from rdev.supervisor.journal import Journal
from rdev.supervisor.outputs import PER_OUTPUT, Outputs
from rdev.supervisor.platform import allow_descriptors, complain, lock, set_process_name
from rdev.supervisor.processes import look_at
from rdev.supervisor.report import names_killed_rank, read_report
from rdev.supervisor.stopping import Sweep, open_process
from rdev.supervisor.terminal import Pty, Terminal
from rdev.wire.blocks import Block, FilesError
from rdev.wire.events import Event
from rdev.wire.files import JobFiles, read_exit, read_started, read_status
from rdev.wire.guard import host_of
from rdev.wire.home import root_of
from rdev.wire.job import LogFull, Reason, Window
from rdev.wire.records import Exit, Launch, Status

# Descriptors beside those of the outputs: some files, and two for each rank that dials.
_OTHERS = 600

# epoll_wait(2) counts milliseconds in 32 bits, and a timeout may be of months: looking at the clock
# again each hour costs nothing.
_LONGEST_WAIT = 3600.0

# A pause before the word that an attempt is over is written again; its keeper waits, too.
_RETRY_AFTER = 1.0

# torchrun passes these on to its ranks; of any other it would only die.
_PASSED_ON = frozenset({signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM})


class Phase(enum.Enum):
    """What the keeper knows of the job when it starts a supervisor."""

    STARTING = "starting"
    """The command was not executed yet."""
    RUNNING = "running"
    """It was; a byte in the wake pipe says that the exit status is there."""
    ORPHANED = "orphaned"
    """The keeper is not the job's parent: the exit status, if not recorded yet, is lost."""


@dataclass(frozen=True, slots=True)
class Keeper:
    """What a supervisor has from its keeper.

    Attributes:
        pid: The keeper.
        wake: Read end of its pipe: a byte when something changed, its end when it is gone.
        phase: What it knows of the job.
        attempt: Which attempt it keeps.
        conduit: The way of the job's input; None if it takes none, or if that is lost.
        terminal: The job's terminal, if it has one.
    """

    pid: int
    wake: int
    phase: Phase
    attempt: int
    conduit: Conduit | None = None
    terminal: Pty | None = None


def supervise(files: JobFiles, launch: Launch, keeper: Keeper) -> None:
    """Runs a job's supervisor in this process, to the end of one attempt.

    Returns after a final status, or the status that begins another attempt, is durable.

    Args:
        files: The job's directory, which is also the current one.
        launch: How the job was started.
        keeper: The parent of this process.
    """
    set_process_name("rdev-supervisor")
    descriptors = allow_descriptors(len(launch.outputs) * PER_OUTPUT + _OTHERS)
    # A predecessor that outlived its keeper may still be at work: it is waited for.
    lock(files.supervisor_lock, wait=True)
    status = read_status(files)
    if status.state.is_final or status.attempt != keeper.attempt:
        return
    _Supervisor(files, launch, keeper, descriptors=descriptors).run()


class _Supervisor:
    def __init__(
        self, files: JobFiles, launch: Launch, keeper: Keeper, *, descriptors: int
    ) -> None:
        self.files = files
        self.launch = launch
        self.keeper = keeper
        self.status = read_status(files)
        self.ending: Exit | None = None
        self.is_over = False
        self.selector = selectors.DefaultSelector()
        self.block = Block(files.state)
        self.outputs = Outputs(
            files, launch, self.selector, on_moved=self._on_moved, on_lost=self._on_lost
        )
        self.feed, self.terminal = self._open_input(keeper)
        self.journal = Journal(files, breathe=self._drain)
        self.unacknowledged: set[Peer] = set()
        self.server = Server(self.selector, self, job_id=launch.id)
        self.commands = Commands(self.server, self)
        home = root_of(host_of(files.directory))
        self.sweep = Sweep(launch, keeper=keeper.pid, home=home)
        self.guard = Guard(self.selector, files.directory, descriptors=descriptors)
        self.is_watching = False

    def run(self) -> None:
        self._register()
        self._begin()
        self.guard.look()
        while not (self.sweep.step(is_over=self.is_over) and self._drain()):
            for key, events in self.selector.select(self._until_timer()):
                handler: Callable[[int], None] = key.data
                handler(events)
            self._check_timeout()
            self.guard.step()
            self.outputs.step()
            self._tell_waiting()
            self._feed_again()
            self.server.resume()
        self._finish()

    def _register(self) -> None:
        self.outputs.watch()
        self.selector.register(self.keeper.wake, selectors.EVENT_READ, self._on_wake)
        self.take_input()

    def _begin(self) -> None:
        # The keeper writes it before it starts a supervisor.
        started = read_started(self.files, attempt=self.status.attempt)
        if started is not None:
            self.sweep.main = started
        self._look_for_exit()
        stopped, paused = self.status.stops, self.status.pauses
        for pid in {*(stop.pid for stop in stopped), *(pause.pid for pause in paused)}:
            # Its process may have ended while nobody was there to be told.
            if look_at(pid) is None:
                self.change(lifecycle.disconnected(self.status, pid, at=time.time()))
        if self.keeper.phase is Phase.STARTING:
            self.change(lifecycle.starting(self.status))
        else:
            self._on_running()
        if self.keeper.phase is Phase.ORPHANED:
            self._watch_main()
        if self.status.stop_reason is not Reason.NONE:
            # The one before was killed, perhaps before it sent TERM: once more rather than never.
            self.outputs.lose_patience()
            self.sweep.begin(kill_at=self.status.kill_at, is_all=self.status.stop_all)

    # --- input and output

    def _open_input(self, keeper: Keeper) -> tuple[Feed | None, Terminal | None]:
        conduit, pty = keeper.conduit, keeper.terminal
        if conduit is None:
            return None, None
        feed = Feed(conduit, self.selector, keeper=keeper.pid, can_end=pty is None)
        if pty is None:
            return feed, None
        # A terminal has one output, that of the main process.
        sink = self.outputs.main
        return feed, Terminal(pty, self.selector, source=conduit.reader, sink=sink)

    def take_input(self) -> None:
        """Feeds the job what was written, on request."""
        if self.feed is not None:
            self.feed.step()

    def _feed_again(self) -> None:
        retry_at = self.feed.retry_at if self.feed else None
        if retry_at is not None and time.monotonic() >= retry_at:
            self.take_input()

    def resize(self, window: Window) -> None:
        """Tells the job's terminal its size, on request."""
        if self.terminal is not None:
            self.terminal.resize(window)

    def _on_moved(self) -> None:
        if self.terminal is not None:
            self.terminal.resume()

    def _on_lost(self, error: int) -> None:
        """Output was lost, and the job is to be stopped then."""
        message = f"its output could not be kept: {os.strerror(error).lower()}"
        self._stop(Reason.QUOTA, kill_at=time.monotonic() + self.launch.grace, message=message)

    def _tell_waiting(self) -> None:
        if self.launch.log_full is LogFull.BLOCK:
            self.change(lifecycle.waiting(self.status, self.outputs.waits_for()))

    def _drain(self) -> bool:
        """True once what is there at this moment is in the log, or is counted as lost."""
        if self.terminal is not None:
            self.terminal.drain()
        return self.outputs.drain()

    # --- the main process

    def _on_wake(self, _events: int) -> None:
        if os.read(self.keeper.wake, 4096):
            self._look_for_exit()
            self._on_running()
            return
        # The keeper was killed. Perhaps it recorded the end before; else we watch the process.
        self.sweep.keeper = 0
        self.selector.unregister(self.keeper.wake)
        self._look_for_exit()
        if not self.is_over:
            self._watch_main()

    def _on_running(self) -> None:
        """Once the command was executed, though it may have ended since; not if it could not be."""
        started = read_started(self.files, attempt=self.status.attempt)
        if started is not None and not (self.ending and self.ending.message):
            self.change(lifecycle.running(self.status, started))

    def _watch_main(self) -> None:
        """Watches the main process itself; when it is gone the end is lost unless recorded."""
        if self.is_watching:
            return
        started = read_started(self.files, attempt=self.status.attempt)
        handle = open_process(started) if started else None
        if handle is None:
            self._on_gone_unseen()
            return
        watched = handle

        def gone(_events: int) -> None:
            self.selector.unregister(watched)
            os.close(watched)
            self._on_gone_unseen()

        self.is_watching = True
        self.selector.register(handle, selectors.EVENT_READ, gone)

    def _on_gone_unseen(self) -> None:
        self._look_for_exit()
        self.is_over = True

    def _look_for_exit(self) -> None:
        self.ending = self.ending or read_exit(self.files, attempt=self.status.attempt)
        self.is_over = self.is_over or self.ending is not None
        self.sweep.is_thorough = self._is_to_be_repeated()

    def _is_to_be_repeated(self) -> bool:
        return self.ending is not None and lifecycle.is_to_be_repeated(
            self.status, self.ending, self.launch
        )

    # --- stopping

    def stop(self, *, is_now: bool, is_all: bool) -> None:
        """Stops the job, on request."""
        grace = 0.0 if is_now else self.launch.grace
        self._stop(Reason.STOPPED, kill_at=time.monotonic() + grace, is_all=is_all)

    def _stop(
        self, reason: Reason, *, kill_at: float, message: str = "", is_all: bool = False
    ) -> None:
        self._look_for_exit()  # it may have ended a moment ago, which is no cancellation
        self.outputs.lose_patience()
        has_ended = self.is_over and not self._is_to_be_repeated()
        if has_ended and self.status.stop_reason is Reason.NONE:
            # It has ended by itself and is being swept up: that only goes faster.
            self.sweep.hasten(kill_at=kill_at)
            return
        # Recorded first: a successor goes on with it.
        status = lifecycle.stopping(
            self.status, reason=reason, kill_at=kill_at, message=message, is_all=is_all
        )
        self.change(status)
        self.sweep.begin(kill_at=status.kill_at, is_all=status.stop_all)

    def send_signal(self, number: int) -> None:
        """Signals the job's process group, on request.

        Raises:
            ValueError: There is no such signal.
        """
        if number not in signal.valid_signals():
            raise ValueError(f"there is no signal {number}")
        self.change(lifecycle.signalled(self.status, number))
        if not self.status.pid or self.is_over:
            return
        if self.launch.launcher and number not in _PASSED_ON:
            self.sweep.signal_ranks(number)
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.status.pid, number)

    # --- time

    def _until_timer(self) -> float | None:
        """Seconds until something has to be done; None if nothing is planned."""
        timers = (
            self.sweep.next_look(),
            self._timeout_at(),
            self.outputs.next_look(),
            self.server.resume_at,
            self.guard.look_at,
            self.feed.retry_at if self.feed else None,
        )
        due = [timer for timer in timers if timer is not None]
        left = min(due) - time.monotonic() if due else None
        return None if left is None else min(max(0.0, left), _LONGEST_WAIT)

    def _check_timeout(self) -> None:
        now, timeout_at = time.monotonic(), self._timeout_at()
        if timeout_at is not None and now >= timeout_at:
            self._stop(Reason.TIMEOUT, kill_at=now + self.launch.grace)

    def _timeout_at(self) -> float | None:
        if self.is_over or self.sweep.main is None:
            return None
        return lifecycle.times_out_at(self.status, self.sweep.main, self.launch)

    # --- connections

    def on_hello(self, peer: Peer) -> None:
        """See `connections.Listener`."""
        if peer.role != AGENT:
            acknowledged = self.journal.acknowledged(peer.rank, peer.pid)
            self.server.welcome(peer, acknowledged=acknowledged)
        else:
            self.server.welcome(peer, acknowledged=0)
            self.guard.look()
            peer.send({"type": "state", **self.status.to_json()})
            # What came in while no agent could tell us so.
            self.take_input()

    def on_message(self, peer: Peer, message: dict[str, Any]) -> None:
        """See `connections.Listener`."""
        if message.get("type") == "event" and peer.role != AGENT:
            self._on_event(peer, message)
        else:
            self.commands.on_message(peer, message)

    def _on_event(self, peer: Peer, message: dict[str, Any]) -> None:
        fields = {k: v for k, v in message.items() if k not in _HEAD}
        try:
            event = Event(
                kind=str(message["kind"]),
                time=float(message["time"]),
                rank=peer.rank,
                pid=peer.pid,
                seq=int(message["seq"]),
                fields=fields,
            )
        except (KeyError, OverflowError, TypeError, ValueError):
            return  # not an event; a newer sender's, perhaps
        if not (0.0 <= event.time < _LAST_TIME and event.seq <= _LAST_NUMBER):
            return
        if self.journal.add(event):
            self.change(lifecycle.noted(self.status, event))
        self.unacknowledged.add(peer)

    def on_read(self, peer: Peer) -> None:
        """See `connections.Listener`; one acknowledgement for all that came together."""
        if peer in self.unacknowledged:
            self.unacknowledged.discard(peer)
            acknowledged = self.journal.acknowledged(peer.rank, peer.pid)
            peer.send({"type": "ack", "seq": acknowledged})

    def on_gone(self, peer: Peer) -> None:
        """See `connections.Listener`."""
        self.commands.on_gone(peer)
        self.unacknowledged.discard(peer)
        if peer.role not in ("", AGENT) and self.server.find_process(peer.pid) is None:
            self.change(lifecycle.disconnected(self.status, peer.pid, at=time.time()))

    # --- the record

    def change(self, status: Status) -> None:
        """Records a new status and tells the agents.

        What the disk does not take is written with the next change. The end of an attempt is
        written until it is durable.
        """
        if status == self.status:
            return
        has_to_last = status.state.is_final or status.attempt != self.status.attempt
        self.status = status
        while not self._write(status) and has_to_last:
            time.sleep(_RETRY_AFTER)
        self.server.tell_agents({"type": "state", **status.to_json()})

    def _write(self, status: Status) -> bool:
        try:
            self._write_block(status)
        except OSError:
            complain()
            return False
        return True

    def _write_block(self, status: Status) -> None:
        try:
            self.block.write(status.to_json())
        except FilesError:  # many stops at paths of many strange letters: not worth a death
            self.block.write(replace(status, stops=()).to_json())

    def _finish(self) -> None:
        # What the job said last may still lie in its sockets.
        self.server.drain()
        self.journal.close()
        started = read_started(self.files, attempt=self.status.attempt)
        status = lifecycle.waiting(self.status, 0)
        if started is not None:
            status = lifecycle.running(status, started)
        status = replace(status, spared=self.sweep.spared)
        if self.ending is not None and self._is_to_be_repeated():
            ends = self.outputs.ends()
            again = lifecycle.repeated(
                status, self.ending, ends=ends, is_rank_killed=self._is_rank_killed()
            )
            self.change(again)
        else:
            # What was typed may be a secret, and nobody will read it any more.
            with contextlib.suppress(OSError):
                os.unlink(self.files.input)
            over = lifecycle.ended(
                status, self.ending, at=time.time(), is_rank_killed=self._is_rank_killed()
            )
            self.change(over)
        self.server.close()

    def _is_rank_killed(self) -> bool:
        if not self.launch.launcher or self.ending is None or not self.ending.oom_kills:
            return False  # then it does not matter
        return names_killed_rank(read_report(self.files, self.status.attempts))


# What an event's time and number are at most: the end of the year 9999, and 63 bits.
_LAST_TIME = 253_402_300_800.0
_LAST_NUMBER = (1 << 63) - 1

_HEAD = frozenset({"type", "kind", "time", "rank", "pid", "seq"})
