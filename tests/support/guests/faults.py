"""Adapters that are wrong on purpose: the checks must see each."""

from __future__ import annotations

from contextlib import contextmanager

from rdev.loop.guests.guest import Guest


@contextmanager
def _replaced(name, wrong):
    right = getattr(Guest, name)
    setattr(Guest, name, wrong(right))
    try:
        yield
    finally:
        setattr(Guest, name, right)


def running_mean():
    """Gives the mean of the epoch so far for the loss of the step."""
    losses = []

    def wrong(right):
        def loss(guest, value):
            losses.append(float(value))
            right(guest, sum(losses) / len(losses))

        return loss

    return _replaced("loss", wrong)


def open_epoch():
    """Tells no end of an epoch."""
    return _replaced("epoch_end", lambda _: lambda _: None)


def doubled_step():
    """Counts each batch twice."""

    def wrong(right):
        def step_end(guest):
            batch = guest.probe.state.batch
            right(guest)
            guest.batch(batch)
            guest.loss(0.0)
            return right(guest)

        return step_end

    return _replaced("step_end", wrong)


FAULTS = {"running mean": running_mean, "open epoch": open_epoch, "doubled step": doubled_step}
