"""Looks for the first number that is not finite, in a training that was not prepared for it.

    off --watch--> on --leave--> off, and torch is as it was

Where torch's optimizers update something, they are looked at before: all gradients, by one fused
norm for each dtype, and the losses that went backward. A run of ours that makes no such updates is
looked at after each step, its loss; of any run those metrics that are plain numbers.
"""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Callable
from typing import Any

from rdev.loop.callbacks.finite import all_finite, is_finite, number_of
from rdev.loop.callbacks.nan import named
from rdev.loop.callbacks.notice import say
from rdev.loop.callbacks.updates import Losses, Watcher, gradients, unwatch
from rdev.loop.callbacks.updates import watch as watch_updates
from rdev.loop.patches import wait_until_idle
from rdev.loop.probe import current
from rdev.loop.state import State

Found = Callable[[str], None]


class _Updates(Watcher):
    """Looks at each update before it is made, and lets it be made."""

    def __init__(self, found: Found, is_wanted: Callable[[], bool]) -> None:
        self.found: Found | None = found
        self.is_wanted = is_wanted
        self.has_seen = False

    def before_update(self, optimizer: Any, losses: Losses) -> bool:  # noqa: ANN401  # torch's
        self.has_seen = True
        # Overflows of mixed precision are the scaler's, which passes such an update over itself.
        if self.found is None or getattr(optimizer, "found_inf", None) is not None:
            return True
        if not self.is_wanted():
            return True
        try:
            what = _seen_before(optimizer, losses)
        except Exception as error:  # noqa: BLE001  # tensors that nobody has thought of
            self.found = None
            say(f"looks for numbers that are not finite no more: {type(error).__name__}: {error}")
            return True
        if what:
            self.found(what)
        return True


def _seen_before(optimizer: Any, losses: Losses) -> str:  # noqa: ANN401  # torch's
    if all_finite([*losses, *gradients(optimizer)]):
        return ""
    run = current()
    state = run.state if run is not None else State()
    step = f"step {state.step}: " if state.step else ""
    return step + named(state, losses, optimizer)


_updates: _Updates | None = None


def watch(found: Found, is_wanted: Callable[[], bool] = lambda: True) -> str:
    """Begins to look at updates; torch has been imported.

    Args:
        found: Called with what was found, for a person, on the training's thread.
        is_wanted: Whether anybody still waits for it; asked there before each update.

    Returns:
        Why nothing can be seen; empty if it can.
    """
    global _updates
    if _updates is not None:
        return ""
    thread = _training_thread()
    if thread != threading.get_ident() and not wait_until_idle():
        return "an optimizer's step is held in a hook of somebody else's"
    updates = _Updates(found, is_wanted)
    watch_updates(updates, thread=thread)
    _updates = updates
    return ""


def leave() -> None:
    """Looks no more; torch is given back once it calls no hooks."""
    global _updates
    updates, _updates = _updates, None
    if updates is not None:
        updates.found = None
        args = (updates,)
        threading.Thread(target=_give_back, args=args, name="rdev-unhook", daemon=True).start()


def seen(state: State) -> str:
    """What is not finite after a step of a run of ours, for a person; empty if all is.

    A loss that updates were looked at for is not read again: its device would be waited for.
    """
    looks_before = _updates is not None and _updates.has_seen
    if not looks_before and state.loss is not None and not is_finite(state.loss):
        return f"step {state.step}: the loss is {number_of(state.loss)}; the update had been made"
    for name, value in state.metrics.items():
        # Infinities of metrics are meant: the best loss so far, before there was one.
        if isinstance(value, float) and math.isnan(value):
            return f"step {state.step}: the metric {name} is nan"
    return ""


def _training_thread() -> int | None:
    run = current()
    return (run.control.thread if run is not None else 0) or threading.main_thread().ident


def _give_back(updates: _Updates) -> None:
    # The thread that trains may be held by the debugger, within the hook.
    while not wait_until_idle():
        pass
    unwatch(updates)


def _forget() -> None:
    # A forked child is no training, but for its parent's hooks, which look at nothing then.
    global _updates
    if _updates is not None:
        _updates.found = None
        _updates = None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
