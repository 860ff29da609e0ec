"""What has to be true of every guest; each takes what `python -m tests.support.guests` has seen."""

from __future__ import annotations

import math
from itertools import pairwise

from tests.support.guests.terms import EDITED, GAMMA, STEPS

# Of numbers that are computed in single precision, in another order at most.
TOLERANCE = 1e-6


def close(one, other):
    return len(one) == len(other) and all(
        math.isclose(a, b, rel_tol=TOLERANCE, abs_tol=TOLERANCE)
        for a, b in zip(one, other, strict=True)
    )


def losses(seen, loop):
    """The loss of every step is that of a bare loop."""
    run = seen["plain"]
    assert len(run["losses"]) == STEPS
    assert close(run["losses"], run["bare"])
    assert close(run["lrs"], run["scheduled"])


def counted(seen, loop):
    """Steps and epochs are told as the loop tells them, and each begin has its end."""
    for name in ("plain", "stopped", "failed"):
        assert seen[name]["told"] == loop[name]["told"], name


def paused(seen, loop):
    """A pause holds the training where it is."""
    run = seen["controlled"]
    assert "driver" not in run, run["driver"]
    assert run["paused"] == 5
    assert set(run["held"]) == {5}
    assert run["steps_while_held"] == 5


def stepped(seen, loop):
    """`step(2)` makes two steps and no other."""
    run = seen["controlled"]
    assert run["after"] == 7
    at = _positions(run["events"])
    assert [step for kind, step in at if kind == "loop_paused"] == [5, 7, 20]


def edited(seen, loop):
    """An edited rate is the one that the next steps are made with, and the schedule goes on."""
    run = seen["controlled"]
    after = run["lrs"][7:]
    # Whether the schedule moves at the end of a step or at the begin of the next, it moves once.
    assert math.isclose(after[0], EDITED, rel_tol=1e-5) or math.isclose(
        after[0], EDITED * GAMMA, rel_tol=1e-5
    )
    assert all(math.isclose(b, a * GAMMA, rel_tol=1e-5) for a, b in pairwise(after))
    assert close(run["losses"], run["bare"]), "the steps were made with another rate"


def broken(seen, loop):
    """A condition pauses the training once it is true."""
    assert seen["controlled"]["broke"] == 20


def checkpointed(seen, loop):
    """A checkpoint is written while the training is held, and changes nothing."""
    run = seen["controlled"]
    assert run["written"] > 0
    assert run["unchanged"] == [True]
    saved = [event for event in run["events"] if event["kind"] == "checkpoint_saved"]
    assert [(event["step"], event["path"]) for event in saved] == [(20, run["checkpoint"]["path"])]


def stops(seen, loop):
    """A stop ends the training after its step, from a callback and from another thread."""
    assert len(seen["stopped"]["losses"]) == 7
    assert len(seen["controlled"]["losses"]) == 20
    for name in ("stopped", "controlled"):
        assert seen[name]["events"][-1]["kind"] == "run_ended"
        assert seen[name]["events"][-1]["error"] is None


def fails(seen, loop):
    """An exception of the user's code comes through, and every begin that was told has its end."""
    run = seen["failed"]
    assert run["raised"] == "Broken"
    assert run["errors"] == ["Broken"]
    assert run["events"][-1]["error"] == "Broken: a step that breaks"


def events(seen, loop):
    """The stream of events is the loop's own, kind by kind."""
    for name in ("plain", "controlled", "stopped", "failed"):
        assert _kinds(seen[name]) == _kinds(loop[name]), name


def objects(seen, loop):
    """The model, the optimizer and the schedule have names without being named."""
    assert {"model", "optimizer"} <= set(seen["plain"]["objects"])


CHECKS = {
    "the loss is the step's own": losses,
    "steps and epochs are counted": counted,
    "a pause holds": paused,
    "two steps are two": stepped,
    "an edited rate survives the schedule": edited,
    "a condition pauses": broken,
    "a checkpoint is written": checkpointed,
    "a stop stops": stops,
    "an exception comes through": fails,
    "the events are the loop's": events,
    "the objects are named": objects,
}


def _positions(run_events):
    return [(event["kind"], event.get("step")) for event in run_events]


def _kinds(run):
    # Metrics are samples, so how many come in between is a matter of time.
    return [
        (event["kind"], event.get("step"), event.get("epoch"))
        for event in run["events"]
        if event["kind"] != "metric"
    ]
