"""Jobs as people read them: a table, a closing line, a JSON object."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from signal import SIGKILL, Signals
from typing import Any

from rdev.client.hosts import phrase
from rdev.client.ui.columns import aligned, shortened
from rdev.client.ui.escapes import one_line
from rdev.client.ui.holds import held_words
from rdev.client.ui.pauses import inside
from rdev.client.ui.sizes import human_size
from rdev.wire.job import (
    Attempt,
    CommandKind,
    DebugStop,
    Job,
    JobState,
    LoopPause,
    Reason,
    Stream,
)

_COLUMNS = ("ID", "NAME", "OWNER", "STATE", "RANKS", "GPU", "AGE", "TOOK", "SNAPSHOT", "COMMAND")

# Shown only when one of the jobs has something to say there.
_RARE = frozenset({"RANKS", "GPU"})
_NOTHING = "-"

# A command line is cut here in tables; `--json` has all of it.
_COMMAND_WIDTH = 48

# So is why a job waits.
_WHY_WIDTH = 60

# Why a job ended, where its exit code would say less.
_WHY = {
    Reason.TIMEOUT: "timeout",
    Reason.OUT_OF_MEMORY: "out of memory",
    Reason.QUOTA: "log full",
    Reason.REBOOTED: "rebooted",
    Reason.KEEPER_LOST: "keeper lost",
}


def table(jobs: Sequence[Job], *, now: float) -> str:
    """The jobs as an aligned table with a heading.

    Args:
        jobs: In the order to show.
        now: Seconds since the epoch, to tell ages by.
    """
    cells = [_row(job, now) for job in jobs]
    owners = {job.spec.owner for job in jobs if job.spec.owner}
    shown = [
        column
        for column, name in enumerate(_COLUMNS)
        if name not in _RARE or any(row[column] != _NOTHING for row in cells)
        if name != "OWNER" or len(owners) > 1
    ]
    return aligned([[row[column] for column in shown] for row in (_COLUMNS, *cells)])


def _row(job: Job, now: float) -> tuple[str, ...]:
    took = (job.ended or now) - job.started if job.started else 0.0
    return (
        job.id,
        job.name,
        one_line(job.spec.owner) or _NOTHING,
        state_words(job, now=now),
        str(job.ranks) if job.ranks > 1 else _NOTHING,
        ",".join(str(gpu.index) for gpu in job.gpus) or _NOTHING,
        duration(now - job.created),
        duration(took) if job.started else _NOTHING,
        job.spec.snapshot[:8] or _NOTHING,
        shortened(one_line(command_line(job)), _COMMAND_WIDTH),
    )


def state_words(job: Job, *, now: float | None = None) -> str:
    """The state, how it ended, why it waits, and where it is held.

    Such as `FAILED 7`, `RUNNING, attempt 2 of 3`, `RUNNING, PAUSED train.py:42 for 37s (14m23s
    left)` or `RUNNING, PAUSED after step 1203 (rdev ctl, ada@laptop) for 37s`.

    Args:
        job: The job.
        now: Seconds since the epoch, to tell how long it is held; None leaves that out.
    """
    if job.state.is_final:
        return f"{job.state.name} {_how(job)}".rstrip()
    words = [job.state.name]
    if job.state in (JobState.PENDING, JobState.RUNNING) and job.message:
        words.append(shortened(one_line(job.message), _WHY_WIDTH))
    if job.attempt > 1:
        words.append(attempt_words(job, job.attempt))
    words += [_held(stop, job, now) for stop in job.stops]
    words += _waiting(job, now)
    for text, pause in held_words(job):
        words.append(text if now is None else f"{text} for {duration(now - pause.since)}")
    return one_line(", ".join(words))


def _how(job: Job) -> str:
    if job.reason in _WHY:
        return _WHY[job.reason]
    if job.state is not JobState.FAILED:
        return ""
    if job.signal:
        return signal_name(job.signal)
    return "" if job.exit_code is None else str(job.exit_code)


def attempt_words(job: Job, number: int) -> str:
    """One attempt of those that a job may make: `attempt 2 of 3`."""
    return f"attempt {number} of {job.spec.retries + 1}"


def _held(stop: DebugStop, job: Job, now: float | None) -> str:
    where = f"PAUSED {inside(stop.file, job.directory)}:{stop.line}"
    if now is not None:
        where += f" for {duration(now - stop.since)}"
        left = stop.until - now
        # As when an expression was evaluated in it that does not return.
        says = f"{duration(left)} left" if left > 0 else "its time is over"
        where += f" ({says})" if stop.until else ""
    if stop.unattended:
        where += " waits for a debugger"
    return where if job.ranks <= 1 and len(job.stops) == 1 else f"rank {stop.rank} {where}"


def _waiting(job: Job, now: float | None) -> list[str]:
    """The ranks that are not held, and will wait for one that is at their next collective."""
    others = sorted(set(range(job.ranks)) - {stop.rank for stop in job.stops})
    if not job.stops or not others:
        return []
    is_row = len(others) > 2 and others == list(range(others[0], others[-1] + 1))
    names = f"{others[0]}-{others[-1]}" if is_row else ", ".join(map(str, others))
    since = min(stop.since for stop in job.stops)
    waiting = "waiting" if now is None else f"waiting {duration(now - since)}"
    return [f"rank{'s' if len(others) > 1 else ''} {names} {waiting}"]


def command_line(job: Job) -> str:
    """What the job runs, as its owner would type it; of a login shell which one that is."""
    spec = job.spec
    if not spec.target:
        return shlex.join(job.argv) or "login shell"
    words = ["-m", spec.target] if spec.kind is CommandKind.MODULE else [spec.target]
    return shlex.join([*words, *spec.args])


def closing_line(job: Job) -> str:
    """One line that says how a job ended, after how long, and what it took."""
    details = []
    if job.usage is not None and job.usage.peak_memory:
        details.append(f"peak memory {human_size(job.usage.peak_memory)}")
    if job.attempt > 1:
        details.append(attempt_words(job, job.attempt))
    took = f" after {duration(job.ended - job.started)}" if job.started else ""
    ending = one_line(_ending(job))
    return ", ".join([f"job {job.name} ({job.id}) {ending}{took}", *details])


def _ending(job: Job) -> str:
    if job.reason is Reason.START_FAILED:
        return f"did not start: {job.message}"
    if job.reason is Reason.TIMEOUT:
        return f"was stopped by its timeout of {duration(job.spec.timeout or 0)}"
    if job.reason is Reason.QUOTA:
        return f"was stopped: {job.message or 'its output could not be kept'}"
    if job.reason is Reason.OUT_OF_MEMORY:
        return f"was killed by {signal_name(job.signal or SIGKILL)}: out of memory"
    if job.state is JobState.LOST:
        return f"is lost: {job.message or job.reason.value}"
    if job.state is JobState.CANCELLED:
        return "was stopped"
    return _way(job.signal, job.exit_code)


def _way(signal: int, exit_code: int | None) -> str:
    if signal:
        return f"was killed by {signal_name(signal)}"
    return "succeeded" if exit_code == 0 else f"failed with exit code {exit_code}"


def retry_line(job: Job, ended: Attempt) -> str:
    """One line that says how an attempt ended, and that another begins."""
    why = f" ({_WHY[ended.reason]})" if ended.reason in _WHY else ""
    way = _way(ended.signal, ended.exit_code)
    return f"attempt {ended.number} {way}{why}; {attempt_words(job, ended.number + 1)} starts"


def spared_line(job: Job, *, host: str) -> str:
    """One line that says what a stop left alone and how to end it; empty if it spared nothing.

    Args:
        job: The job that was stopped.
        host: Where it is.
    """
    if not job.spared:
        return ""
    spared = one_line(", ".join(job.spared))
    pids = re.findall(r"\((\d+)\)(?=,|$)", spared)
    kill = phrase("exec", host, job.name, "--", "kill", *pids)
    ends = f"; `{kill}` ends them" if pids else ""
    return f"left alone: {spared}{ends}, and `{phrase('stop --all', host)}` spares nothing"


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
        "interpreter": job.interpreter or None,
        "env": job.env or None,
        "owner": job.spec.owner or None,
        "workspace": job.spec.workspace_id or None,
        "snapshot": job.spec.snapshot or None,
        "streams": _streams(job.streams),
        "paused": [_stop(stop) for stop in job.stops],
        "held": [_pause(pause) for pause in job.pauses],
        "message": job.message or None,
        "ranks": job.ranks,
        "attempt": job.attempt,
        "attempts": [_attempt(attempt) for attempt in job.attempts],
        "usage": None if job.usage is None else asdict(job.usage),
        "gpus": [asdict(gpu) for gpu in job.gpus],
        "spared": list(job.spared),
        "terminal": None if job.spec.terminal is None else asdict(job.spec.terminal),
    }


def _stop(stop: DebugStop) -> dict[str, Any]:
    return {
        "rank": stop.rank,
        "pid": stop.pid,
        "file": stop.file,
        "line": stop.line,
        "function": stop.function,
        "reason": stop.reason,
        "since": _moment(stop.since),
        "until": _moment(stop.until),
        "unattended": stop.unattended,
    }


def _pause(pause: LoopPause) -> dict[str, Any]:
    return {**asdict(pause), "since": _moment(pause.since)}


def _attempt(attempt: Attempt) -> dict[str, Any]:
    return {
        "number": attempt.number,
        "reason": attempt.reason.value or None,
        "exit_code": attempt.exit_code,
        "signal": attempt.signal or None,
        "started": _moment(attempt.started),
        "ended": _moment(attempt.ended),
        "message": attempt.message or None,
        "ends": _streams(attempt.ends),
    }


def _streams(streams: Sequence[Stream]) -> list[dict[str, Any]]:
    return [{"rank": s.rank, "stream": s.name, "size": s.size} for s in streams]


def _moment(seconds: float) -> str | None:
    if not seconds:
        return None
    return datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")
