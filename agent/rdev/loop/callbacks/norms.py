"""Norms of gradients, weights and updates, of each optimizer."""

from __future__ import annotations

import sys
from typing import Any

from rdev.loop.callback import Callback
from rdev.loop.callbacks.updates import (
    Losses,
    Watcher,
    gradients,
    parameters,
    unwatch,
    watch,
)
from rdev.loop.state import State
from rdev.loop.track import log


class Norms(Callback, Watcher):
    """Logs `grad_norm`, `weight_norm` and `update_norm`, the 2-norms over all of an optimizer.

    With several optimizers among the objects their names come first: `critic_opt.grad_norm`. The
    gradient's is taken just before the update, after clipping if there is any; the update's is that
    of the difference it has made. What an optimizer does several times a step is logged of
    the last time.

    Cost, each `every` steps only: the parameters and gradients are read once, fused, and copied for
    the update's norm, so for a moment their memory is needed once more. Nothing is waited for: the
    norms are logged as tensors, on CUDA too (untested there).

    Args:
        every: How many steps apart.
        updates: Whether `update_norm` is wanted, for which the copy is made.
        order: See `Callback`; before guards, so that what they withhold is seen.
    """

    def __init__(self, *, every: int = 50, updates: bool = True, order: int = -60) -> None:
        super().__init__(order)
        if every < 1:
            raise ValueError("every counts steps from 1")
        self._every = every
        self._updates = updates
        self._state: State | None = None
        self._is_watching = False
        self._before: dict[int, list[Any]] = {}

    def run_begin(self, state: State) -> None:
        """Begins to watch."""
        self._state = state
        self._is_watching = watch(self)

    def epoch_begin(self, state: State) -> None:  # noqa: ARG002  # as the event has it
        """Begins to watch if torch has been imported meanwhile."""
        if not self._is_watching:
            self._is_watching = watch(self)

    def run_end(self, state: State) -> None:  # noqa: ARG002  # as the event has it
        """Watches no more."""
        unwatch(self)
        self._state = None
        self._before.clear()

    def before_update(self, optimizer: Any, losses: Losses) -> bool:  # noqa: ANN401, ARG002  # torch's
        """Takes the gradient's norm, and keeps the weights."""
        state = self._state
        if state is None or state.step % self._every:
            return True
        prefix = _prefix(state, optimizer)
        log(**{f"{prefix}grad_norm": _norm(gradients(optimizer))})
        if self._updates:
            self._before[id(optimizer)] = [one.detach().clone() for one in parameters(optimizer)]
        return True

    def after_update(self, optimizer: Any) -> None:  # noqa: ANN401  # torch's
        """Takes the norms of the weights and of what has changed."""
        state = self._state
        if state is None or state.step % self._every:
            return
        prefix = _prefix(state, optimizer)
        now = [one.detach() for one in parameters(optimizer)]
        log(**{f"{prefix}weight_norm": _norm(now)})
        before = self._before.pop(id(optimizer), None)
        if before is not None:
            torch: Any = sys.modules["torch"]
            torch._foreach_sub_(before, now)  # torch's optimizers call it
            log(**{f"{prefix}update_norm": _norm(before)})


def _norm(tensors: list[Any]) -> Any:  # noqa: ANN401  # a tensor of one element, or 0.0
    torch: Any = sys.modules["torch"]
    kinds: dict[tuple[Any, Any], list[Any]] = {}
    for tensor in tensors:
        if tensor.is_floating_point():
            kinds.setdefault((tensor.device, tensor.dtype), []).append(tensor)
    norm = torch._foreach_norm  # noqa: SLF001  # torch's own clip_grad_norm_ calls it
    parts = [norm(alike) for alike in kinds.values()]
    norms = [one.float() for part in parts for one in part]
    if not norms:
        return 0.0
    home = norms[0].device
    return torch.linalg.vector_norm(torch.stack([one.to(home) for one in norms]))


def _prefix(state: State, optimizer: object) -> str:
    """Which optimizer, if there are several among the objects."""
    names = [
        name
        for name, value in state.objects.items()
        if hasattr(value, "param_groups") and hasattr(value, "step")
    ]
    if len(names) < 2:
        return ""
    found = [name for name in names if state.objects[name] is optimizer]
    return f"{found[0] if found else type(optimizer).__name__}."
