"""A training loop that owns iteration, events and timing, and no mathematics.

The step stays yours; the loop calls it, tells callbacks what happens, and streams metrics to
`rdev metrics` when it runs in a job. Outside a job it runs the same.

    from rdev.loop import Loop

    def step(state):
        inputs, labels = state.batch
        loss = cross_entropy(state.model(inputs), labels)
        state.optimizer.zero_grad()
        loss.backward()
        state.optimizer.step()
        return loss

    Loop(step, loader, epochs=10, model=model, optimizer=optimizer).run()

A plain loop stays a plain loop with `for batch in track(loader): ... log(loss=loss)`, and a library
that has a loop of its own keeps it with `join(trainer)`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rdev.loop.callback import Callback
from rdev.loop.loop import Loop
from rdev.loop.probe import Probe
from rdev.loop.sampler import ShuffleSampler, seeded
from rdev.loop.state import State
from rdev.loop.track import log, track

__all__ = ["Callback", "Loop", "Probe", "ShuffleSampler", "State", "join", "log", "seeded", "track"]

if TYPE_CHECKING:
    from rdev.loop.guests.joining import join


def __getattr__(name: str) -> object:
    # Only trainings that are joined pay for what joins them.
    if name != "join":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from rdev.loop.guests.joining import join

    return join
