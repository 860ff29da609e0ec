"""Values taken from a running training without making it wait for its device.

The training thread decides which value is taken, so that it belongs to a known step; the number is
read later and elsewhere. For a CUDA tensor that means a copy into pinned memory, queued on the
training's own stream, and an event behind it: later in-place writes cannot change the sample, and
`.item()` of the original, which would drain the stream, is never called.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor as _Tensor
    from torch.cuda import Event as _Event


class DeviceValue:
    """A number that a device has not delivered yet."""

    __slots__ = ("_event", "_tensor")

    def __init__(self, tensor: _Tensor, event: _Event | None) -> None:
        self._tensor = tensor
        self._event = event

    def ready(self) -> bool:
        """True if `wait` would return at once."""
        return self._event is None or bool(self._event.query())

    def wait(self) -> float:
        """The number; blocks this thread, and no other, until the device has delivered it."""
        if self._event is not None:
            self._event.synchronize()
        return float(self._tensor.item())


Sample = float | DeviceValue


def take(value: Any) -> Sample | None:  # noqa: ANN401  # any number of any library
    """A float, a `DeviceValue`, or None where `value` is no single number.

    Args:
        value: A number, a numpy scalar, or a tensor of one element and any shape.
    """
    if isinstance(value, (int, float)):
        return float(value)
    try:
        if not hasattr(value, "detach"):
            return float(value)
        if value.numel() != 1:
            return None
        place = value.device.type
        if place == "cpu":
            return float(value.item())
        return _from_cuda(value) if place == "cuda" else DeviceValue(value.detach().clone(), None)
    except Exception:  # noqa: BLE001  # whatever a foreign type raises, it is no number for us
        return None


def take_all(values: Mapping[str, object]) -> dict[str, Sample]:
    """The samples of all values that are single numbers, by name."""
    taken = {str(name): take(value) for name, value in values.items()}
    return {name: sample for name, sample in taken.items() if sample is not None}


def number(sample: Sample) -> float:
    """The number of a sample; may wait for a device."""
    return sample.wait() if isinstance(sample, DeviceValue) else float(sample)


def _from_cuda(value: _Tensor) -> DeviceValue:
    torch = sys.modules["torch"]
    if torch.cuda.is_current_stream_capturing():
        raise RuntimeError("a graph is being captured; the copy would become part of it")
    tensor = torch.empty((), dtype=value.dtype, pin_memory=True)
    tensor.copy_(value.detach().reshape(()), non_blocking=True)
    event = torch.cuda.Event()
    event.record()
    return DeviceValue(tensor, event)
