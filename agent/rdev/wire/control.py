"""What may be asked of a running loop, and how the ranks of a job agree on the step it happens at.

The agent speaks to the loop of each rank over the job's channel, role `loop`. Each command is
answered at once, on the channel's thread; what comes of it is the event `controlled`, which the
training thread reports when it has served the request at a boundary of steps or phases.

    where {}                                  -> a `Where`
    control {id, verb, args, by, at, meeting} -> a `Where`; with `done` if that id was served before
    withdraw {id}                             -> {"withdrawn": bool, "begun": bool}; begun if it
                                                 has been served, or is being served
    meet {id, seconds}                        -> a `Where`; the rank holds at its next step's end
    part {id}                                 -> {}

Ranks meet so that all serve a request after the same step, whatever moves them apart: `meet` makes
each hold at the end of the step that it is in, and answers how many it has begun, at most one less
than those at whose end it holds. No rank is beyond `at` = the largest + 1, so each is sent there
by `control`, goes on where it held before that, and serves the request when it arrives. Nobody is
held for longer than `seconds`, should the agent be killed in between.
"""

from __future__ import annotations

import enum
from typing import Any, TypedDict

# Answers of a rank, and what a person asks, are at most so many bytes of JSON.
MAX_ANSWER = 64 * 1024

# Why a request is refused that a run's end has overtaken; whoever asked may ask the next run.
RUN_OVER = "the run has ended"

# A meeting lasts some milliseconds; an agent that was killed within one shall hold up nobody.
MEETING_SECONDS = 10.0


class Verb(enum.Enum):
    """What may be asked of a loop; the arguments are JSON."""

    PAUSE = "pause"
    """Holds the training: args {} or {"when": EXPRESSION}, which holds it once that is true; then
    answers {"when"}, and {"unknown": NAME} if it has a name that nothing has yet."""
    RESUME = "resume"
    """Lets it go on; of a run that is not held, takes back what it was to pause at."""
    STEP = "step"
    """Makes so many steps and pauses: args {"steps": N}."""
    STOP = "stop"
    """Ends the run after this step, as `state.stop` does."""
    CHECKPOINT = "checkpoint"
    """Writes one: args {} or {"path": PATH}; answers {"path"}."""
    SET = "set"
    """Sets `lr` or a path under the objects: args {"path", "value"}; answers {before, after}."""
    RELOAD = "reload"
    """Takes a module's edited code and keeps all objects: args {"module"}; answers {"changed"}."""
    STATE = "state"
    """Reads it: answers step, epoch, phase, loss, metrics, lr, and a line for each object."""


class Where(TypedDict, total=False):
    """Where a rank's loop is, as its channel thread sees it without asking the training thread.

    Attributes:
        step: Steps begun so far.
        epoch: Epochs begun so far.
        phase: The phase that ended last in this step.
        stage: `none` (no run), `data` (waits for its next batch), `step`, `callbacks`, `paused`,
            or `over` (the run has ended).
        since: Seconds of active time that it has been there.
        kind: What drives the run: `loop`, `track`, `probe`, or a guest's name.
        reason: Why it is paused; empty if it is not.
        done: The fields of the event of a request that was served before.
    """

    step: int
    epoch: int
    phase: str
    stage: str
    since: float
    kind: str
    reason: str
    done: dict[str, Any]
