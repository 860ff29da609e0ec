"""Events: what a job reports, one JSON object each, past tense, addressed by offset.

An event is identified by (rank, pid, seq); the record keeps each once, in the order of arrival.
Keys every event has: `kind`, `time` (seconds since the epoch), `rank`, `pid`, `seq`. Others belong
to the kind:

    run_started      epochs, steps (planned, or null)
    run_ended        step, error (or null)
    epoch_started    epoch                 epoch_ended      epoch, step
    metric           step, epoch, phase (or ""), values {name: number}
    checkpoint_saved step, path
    guarded          by (the callback), step, epoch, phase, action, reason, and what it has to add:
                     NanGuard path, rows, indices, found; SpikeGuard loss, median, deviations,
                     to_step; EarlyStop best
    controlled       id, verb, args, by, step, epoch, phase, answer {} or cause (of a refusal);
                     see `rdev.wire.control`
    loop_paused      step, epoch, phase, reason
    loop_resumed     step, seconds (it was held for)
    probe_armed      kind (what it counts)       probe_disarmed
    debug_attached   file                  debug_detached
    debug_paused     file, line, function, reason, lease (seconds until it goes on by itself, or
                     null), unattended (nobody is attached: it waits for a debugger)
    debug_renewed    lease (seconds from now)
    debug_resumed    seconds, cause (see `ResumeCause`)
    debug_armed      groups (process groups whose timeout was raised), seconds (the new timeout)
    debug_disarmed   groups
    exception_raised exception, message, frames [{file, line, function, locals {name: text}}], the
                     innermost first; only of a job that stops at exceptions
    hang_suspected   file, line, function, seconds (of active time without progress), waiting (the
                     function of torch.distributed's that it waits in, or "")
    hang_over        seconds (it goes on after so many, or is not watched any more)
    events_dropped   count (the sender's buffer overflowed; exactly so many are missing)
"""

from __future__ import annotations

import enum
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

METRIC = "metric"
GUARDED = "guarded"
CONTROLLED = "controlled"
LOOP_PAUSED = "loop_paused"
LOOP_RESUMED = "loop_resumed"
PROBE_ARMED = "probe_armed"
PROBE_DISARMED = "probe_disarmed"
DEBUG_PAUSED = "debug_paused"
DEBUG_RENEWED = "debug_renewed"
DEBUG_RESUMED = "debug_resumed"
DEBUG_ARMED = "debug_armed"
DEBUG_DISARMED = "debug_disarmed"
HANG_SUSPECTED = "hang_suspected"
HANG_OVER = "hang_over"
EVENTS_DROPPED = "events_dropped"


class ResumeCause(enum.Enum):
    """Why a stop of the debugger ended."""

    CLIENT = "client"
    """Its client said so: continue, next, step."""
    DETACHED = "detached"
    """The client left."""
    LEASE = "lease"
    """Its lease ended, and nobody had renewed it."""
    ADAPTER_LOST = "adapter_lost"
    """The adapter was killed or ended, perhaps with its agent."""
    UNATTENDED = "unattended"
    """It waited for a debugger, and none came."""


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that happened in a job.

    Attributes:
        kind: What happened, past tense; see the module's table.
        time: Seconds since the epoch, on the job's machine.
        rank: The rank that reports it.
        pid: The process that reports it.
        seq: Grows by one per process, from 1.
        fields: What the kind says.
    """

    kind: str
    time: float
    rank: int = 0
    pid: int = 0
    seq: int = 0
    fields: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> str:
        """The event as one line of JSON, without a newline."""
        head = {"kind": self.kind, "time": self.time, "rank": self.rank, "pid": self.pid}
        return json.dumps({**head, "seq": self.seq, **self.fields}, separators=(",", ":"))

    @classmethod
    def from_json(cls, line: str | bytes) -> Event:
        """The event on one line.

        Raises:
            ValueError: The line is no event.
        """
        body = json.loads(line)
        if not isinstance(body, dict) or not isinstance(body.get("kind"), str):
            raise ValueError("not an event")
        head = {key: body.pop(key) for key in ("kind", "time", "rank", "pid", "seq") if key in body}
        return cls(**head, fields=body)
