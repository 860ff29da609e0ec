"""What callbacks have to say to people: a line among the program's output, an event in its job."""

from __future__ import annotations

import contextlib
import sys

from rdev.loop.state import State
from rdev.wire.events import GUARDED


def say(text: str) -> str:
    """Prints one line on stderr; returns its text."""
    # Where nobody is there to read it, nothing is lost.
    with contextlib.suppress(OSError, ValueError):
        print(f"rdev.loop: {text}", file=sys.stderr, flush=True)  # noqa: T201  # for people
    return text


def report(by: str, state: State, reason: str, *, action: str, **details: object) -> None:
    """Says that a callback has acted, and reports it as the event `guarded`.

    Args:
        by: Its name.
        state: Of the run.
        reason: Why.
        action: What it does.
        details: Further fields of the event.
    """
    from rdev.loop.probe import current

    say(f"step {state.step}: {reason} ({by}: {action})")
    probe = current()
    if probe is not None and probe.state is state:
        place = {"step": state.step, "epoch": state.epoch, "phase": state.phase}
        probe.event(GUARDED, {"by": by, **place, "action": action, "reason": reason, **details})
