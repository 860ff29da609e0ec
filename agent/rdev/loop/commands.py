"""What the job's channel asks of the loop in this process, answered on the channel's thread.

See `rdev.wire.control` for the commands and how ranks meet.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from rdev.loop.probe import Probe, current, has_ended
from rdev.wire.clock import active_monotonic
from rdev.wire.control import MAX_ANSWER, MEETING_SECONDS, Verb
from rdev.wire.jsons import dump

Answer = Mapping[str, Any]


def command(name: str, args: Mapping[str, Any]) -> Answer:
    """Serves one command.

    Raises:
        ValueError: It is unknown, or its arguments are wrong.
        RuntimeError: No run is under way, or another meeting is.
    """
    serve = _COMMANDS.get(name)
    if serve is None:
        raise ValueError(f"the loop knows no command {name!r}")
    return serve(args)


def where() -> dict[str, Any]:
    """Where the innermost run is, as `rdev.wire.control.Where`."""
    probe = current()
    if probe is None:
        stage = "over" if has_ended() else "none"
        return {"step": 0, "epoch": 0, "phase": "", "stage": stage, "since": 0.0, "kind": ""}
    state = probe.state
    held = time.monotonic() - active_monotonic()
    return {
        "step": state.step,
        "epoch": state.epoch,
        "phase": state.phase,
        "stage": probe.stage,
        "since": round(max(0.0, active_monotonic() - (probe.ended - probe.held)), 3),
        "kind": probe.kind,
        "reason": probe.control.reason,
        "held": round(held, 3),
    }


def _control(args: Mapping[str, Any]) -> Answer:
    probe = _running()
    given = args.get("args") or {}
    if not isinstance(given, dict) or len(dump(given)) > MAX_ANSWER:
        raise ValueError("the arguments are no object of at most 64 KiB")
    done = probe.control.ask(
        Verb(str(args.get("verb"))),
        given,
        id=_text(args, "id"),
        by=str(args.get("by") or ""),
        at=_number(args, "at"),
        meeting=str(args.get("meeting") or ""),
    )
    return where() if done is None else {**where(), "done": done}


def _withdraw(args: Mapping[str, Any]) -> Answer:
    control, request = _running().control, _text(args, "id")
    withdrawn = control.withdraw(request)
    return {"withdrawn": withdrawn, "begun": not withdrawn and control.has_begun(request)}


def _meet(args: Mapping[str, Any]) -> Answer:
    seconds = args.get("seconds", MEETING_SECONDS)
    if not isinstance(seconds, (int, float)) or not 0 < seconds <= MEETING_SECONDS:
        raise ValueError(f"a meeting lasts at most {MEETING_SECONDS:g} s")
    if not _running().control.meet(_text(args, "id"), float(seconds)):
        raise RuntimeError("somebody else controls it at this moment")
    # Asked for first and then read: the run holds at the end of this step, or of the next.
    return where()


def _part(args: Mapping[str, Any]) -> Answer:
    _running().control.part(_text(args, "id"))
    return {}


def _running() -> Probe:
    probe = current()
    if probe is None:
        raise RuntimeError("no run is under way")
    return probe


def _text(args: Mapping[str, Any], name: str) -> str:
    value = args.get(name)
    if not isinstance(value, str) or not value:
        raise ValueError(f"{name} is missing")
    return value


def _number(args: Mapping[str, Any], name: str) -> int:
    value = args.get(name, 0)
    if not isinstance(value, int) or value < 0:
        raise ValueError(f"{name} is no number of a step")
    return value


_COMMANDS: dict[str, Callable[[Mapping[str, Any]], Answer]] = {
    "where": lambda _: where(),
    "control": _control,
    "withdraw": _withdraw,
    "meet": _meet,
    "part": _part,
}
