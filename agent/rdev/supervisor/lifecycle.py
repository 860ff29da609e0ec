"""How a job's status follows from what happens to it; no input or output here.

STARTING --executed--> RUNNING --stop or timeout--> STOPPING
    |                     |                            |
    '----- exit status known, or known to be lost -----'--> a final state
"""

from __future__ import annotations

import os
from dataclasses import replace

from rdev.supervisor.shim import CANNOT_EXECUTE, NOT_FOUND
from rdev.wire.channel import whole_number
from rdev.wire.events import DEBUG_PAUSED, DEBUG_RESUMED, Event
from rdev.wire.job import DebugStop, JobState, Reason
from rdev.wire.records import Exit, Started, Status

# A status has to fit in its block, see rdev.wire.files; nobody reads more held ranks than these.
_MAX_STOPS = 32
_MAX_PATH = 1000
_MAX_WORD = 200

_LOST = "its keeper was killed, so nobody knows how it ended"


def starting(status: Status) -> Status:
    """The supervisor is there, the command not yet."""
    return _changed(status, replace(status, state=JobState.STARTING))


def running(status: Status, started: Started) -> Status:
    """The command was executed."""
    state = JobState.RUNNING if status.state is not JobState.STOPPING else JobState.STOPPING
    return _changed(status, replace(status, state=state, pid=started.pid, started=started.time))


def stopping(status: Status, *, reason: Reason, kill_at: float) -> Status:
    """Somebody asked for the end, or the timeout ran out; a later call may only hasten it.

    Args:
        status: The status before.
        reason: STOPPED or TIMEOUT.
        kill_at: When KILL follows, on CLOCK_MONOTONIC.
    """
    if status.state is JobState.STOPPING:
        return _changed(status, replace(status, kill_at=min(status.kill_at, kill_at)))
    stopped = replace(status, state=JobState.STOPPING, stop_reason=reason, kill_at=kill_at)
    return _changed(status, stopped)


def signalled(status: Status, number: int) -> Status:
    """A signal was sent on request."""
    return _changed(status, replace(status, signals=tuple(sorted({*status.signals, number}))))


def noted(status: Status, event: Event) -> Status:
    """An event arrived; those of the debugger show in the status."""
    others = tuple(stop for stop in status.stops if stop.pid != event.pid)
    if event.kind == DEBUG_PAUSED and len(others) < _MAX_STOPS:
        return _changed(status, replace(status, stops=(*others, _stop_of(event))))
    if event.kind in (DEBUG_PAUSED, DEBUG_RESUMED):
        return _changed(status, replace(status, stops=others))
    return status


def disconnected(status: Status, pid: int) -> Status:
    """A process of the job has gone, so it is not held any more."""
    others = tuple(stop for stop in status.stops if stop.pid != pid)
    return _changed(status, replace(status, stops=others))


def ended(status: Status, ending: Exit | None, *, at: float) -> Status:
    """The job is over and its logs are drained.

    Args:
        status: The status before.
        ending: How the main process ended; None if nobody knows.
        at: Seconds since the epoch.
    """
    over = replace(status, ended=at, stops=(), kill_at=0.0)
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
    state, reason = _verdict(over)
    return _changed(status, replace(over, state=state, reason=reason))


def _verdict(status: Status) -> tuple[JobState, Reason]:
    if status.stop_reason is Reason.TIMEOUT:
        return JobState.FAILED, Reason.TIMEOUT
    # A signal that was asked for and that the job died of is a stop by another name.
    if status.stop_reason is Reason.STOPPED or status.signal in status.signals:
        return JobState.CANCELLED, Reason.STOPPED
    if status.signal:
        return JobState.FAILED, Reason.SIGNALED
    succeeded = status.exit_code == 0
    return JobState.SUCCEEDED if succeeded else JobState.FAILED, Reason.EXITED


def _stop_of(event: Event) -> DebugStop:
    fields = event.fields
    return DebugStop(
        rank=event.rank,
        pid=event.pid,
        file=str(fields.get("file", ""))[-_MAX_PATH:],
        line=whole_number(fields.get("line")),
        function=str(fields.get("function", ""))[:_MAX_WORD],
        reason=str(fields.get("reason", ""))[:_MAX_WORD],
        since=event.time,
    )


def _changed(before: Status, after: Status) -> Status:
    return before if after == before else replace(after, revision=before.revision + 1)
