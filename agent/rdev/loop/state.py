"""What a run is at this moment: the one object that steps and callbacks read and write."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rdev.loop.control import Control

_FIELDS = ("step", "epoch", "phase", "batch", "loss", "metrics", "stop", "error", "control")


class State:
    """Where the run stands, and the named objects it trains with.

    Objects are attributes of their own: `state.model` reads one and `state.optimizer = other`
    swaps one in the middle of a run, because nobody keeps a copy of the old.

    Attributes:
        step: Steps begun so far: 1 during the first step.
        epoch: Epochs begun so far: 1 during the first epoch.
        phase: Name of the phase that ended last in this step; empty where steps have none.
        batch: What `data` gave for this step.
        loss: What the step, or its last phase, returned: usually a tensor of one element, on
            whatever device it was computed; None before the first.
        metrics: Latest value of every metric by name: numbers or tensors of one element.
        stop: Set it to end the run after this step; ends of step, epoch and run are still told.
        error: What ended the run early; None while it goes well.
        control: Pauses the run, and does what else may be asked of it; set once the run begins.
    """

    control: Control

    # Objects live in `__dict__`, so reading and swapping them costs what any attribute costs.
    __slots__ = ("__dict__", *_FIELDS)

    def __init__(self, **objects: object) -> None:
        self.step: int = 0
        self.epoch: int = 0
        self.phase: str = ""
        self.batch: Any = None
        self.loss: Any = None
        self.metrics: dict[str, Any] = {}
        self.stop: bool = False
        self.error: BaseException | None = None
        self.add(objects)

    @property
    def objects(self) -> dict[str, Any]:
        """The named objects; the mapping is live in both directions."""
        return self.__dict__

    def add(self, objects: Mapping[str, object]) -> None:
        """Adds or replaces named objects.

        Raises:
            ValueError: A name is one that the state itself uses.
        """
        for name in objects:
            if hasattr(type(self), name):
                raise ValueError(f"no object may be called {name!r}: the state uses that name")
        self.__dict__.update(objects)

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any: ...  # noqa: ANN401  # objects are of any type

        def __setattr__(self, name: str, value: object) -> None: ...
