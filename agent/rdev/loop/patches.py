"""The three places of torch's where the live probe listens: wrapped while armed, and then restored.

`Tensor.backward` calls `torch.autograd.backward` by that name, so that one wrapper hears both. A
loss that a `GradScaler` has multiplied is told as it was before.
"""

from __future__ import annotations

import contextlib
import inspect
import sys
import threading
import time
from _thread import get_ident
from collections.abc import Callable
from typing import Any

Stepped = Callable[[Any, Any, Any], None]

# Losses that were scaled and never went backward are forgotten, and would else be kept for good.
_SCALED = 8


# A hook of somebody else's is over in milliseconds; only one that is paused takes longer.
_TICK = 0.002
_PATIENCE = 1.0

_BACKWARD = (
    "tensors",
    "grad_tensors",
    "retain_graph",
    "create_graph",
    "grad_variables",
    "inputs",
)


class Patches:
    """Listens to backward passes and optimizer steps.

    Attributes:
        loss: What went backward last in the training's thread; who reads it takes it away, for it
            may hold a graph.
        thread: The training's: the main thread, until another one trains.
    """

    __slots__ = ("_handle", "_replaced", "_scaled", "loss", "thread")

    def __init__(self) -> None:
        self.loss: Any = None
        self.thread = threading.main_thread().ident
        self._scaled: list[tuple[Any, Any]] = []
        self._replaced: list[tuple[Any, str, Any, Any]] = []  # owner, name, original, ours
        self._handle: Any = None

    def take(self) -> Any:  # noqa: ANN401  # a tensor, or several
        """The last loss, which is not kept."""
        loss, self.loss = self.loss, None
        return loss

    def put(self, stepped: Stepped) -> None:
        """Wraps the functions and registers the hook.

        Args:
            stepped: Called after every optimizer step, in its thread, as torch calls such hooks.

        Raises:
            RuntimeError: This torch has no such hook, or passes backward in another way, or is in
                the midst of other hooks for longer than a moment.
        """
        torch: Any = sys.modules["torch"]
        module = sys.modules["torch.optim.optimizer"]  # `torch.optim` has it under another name
        register = getattr(module, "register_optimizer_step_post_hook", None)
        if register is None:
            raise RuntimeError(f"torch {torch.__version__} has no hook after optimizer steps")
        if tuple(inspect.signature(torch.autograd.backward).parameters) != _BACKWARD:
            raise RuntimeError(f"torch {torch.__version__} takes other arguments to backward")
        if not wait_until_idle():
            raise RuntimeError("an optimizer's step is held in a hook of somebody else's")
        self._handle = register(stepped)
        self._replace(torch.autograd, "backward", self._backward)
        scaler = getattr(torch.amp, "GradScaler", None) or torch.cuda.amp.GradScaler
        self._replace(scaler, "scale", self._scale)

    def restore(self) -> None:
        """Removes the hook and puts the original functions back."""
        handle, self._handle = self._handle, None
        if handle is not None:
            _remove(handle)
        while self._replaced:
            owner, name, original, ours = self._replaced.pop()
            # Whoever has wrapped ours meanwhile keeps it: called, it does what the original does.
            if vars(owner).get(name) is ours:
                setattr(owner, name, original)
        self.loss = None
        self._scaled.clear()

    def _replace(self, owner: Any, name: str, wrap: Callable[[Any], Any]) -> None:  # noqa: ANN401  # a class or a module of torch's
        original = vars(owner)[name]
        ours = wrap(original)
        for attribute in ("__module__", "__name__", "__qualname__", "__doc__"):
            setattr(ours, attribute, getattr(original, attribute))
        ours.__wrapped__ = original
        self._replaced.append((owner, name, original, ours))
        setattr(owner, name, ours)

    def _backward(self, original: Any) -> Any:  # noqa: ANN401  # a function of torch's
        patches, scaled = self, self._scaled

        # Its arguments one by one: passing on `*arguments` would cost three times as much.
        def backward(  # as torch's own
            tensors: Any,  # noqa: ANN401  # as above
            grad_tensors: Any = None,  # noqa: ANN401  # as above
            retain_graph: Any = None,  # noqa: ANN401  # as above
            create_graph: Any = False,  # noqa: ANN401, FBT002  # as above
            grad_variables: Any = None,  # noqa: ANN401  # as above
            inputs: Any = None,  # noqa: ANN401  # as above
        ) -> None:
            original(tensors, grad_tensors, retain_graph, create_graph, grad_variables, inputs)
            # Afterwards: backward passes within this one, of checkpointed parts, are no losses.
            if get_ident() != patches.thread:
                return
            if scaled or retain_graph or create_graph:
                patches.loss = detached(patches._before_scaling(tensors))
            else:
                patches.loss = tensors

        return backward

    def _scale(self, original: Any) -> Any:  # noqa: ANN401  # a function of torch's
        scaled = self._scaled

        def scale(scaler: Any, outputs: Any) -> Any:  # noqa: ANN401  # as torch's own
            result = original(scaler, outputs)
            if result is not outputs:
                scaled.append((result, outputs))
                del scaled[:-_SCALED]
            return result

        return scale

    def _before_scaling(self, tensor: Any) -> Any:  # noqa: ANN401  # a tensor, or several
        for number, (result, outputs) in enumerate(self._scaled):
            if result is tensor:
                with contextlib.suppress(IndexError):
                    del self._scaled[number]
                return outputs
        return tensor


def detached(loss: Any) -> Any:  # noqa: ANN401  # a tensor, or several
    """The tensor without its graph; None for several."""
    return loss.detach() if hasattr(loss, "detach") else None


def _hooks(when: str = "post") -> Any:  # noqa: ANN401  # a dictionary of torch's
    module = sys.modules["torch.optim.optimizer"]
    return getattr(module, f"_global_optimizer_{when}_hooks", {})


def _is_iterated(*, without: int = 0, when: str = "post") -> bool:
    """Whether a thread, but for that one, is in the midst of torch's hooks after a step.

    Of those before a step (`when` is `pre`) it is said until the step is over.

    torch iterates over the very dictionary: who adds or removes one meanwhile ends the training by
    a RuntimeError.
    """
    if not _hooks(when):
        return False
    source = sys.modules["torch.optim.optimizer"].__file__
    frame: Any = None
    # The frame of this very function may be the last: kept in itself, it would keep its callers'.
    try:
        for thread, frame in sys._current_frames().items():  # noqa: SLF001  # documented, for debuggers
            while frame is not None and thread != without:
                code = frame.f_code
                is_step = code.co_name == "wrapper" and code.co_filename == source
                if is_step and f"{when}_hook" in frame.f_locals:
                    return True
                frame = frame.f_back  # noqa: PLW2901
        return False
    finally:
        frame = None


def wait_until_idle() -> bool:
    """Waits until torch calls no hooks; False if it still does after a moment."""
    deadline = time.monotonic() + _PATIENCE
    while _is_iterated() or _is_iterated(when="pre"):
        if time.monotonic() > deadline:
            return False
        time.sleep(_TICK)
    return True


def _remove(handle: Any) -> None:  # noqa: ANN401  # torch's
    """Removes a hook, now or, if torch is calling hooks, as soon as it does not."""
    # Whoever is in the last hook, as we may be, does not look at the dictionary again.
    is_last = next(reversed(_hooks()), None) == handle.id
    if not _is_iterated(without=get_ident() if is_last else 0):
        handle.remove()
        return
    threading.Thread(target=_remove_later, args=(handle,), name="rdev-unhook", daemon=True).start()


def _remove_later(handle: Any) -> None:  # noqa: ANN401  # torch's
    while not wait_until_idle():
        pass
    handle.remove()
