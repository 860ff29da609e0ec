"""What is not finite: whether any of many tensors is, and which rows of a batch are.

torch and numpy are met in `sys.modules` and never imported.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

# Batches nest a few levels; what nests deeper is no batch, and may contain itself.
_DEPTH = 6

# Rows are named for people.
_MOST_ROWS = 100


@dataclass(frozen=True)
class Row:
    """A row of a batch that has a number in it that is not finite.

    Attributes:
        place: Where in the batch its array is: empty for the batch itself, `[0]`, `['pixels']`.
        number: Which row, from 0, along the first dimension.
    """

    place: str
    number: int

    def __str__(self) -> str:
        return f"row {self.number} of batch{self.place}"


def all_finite(tensors: Sequence[Any]) -> bool:
    """Whether all numbers of all tensors are finite; one read of the device for each dtype.

    A norm is finite only if all numbers are, and torch computes those of many tensors at once. The
    norm of finite numbers can overflow, so a norm that is not finite is looked into.
    """
    torch = sys.modules["torch"]
    kinds: dict[tuple[Any, Any], list[Any]] = {}
    for tensor in tensors:
        if tensor.is_floating_point() or tensor.is_complex():
            kinds.setdefault((tensor.device, tensor.dtype), []).append(tensor)
    for alike in kinds.values():
        norms = torch._foreach_norm(alike)  # noqa: SLF001  # torch's own clip_grad_norm_ calls it
        # A sum that is finite has no NaN in it, and no infinity: norms are not negative.
        is_host = alike[0].device.type == "cpu"
        total = _on_host(norms) if is_host else torch.stack(norms).sum().item()
        if not math.isfinite(total) and not all(
            bool(torch.isfinite(tensor).all()) for tensor in alike
        ):
            return False
    return True


def _on_host(norms: Sequence[Any]) -> float:
    # Reading a few numbers where they are costs less than computing with them.
    return sum(float(norm.item()) for norm in norms)


def number_of(value: Any) -> float | None:  # noqa: ANN401  # any number of any library
    """A value as a float; waits for its device. None if it is no single number."""
    try:
        return float(value.detach() if hasattr(value, "detach") else value)
    except (TypeError, ValueError, OverflowError, RuntimeError):
        return None


def is_finite(value: Any) -> bool:  # noqa: ANN401  # any number of any library
    """Whether a number is; what is no number is taken for finite."""
    number = number_of(value)
    return number is None or math.isfinite(number)


def rows_not_finite(batch: object) -> list[Row]:
    """The rows of a batch that are not finite, at most a hundred.

    Args:
        batch: Tensors and arrays whose first dimension counts rows, and lists of floats, in any
            nesting of tuples, lists and mappings.
    """
    found: list[Row] = []
    for place, array in arrays(batch):
        found += [Row(place, number) for number in _bad_rows(array)]
        if len(found) >= _MOST_ROWS:
            break
    return found[:_MOST_ROWS]


def arrays(batch: object, place: str = "", depth: int = _DEPTH) -> Iterator[tuple[str, Any]]:
    """All tensors, arrays and lists of floats of a batch, each with where it is."""
    if _is_array(batch) or _is_floats(batch):
        yield place, batch
        return
    if depth == 0:
        return
    items: Iterable[tuple[object, object]] = ()
    if isinstance(batch, Mapping):
        items = batch.items()
    elif isinstance(batch, (list, tuple)):
        items = enumerate(batch)
    for key, value in items:
        yield from arrays(value, f"{place}[{key!r}]", depth - 1)


def _bad_rows(array: Any) -> list[int]:  # noqa: ANN401  # a tensor, an array, or a list of floats
    if isinstance(array, (list, tuple)):
        return [number for number, value in enumerate(array) if not math.isfinite(value)]
    torch, numpy = sys.modules.get("torch"), sys.modules.get("numpy")
    if torch is not None and isinstance(array, torch.Tensor):
        if not (array.is_floating_point() or array.is_complex()) or not _has_rows(array):
            return []
        dense = array.detach().to_dense() if array.is_sparse else array.detach()
        bad = ~torch.isfinite(dense)
        return _numbers(bad.reshape(len(array), -1).any(1).nonzero().flatten().tolist())
    if numpy is None or array.dtype.kind not in "fc" or not _has_rows(array):
        return []
    bad = ~numpy.isfinite(array)
    return _numbers(bad.reshape(len(array), -1).any(axis=1).nonzero()[0].tolist())


def _has_rows(array: Any) -> bool:  # noqa: ANN401  # a tensor or an array
    return array.ndim > 0 and 0 not in array.shape


def _numbers(values: list[Any]) -> list[int]:
    return [int(value) for value in values]


def _is_array(value: object) -> bool:
    for library, name in (("torch", "Tensor"), ("numpy", "ndarray")):
        module = sys.modules.get(library)
        if module is not None and isinstance(value, getattr(module, name, ())):
            return True
    return False


def _is_floats(value: object) -> bool:
    return (
        isinstance(value, (list, tuple))
        and len(value) > 0
        and all(isinstance(one, float) for one in value)
    )
