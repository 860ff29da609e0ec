"""Running statistics of batch normalisation: the forward pass changes them, before any guard."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from typing import Any, cast

_NAMES = ("running_mean", "running_var", "num_batches_tracked")


class RunningStatistics:
    """Those of all models among a run's objects, as they were when they were kept last.

    Keeping them copies some kilobytes a step, fused; a run without any pays nothing.
    """

    def __init__(self) -> None:
        self._live: list[Any] = []
        self._kept: list[Any] = []

    def find(self, objects: Mapping[str, Any]) -> None:
        """Finds the models anew, and keeps what they have."""
        live: dict[int, Any] = {}
        for value in objects.values():
            modules = getattr(value, "modules", None)
            if "torch" in sys.modules and callable(modules):
                inner = cast("Iterable[Any]", modules())
                found = (getattr(one, name, None) for one in inner for name in _NAMES)
                live.update({id(one): one for one in found if one is not None})
        self._live = list(live.values())
        self._kept = [one.detach().clone() for one in self._live]

    def keep(self) -> None:
        """Keeps what they are now."""
        if self._live:
            _copy(self._kept, self._live)

    def restore(self) -> None:
        """Puts back what was kept."""
        if self._live:
            _copy(self._live, self._kept)


def _copy(into: list[Any], source: list[Any]) -> None:
    torch: Any = sys.modules["torch"]
    with torch.no_grad():
        torch._foreach_copy_(into, source)  # torch's optimizers call it
