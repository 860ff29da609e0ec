"""Events as people read them: when, which rank, and what happened, in a line."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from rdev.client.ui.columns import shortened
from rdev.client.ui.escapes import one_line
from rdev.client.ui.holds import place_of, why
from rdev.client.ui.pauses import span
from rdev.wire.events import CONTROLLED, LOOP_PAUSED, LOOP_RESUMED, METRIC, Event
from rdev.wire.job import Job

# What a line tells of a value; `--json` has all of it.
_MOST = 160


def in_words(event: Event, job: Job) -> str:
    """One line, such as `14:03:07 ada@laptop asked: set lr=0.01, after step 12: 0.1 -> 0.01`.

    Args:
        event: What happened.
        job: Whose it is; of one with several ranks the line says which.
    """
    # In the time of who reads it, as `ps` and the clock on the wall have it.
    at = datetime.fromtimestamp(event.time).strftime("%H:%M:%S")  # noqa: DTZ006
    rank = f"rank {event.rank} " if job.ranks > 1 else ""
    return one_line(f"{at} {rank}{_what(event)}")


def _what(event: Event) -> str:
    fields = event.fields
    if event.kind == CONTROLLED:
        return _controlled(fields)
    if event.kind == LOOP_PAUSED:
        return f"paused {_place(fields)} {why(str(fields.get('reason', '')))}"
    if event.kind == LOOP_RESUMED:
        return f"goes on after step {fields.get('step')}, held for {_span(fields.get('seconds'))}"
    if event.kind == METRIC:
        values = fields.get("values")
        pairs = values.items() if isinstance(values, Mapping) else ()
        return f"metric {_place(fields)}: " + ", ".join(f"{n} {_text(v)}" for n, v in pairs)
    told = ", ".join(f"{name} {_text(value)}" for name, value in fields.items())
    return f"{event.kind.replace('_', ' ')}{': ' if told else ''}{told}"


def _controlled(fields: Mapping[str, Any]) -> str:
    args = fields.get("args")
    words = [str(fields.get("verb", ""))]
    if isinstance(args, Mapping):
        pair = f"{args['path']}={_text(args['value'])}" if {"path", "value"} <= {*args} else ""
        words += [pair] if pair else [_text(value) for value in args.values()]
    asked = f"{fields.get('by') or 'the script'} asked: {' '.join(words)}, {_place(fields)}"
    if cause := fields.get("cause"):
        return f"{asked}: refused, {cause}"
    answer = fields.get("answer")
    if isinstance(answer, Mapping) and {"before", "after"} <= {*answer}:
        return f"{asked}: {_text(answer['before'])} -> {_text(answer['after'])}"
    return asked


def _place(fields: Mapping[str, Any]) -> str:
    return place_of(_whole(fields.get("step")), str(fields.get("phase") or ""))


def _text(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    text = value if isinstance(value, str) else json.dumps(value)
    return shortened(text, _MOST)


def _span(seconds: object) -> str:
    return span(float(seconds)) if isinstance(seconds, int | float) else "a while"


def _whole(value: object) -> int:
    return value if isinstance(value, int) else 0
