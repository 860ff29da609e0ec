"""Reads a run's state for a person: numbers, and one short line for each object."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from rdev.loop.sample import number, take

if TYPE_CHECKING:
    from rdev.loop.state import State

_LONGEST = 120
_MOST = 100


def read(state: State) -> dict[str, Any]:
    """What `rdev ctl JOB state` shows; waits for the device on which the numbers lie.

    Returns:
        `step`, `epoch`, `phase`, `loss`, `metrics` {name: number}, `lr` {optimizer: [rate a
        group]}, `objects` {name: line}.
    """
    objects = dict(list(state.objects.items())[:_MOST])
    return {
        "step": state.step,
        "epoch": state.epoch,
        "phase": state.phase,
        "loss": _number(state.loss),
        "metrics": _numbers(state.metrics),
        "lr": {name: rates for name, value in objects.items() if (rates := _rates(value))},
        "objects": {name: _line(value) for name, value in objects.items()},
    }


def _numbers(values: Mapping[str, Any]) -> dict[str, float]:
    read = {str(name): _number(value) for name, value in list(values.items())[:_MOST]}
    return {name: value for name, value in read.items() if value is not None}


def _number(value: Any) -> float | None:  # noqa: ANN401  # any number of any library
    sample = None if value is None else take(value)
    return None if sample is None else number(sample)


def _rates(value: object) -> list[float]:
    groups = getattr(value, "param_groups", None)
    if not isinstance(groups, list):
        return []
    return [float(group["lr"]) for group in groups if isinstance(group, dict) and "lr" in group]


def _line(value: Any) -> str:  # noqa: ANN401  # an object of any kind
    name = type(value).__name__
    try:
        if callable(getattr(value, "parameters", None)):
            count = sum(parameter.numel() for parameter in value.parameters())
            mode = ", training" if getattr(value, "training", False) else ""
            return f"{name}, {count:,} parameters{mode}"
        if rates := _rates(value):
            return f"{name}, lr {', '.join(f'{rate:g}' for rate in dict.fromkeys(rates))}"
        if hasattr(value, "shape") and hasattr(value, "dtype"):
            return f"{name} {tuple(value.shape)} {str(value.dtype).removeprefix('torch.')}"
        if value is None or isinstance(value, (bool, int, float, str)):
            return repr(value)[:_LONGEST]
        size = f" of {len(value):,}" if hasattr(value, "__len__") else ""
    except Exception:  # noqa: BLE001  # a foreign object may refuse anything
        return name
    else:
        return f"{name}{size}"
