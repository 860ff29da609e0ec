"""The moment before an optimizer's update: who watches it, and how an update is withheld.

    backward (its loss is noted) ... optimizer.step -> watchers -> the update, or nothing
                                                   '-> after -> watchers

torch's hooks before and after a step of any optimizer tell the moment. An update is withheld by
taking the gradients away: optimizers pass parameters over that have none, so that neither weights
nor momentum change. A closure is watched where it has computed the gradients. Only the thread that
began to watch is watched, and no update that a CUDA graph captures.
"""

from __future__ import annotations

import functools
import sys
import threading
from collections.abc import Callable
from typing import Any

# Losses of so many backwards are kept, for those who accumulate gradients; earlier ones are not.
_KEPT_LOSSES = 64

Losses = list[Any]


class Watcher:
    """What is told of each update while it is among the watched; override what you need."""

    def before_update(self, optimizer: Any, losses: Losses) -> bool:  # noqa: ANN401  # torch's
        """An update is about to be made.

        Args:
            optimizer: Whose; its parameters' gradients are computed.
            losses: Tensors of one element whose `backward` computed them, oldest first.

        Returns:
            False to withhold the update.
        """
        raise NotImplementedError

    def after_update(self, optimizer: Any) -> None:  # noqa: ANN401  # torch's
        """The update was made, or withheld."""


class _Watch:
    """All watchers of one thread, and what torch has been given to call."""

    def __init__(self, torch: Any, thread: int) -> None:  # noqa: ANN401  # a module is of no type
        self.thread = thread
        self.watchers: list[Watcher] = []
        self._torch = torch
        self._losses: Losses = []
        self._is_used = False
        hooks = sys.modules["torch.optim.optimizer"]
        self._handles = (
            hooks.register_optimizer_step_pre_hook(self._before),
            hooks.register_optimizer_step_post_hook(self._after),
        )

    def close(self) -> None:
        for handle in self._handles:
            handle.remove()
        self._losses = []

    def note(self, loss: Any) -> None:  # noqa: ANN401  # a tensor
        """Notes what a backward begins with."""
        if self._is_used:
            self._losses, self._is_used = [], False
        if loss.numel() == 1:
            # Detached: it must not keep the graph, and its memory, until the next step.
            self._losses.append(loss.detach())
            del self._losses[:-_KEPT_LOSSES]

    def _before(self, optimizer: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:  # noqa: ANN401  # torch's
        if threading.get_ident() != self.thread:
            return None
        closure = args[1] if len(args) > 1 else kwargs.get("closure")
        if closure is None:
            self._judge(optimizer)
            return None
        judged = self._judging(optimizer, closure)
        if len(args) > 1:
            return (args[0], judged, *args[2:]), kwargs
        return args, {**kwargs, "closure": judged}

    def _judging(self, optimizer: Any, closure: Callable[[], Any]) -> Callable[[], Any]:  # noqa: ANN401  # torch's
        @functools.wraps(closure)
        def judged() -> Any:  # noqa: ANN401  # whatever the closure returns
            result = closure()
            self._judge(optimizer)
            return result

        return judged

    def _judge(self, optimizer: Any) -> None:  # noqa: ANN401  # torch's
        cuda = self._torch.cuda
        if cuda.is_initialized() and cuda.is_current_stream_capturing():
            return
        self._is_used = True
        # The first that withholds it is the last that is asked.
        if not all(watcher.before_update(optimizer, self._losses) for watcher in self.watchers):
            for parameter in parameters(optimizer):
                parameter.grad = None

    def _after(self, optimizer: Any, *_: object) -> None:  # noqa: ANN401  # torch's
        if threading.get_ident() == self.thread:
            for watcher in self.watchers:
                watcher.after_update(optimizer)


_watches: dict[int, _Watch] = {}


def watch(watcher: Watcher, *, thread: int | None = None) -> bool:
    """Begins to tell it of a thread's updates; False if torch has not been imported.

    Args:
        watcher: Whom to tell; before those who have been told so far.
        thread: Which thread's; this one's if None. Of another one, no optimizer must be calling
            its hooks just now.
    """
    torch = sys.modules.get("torch")
    if torch is None or "torch.optim.optimizer" not in sys.modules:
        return False
    _wrap_backward(torch)
    thread = threading.get_ident() if thread is None else thread
    if thread not in _watches:
        _watches[thread] = _Watch(torch, thread)
    found = _watches[thread]
    if watcher not in found.watchers:
        found.watchers = [*found.watchers, watcher]  # the thread may be telling those of before
    return True


def unwatch(watcher: Watcher) -> None:
    """Tells it nothing any more; the last one leaves torch as it was."""
    for thread, found in list(_watches.items()):
        if watcher in found.watchers:
            found.watchers = [one for one in found.watchers if one is not watcher]
        if not found.watchers:
            found.close()
            del _watches[thread]
    if not _watches:
        _unwrap_backward()


def parameters(optimizer: Any) -> list[Any]:  # noqa: ANN401  # torch's
    """All parameters that an optimizer updates."""
    return [one for group in optimizer.param_groups for one in group["params"]]


def gradients(optimizer: Any) -> list[Any]:  # noqa: ANN401  # torch's
    """The gradients of an optimizer's parameters that have one; of sparse ones their values."""
    found = (one.grad for one in parameters(optimizer))
    return [dense(one) for one in found if one is not None]


def dense(gradient: Any) -> Any:  # noqa: ANN401  # a tensor
    """A gradient, or the values of a sparse one."""
    plain = gradient.detach()
    return plain.coalesce().values() if plain.is_sparse else plain


def _wrap_backward(torch: Any) -> None:  # noqa: ANN401  # a module
    plain = torch.Tensor.backward
    if _wrapped(plain):
        return

    @functools.wraps(plain)
    def backward(tensor: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401  # as torch's
        found = _watches.get(threading.get_ident())
        if found is not None:
            found.note(tensor)
        return plain(tensor, *args, **kwargs)

    backward.rdev_plain = plain  # type: ignore[attr-defined]  # functions take attributes
    torch.Tensor.backward = backward


def _unwrap_backward() -> None:
    # Whoever has wrapped ours meanwhile keeps it; without watchers it only passes on.
    torch = sys.modules.get("torch")
    plain = _wrapped(torch.Tensor.backward) if torch is not None else None
    if torch is not None and plain:
        torch.Tensor.backward = plain


def _wrapped(function: Any) -> Any:  # noqa: ANN401  # torch's function, or None
    return vars(function).get("rdev_plain")
