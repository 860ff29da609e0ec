"""One verdict for all ranks: replicas that act apart are replicas no more."""

from __future__ import annotations

import sys
from typing import Any

from rdev.loop.sampler import place

# Of a flag the largest is everybody's; of a loss the mean is what the replicas train on.
MAX, MEAN = "max", "mean"


def agreed(value: float, *, how: str) -> float:
    """What all ranks have of a value, the same on each; the value itself without ranks.

    A collective operation of torch.distributed: every rank calls it as often, or the job hangs.
    Under NCCL it takes place on the current CUDA device and is waited for (untested there).

    Args:
        value: This rank's.
        how: `max` or `mean`; not a number if it is none on one rank, for `mean`.
    """
    _, world = place()
    if world == 1:
        return value
    (reduced,) = _reduced([value], how="MAX" if how == MAX else "SUM")
    return reduced / (1 if how == MAX else world)


def mean_of_those(value: float | None) -> float | None:
    """The mean over the ranks that have a value, the same on each; None if none has.

    A collective operation, as `agreed` is: a rank without a value calls it, too.
    """
    if place()[1] == 1:
        return value
    total, count = _reduced([0.0, 0.0] if value is None else [value, 1.0], how="SUM")
    return total / count if count else None


def _reduced(values: list[float], *, how: str) -> list[float]:
    torch: Any = sys.modules["torch"]
    distributed = torch.distributed
    on_device = distributed.get_backend() == "nccl"
    device = torch.device("cuda", torch.cuda.current_device()) if on_device else "cpu"
    told = torch.tensor(values, dtype=torch.float64, device=device)
    distributed.all_reduce(told, op=getattr(distributed.ReduceOp, how))
    reduced: list[float] = told.tolist()
    return reduced
