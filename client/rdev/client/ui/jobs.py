"""Jobs as people read them: a table, a closing line, a JSON object."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from datetime import UTC, datetime
from signal import Signals
from typing import Any

from rdev.wire.job import CommandKind, DebugStop, Job, JobState, Reason

_COLUMNS = ("ID", "NAME", "STATE", "AGE", "TOOK", "SNAPSHOT", "COMMAND")

# A command line is cut here in tables; `--json` has all of it.
_COMMAND_WIDTH = 48


def table(jobs: Sequence[Job], *, now: float) -> str:
    """The jobs as an aligned table with a heading.

    Args:
        jobs: In the order to show.
        now: Seconds since the epoch, to tell ages by.
    """
    rows = [_COLUMNS, *(_row(job, now) for job in jobs)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_COLUMNS))]
    lines = ("  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)) for row in rows)
    return "\n".join(line.rstrip() for line in lines)


def _row(job: Job, now: float) -> tuple[str, ...]:
    took = (job.ended or now) - job.started if job.started else 0.0
    command = command_line(job)
    if len(command) > _COMMAND_WIDTH:
        command = command[: _COMMAND_WIDTH - 1] + "…"
    return (
        job.id,
        job.name,
        state_words(job),
        duration(now - job.created),
        duration(took) if job.started else "-",
        job.spec.snapshot[:8] or "-",
        command,
    )


def state_words(job: Job) -> str:
    """The state, how it ended, and where it is held: `FAILED 7`, `RUNNING, PAUSED train.py:42`."""
    if job.stops and not job.state.is_final:
        return f"{job.state.name}, " + ", ".join(_held(stop, job) for stop in job.stops)
    if job.reason is Reason.TIMEOUT:
        return f"{job.state.name} timeout"
    if job.state is JobState.FAILED and job.signal:
        return f"{job.state.name} {signal_name(job.signal)}"
    if job.state is JobState.FAILED and job.exit_code is not None:
        return f"{job.state.name} {job.exit_code}"
    return job.state.name


def _held(stop: DebugStop, job: Job) -> str:
    file = stop.file.removeprefix(job.directory).lstrip("/")
    where = f"PAUSED {file}:{stop.line}"
    return where if len(job.stops) == 1 else f"rank {stop.rank} {where}"


def command_line(job: Job) -> str:
    """What the job runs, as its owner would type it."""
    spec = job.spec
    words = ["-m", spec.target] if spec.kind is CommandKind.MODULE else [spec.target]
    return shlex.join([*words, *spec.args])


def closing_line(job: Job) -> str:
    """One line that says how a job ended."""
    took = f" after {duration(job.ended - job.started)}" if job.started else ""
    return f"job {job.name} ({job.id}) {_ending(job)}{took}"


def _ending(job: Job) -> str:
    if job.reason is Reason.START_FAILED:
        return f"did not start: {job.message}"
    if job.reason is Reason.TIMEOUT:
        return f"was stopped by its timeout of {duration(job.spec.timeout or 0)}"
    if job.state is JobState.LOST:
        return f"is lost: {job.message or job.reason.value}"
    if job.state is JobState.CANCELLED:
        return "was stopped"
    if job.signal:
        return f"was killed by {signal_name(job.signal)}"
    return "succeeded" if job.exit_code == 0 else f"failed with exit code {job.exit_code}"


def signal_name(number: int) -> str:
    """`SIGKILL` for 9; `signal 99` for a number without a name."""
    try:
        return Signals(number).name
    except ValueError:
        return f"signal {number}"


def duration(seconds: float) -> str:
    """A duration at a glance: `0.4s`, `12s`, `3m20s`, `5h02m`, `9d`."""
    if seconds < 10:
        return f"{max(seconds, 0):.1f}s"
    whole = int(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    if whole < 86400:
        return f"{whole // 3600}h{whole % 3600 // 60:02d}m"
    return f"{whole // 86400}d"


def as_json(job: Job) -> dict[str, Any]:
    """The job as `--json` prints it; times are RFC 3339 in UTC, or null."""
    return {
        "id": job.id,
        "name": job.name,
        "state": job.state.value,
        "reason": job.reason.value or None,
        "exit_code": job.exit_code,
        "signal": job.signal or None,
        "pid": job.pid or None,
        "created": _moment(job.created),
        "started": _moment(job.started),
        "ended": _moment(job.ended),
        "command": [job.spec.target, *job.spec.args],
        "argv": list(job.argv),
        "directory": job.directory,
        "workspace": job.spec.workspace_id or None,
        "snapshot": job.spec.snapshot or None,
        "streams": [{"rank": s.rank, "stream": s.name, "size": s.size} for s in job.streams],
        "paused": [
            {
                "rank": s.rank,
                "pid": s.pid,
                "file": s.file,
                "line": s.line,
                "function": s.function,
                "reason": s.reason,
                "since": _moment(s.since),
            }
            for s in job.stops
        ],
        "message": job.message or None,
    }


def _moment(seconds: float) -> str | None:
    if not seconds:
        return None
    return datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")
