"""How a job's status follows from what happens to it; no input or output here.

STARTING --executed--> RUNNING --stop, timeout, quota--> STOPPING
    |                     |                                |
    |<-- it may try again + failed                         |
    '------ exit status known, or known to be lost --------'--> a final state
"""

from __future__ import annotations

import os
import signal
from dataclasses import replace

from rdev.supervisor.shim import CANNOT_EXECUTE, NOT_FOUND
from rdev.wire.channel import clean_text, small_number
from rdev.wire.events import (
    DEBUG_PAUSED,
    DEBUG_RENEWED,
    DEBUG_RESUMED,
    HANG_OVER,
    HANG_SUSPECTED,
    LOOP_PAUSED,
    LOOP_RESUMED,
    Event,
)
from rdev.wire.job import Attempt, DebugStop, JobState, LoopPause, Reason, Stream
from rdev.wire.records import Exit, Launch, Started, Status

# A status has to fit in its block, see rdev.wire.files; nobody reads more held ranks than these.
_MAX_STOPS = 32
_MAX_PATH = 1000
_MAX_WORD = 200
_MAX_WHY = 100

# What may go better the next time.
_REPEATABLE = frozenset({Reason.EXITED, Reason.SIGNALED, Reason.OUT_OF_MEMORY})

# Who sends one of these wants the end.
_ENDING = frozenset({signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGKILL, signal.SIGTERM})

_LOST = "its keeper was killed, so nobody knows how it ended"


def starting(status: Status) -> Status:
    """The supervisor is there, the command not yet."""
    is_stopping = status.stop_reason is not Reason.NONE
    state = JobState.STOPPING if is_stopping else JobState.STARTING
    return _changed(status, replace(status, state=state))


def running(status: Status, started: Started) -> Status:
    """The command was executed."""
    state = JobState.RUNNING if status.state is not JobState.STOPPING else JobState.STOPPING
    return _changed(status, replace(status, state=state, pid=started.pid, started=started.time))


def stopping(
    status: Status, *, reason: Reason, kill_at: float, message: str = "", is_all: bool = False
) -> Status:
    """Somebody or something asked for the end; a later call may only hasten and widen it.

    Args:
        status: The status before.
        reason: STOPPED, TIMEOUT or QUOTA.
        kill_at: When KILL follows, on CLOCK_MONOTONIC.
        message: One line for a person.
        is_all: Nothing is spared.
    """
    is_all = is_all or status.stop_all
    if status.stop_reason is not Reason.NONE:
        kill_at = min(status.kill_at, kill_at)
        return _changed(status, replace(status, kill_at=kill_at, stop_all=is_all))
    stopped = replace(status, state=JobState.STOPPING, stop_reason=reason, kill_at=kill_at)
    return _changed(status, replace(stopped, message=message, stop_all=is_all))


def waiting(status: Status, error: int) -> Status:
    """The job waits for room for its output, or goes on.

    Args:
        status: The status before.
        error: errno of what it waits for; 0 if there is room.
    """
    if status.state is not JobState.RUNNING:
        return status
    cause = f"waits for room for its output: {os.strerror(error).lower()}" if error else ""
    return _changed(status, replace(status, message=cause))


def signalled(status: Status, number: int) -> Status:
    """A signal was sent on request."""
    return _changed(status, replace(status, signals=tuple(sorted({*status.signals, number}))))


def noted(status: Status, event: Event) -> Status:
    """An event arrived; those of the debugger and of pauses show in the status."""
    if event.kind in (HANG_SUSPECTED, HANG_OVER):
        return _stuck(status, event)
    if event.kind in (LOOP_PAUSED, LOOP_RESUMED):
        return _paused(status, event)
    others = tuple(stop for stop in status.stops if stop.pid != event.pid)
    if event.kind == DEBUG_RENEWED:
        renewed = (_renewed(stop, event) for stop in status.stops)
        return _changed(status, replace(status, stops=tuple(renewed)))
    if event.kind == DEBUG_PAUSED and len(others) < _MAX_STOPS:
        return _held(status, (*others, _stop_of(event)), status.pauses, at=event.time)
    if event.kind in (DEBUG_PAUSED, DEBUG_RESUMED):
        return _held(status, others, status.pauses, at=event.time)
    return status


def disconnected(status: Status, pid: int, *, at: float) -> Status:
    """A process of the job has gone, so it is not held any more."""
    stops = tuple(stop for stop in status.stops if stop.pid != pid)
    pauses = tuple(pause for pause in status.pauses if pause.pid != pid)
    return _held(status, stops, pauses, at=at)


def times_out_at(status: Status, started: Started, launch: Launch) -> float | None:
    """When this attempt has taken too long, on CLOCK_MONOTONIC; None if it may go on for ever.

    While the debugger or a pause holds a rank nobody knows, for that time does not count.
    """
    is_held = status.stops or status.pauses
    if launch.timeout is None or status.stop_reason is not Reason.NONE or is_held:
        return None
    return started.monotonic + launch.timeout + status.held


def _held(
    status: Status, stops: tuple[DebugStop, ...], pauses: tuple[LoopPause, ...], *, at: float
) -> Status:
    held, since = status.held, status.held_since
    was_held, is_held = status.stops or status.pauses, stops or pauses
    if is_held and not was_held:
        since = at
    elif was_held and not is_held:
        held, since = held + max(0.0, at - since), 0.0
    after = replace(status, stops=stops, pauses=pauses, held=held, held_since=since)
    return _changed(status, after)


def is_to_be_repeated(status: Status, ending: Exit, launch: Launch) -> bool:
    """True if this attempt failed by itself and the job may be started again."""
    if _was_told_to_end(status):
        return False
    over = ended(status, ending, at=ending.time)
    return over.reason in _REPEATABLE and over.state is JobState.FAILED and _is_left(status, launch)


def repeated(
    status: Status, ending: Exit, *, ends: tuple[Stream, ...], is_rank_killed: bool = False
) -> Status:
    """The job is to be started again.

    Args:
        status: The status before.
        ending: How the main process ended.
        ends: Where its outputs stand.
        is_rank_killed: See `ended`.
    """
    over = ended(status, ending, at=ending.time, is_rank_killed=is_rank_killed)
    failed = Attempt(
        number=status.attempt,
        reason=over.reason,
        exit_code=over.exit_code,
        signal=over.signal,
        started=over.started,
        ended=over.ended,
        message=over.message,
        ends=ends,
    )
    return Status(
        state=JobState.STARTING,
        revision=status.revision + 1,
        attempt=status.attempt + 1,
        attempts=(*status.attempts, failed),
        usage=over.usage,
        gpus=status.gpus,
    )


def ended(
    status: Status, ending: Exit | None, *, at: float, is_rank_killed: bool = False
) -> Status:
    """The job is over and its logs are drained.

    Args:
        status: The status before.
        ending: How the main process ended; None if nobody knows.
        at: Seconds since the epoch.
        is_rank_killed: The launcher has said that a rank died of KILL.
    """
    over = replace(status, ended=at, stops=(), pauses=(), kill_at=0.0)
    if ending is None:
        lost = replace(over, state=JobState.LOST, reason=Reason.KEEPER_LOST, message=_LOST)
        return _changed(status, lost)
    code = os.waitstatus_to_exitcode(ending.status)
    number = max(0, -code)
    over = replace(over, exit_code=128 + number if number else code, signal=number)
    if ending.message:
        failed = replace(over, state=JobState.FAILED, reason=Reason.START_FAILED, started=0.0)
        known = over.exit_code in (NOT_FOUND, CANNOT_EXECUTE)
        code = over.exit_code if known and over.exit_code else CANNOT_EXECUTE
        return _changed(status, replace(failed, exit_code=code, message=ending.message))
    over = replace(over, usage=ending.usage)
    state, reason = _verdict(over)
    # The kernel has killed for want of memory meanwhile. That is what ended the job if it died of
    # KILL, which nobody here sent: itself, as a shell says by its exit code of the command it ran,
    # or one of its ranks, whose launcher fails with a code of its own.
    if ending.oom_kills and state is JobState.FAILED and reason in _REPEATABLE:
        is_killed = is_rank_killed or over.exit_code == 128 + signal.SIGKILL
        reason = Reason.OUT_OF_MEMORY if is_killed else reason
        over = replace(over, message=_want_of_memory(reason, ending))
    return _changed(status, replace(over, state=state, reason=reason))


def _is_left(status: Status, launch: Launch) -> bool:
    return len(status.attempts) < launch.retries


def _verdict(status: Status) -> tuple[JobState, Reason]:
    if status.stop_reason in (Reason.TIMEOUT, Reason.QUOTA):
        return JobState.FAILED, status.stop_reason
    is_sent = status.signal != 0 and status.signal in status.signals
    # Told to end, as by Ctrl-C, it may also give up with a code of its own.
    has_given_up = not status.signal and status.exit_code != 0 and _was_told_to_end(status)
    # A signal that was asked for and that the job ended of is a stop by another name.
    if status.stop_reason is Reason.STOPPED or is_sent or has_given_up:
        return JobState.CANCELLED, Reason.STOPPED
    if status.signal:
        return JobState.FAILED, Reason.SIGNALED
    succeeded = status.exit_code == 0
    return JobState.SUCCEEDED if succeeded else JobState.FAILED, Reason.EXITED


def _was_told_to_end(status: Status) -> bool:
    return not _ENDING.isdisjoint(status.signals)


def _want_of_memory(reason: Reason, ending: Exit) -> str:
    peak = ending.usage.peak_memory if ending.usage else 0
    held = f"; its largest process held {peak / 1e9:.1f} GB" if peak else ""
    if reason is Reason.OUT_OF_MEMORY:
        return f"killed by the kernel for want of memory{held}"
    count = "a process" if ending.oom_kills == 1 else f"{ending.oom_kills} processes"
    return f"the kernel killed {count} for want of memory meanwhile{held}"


def _stop_of(event: Event) -> DebugStop:
    fields = event.fields
    return DebugStop(
        rank=event.rank,
        pid=event.pid,
        file=clean_text(fields.get("file", ""))[-_MAX_PATH:],
        line=small_number(fields.get("line")),
        function=clean_text(fields.get("function", ""))[:_MAX_WORD],
        reason=clean_text(fields.get("reason", ""))[:_MAX_WORD],
        since=event.time,
        until=_lease_end(event),
        unattended=fields.get("unattended") is True,
    )


def _paused(status: Status, event: Event) -> Status:
    """A rank's training is held, or goes on."""
    others = tuple(pause for pause in status.pauses if pause.pid != event.pid)
    if event.kind == LOOP_PAUSED and len(others) < _MAX_STOPS:
        others = (*others, _pause_of(event))
    return _held(status, status.stops, others, at=event.time)


def _pause_of(event: Event) -> LoopPause:
    fields = event.fields
    return LoopPause(
        rank=event.rank,
        pid=event.pid,
        step=small_number(fields.get("step")),
        epoch=small_number(fields.get("epoch")),
        phase=clean_text(fields.get("phase", ""))[:_MAX_WHY],
        reason=clean_text(fields.get("reason", ""))[:_MAX_WHY],
        since=event.time,
    )


def _stuck(status: Status, event: Event) -> Status:
    """A rank makes no progress, or does again; of several one is shown."""
    mark = f"rank {event.rank} makes no progress"
    if status.state is not JobState.RUNNING:
        return status
    if event.kind == HANG_OVER:
        is_shown = status.message.startswith(mark)
        return _changed(status, replace(status, message="")) if is_shown else status
    fields = event.fields
    # Who waits in a collective knows where the job hangs; who is late may only look so.
    is_better = bool(fields.get("waiting")) and "waiting in" not in status.message
    if status.message and not (is_better and "makes no progress" in status.message):
        return status
    words = {k: clean_text(fields.get(k, ""))[:_MAX_WORD] for k in ("file", "function", "waiting")}
    seconds = fields.get("seconds")
    text = f"{mark} since {seconds if isinstance(seconds, int | float) else 0:.0f} s: "
    text += f"{os.path.basename(words['file'])}:{small_number(fields.get('line'))}"
    text += f" in {words['function']}"
    text += f", waiting in {words['waiting']}" if words["waiting"] else ""
    return _changed(status, replace(status, message=text))


def _renewed(stop: DebugStop, event: Event) -> DebugStop:
    return replace(stop, until=_lease_end(event)) if stop.pid == event.pid else stop


def _lease_end(event: Event) -> float:
    lease = event.fields.get("lease")
    return event.time + lease if isinstance(lease, int | float) and lease > 0 else 0.0


def _changed(before: Status, after: Status) -> Status:
    return before if after == before else replace(after, revision=before.revision + 1)
