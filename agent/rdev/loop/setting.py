"""Sets a value of a running training: the learning rate, or anything that the objects hold.

A schedule goes on from an edited rate: what it computes its rates from is scaled by as much as the
present rate was, so its shape stays and the next step of the scheduler does not undo the edit.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, MutableMapping, MutableSequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rdev.loop.state import State

Setter = Callable[[Any], "tuple[Any, Any]"]
"""Sets a value; returns what it was and what it is. Raises `Refused`."""

# Of a schedule, and of the groups that it writes to: rates that it computes the present one from.
_OF_SCHEDULE = ("base_lrs", "max_lrs")
_OF_GROUP = ("initial_lr", "max_lr", "min_lr")

_NO_RATE = "a learning rate is a finite number from 0 on, not {!r}"


class Refused(Exception):
    """A request cannot be served; says why."""


def lr_setter(state: State) -> Setter:
    """Sets the rate of every group of every optimizer among the state's objects."""

    def set_lr(value: object) -> tuple[object, object]:
        rate = _rate(value)
        optimizers = [one for one in state.objects.values() if _is_optimizer(one)]
        if not optimizers:
            names = ", ".join(state.objects) or "none"
            raise Refused(f"none of the objects is an optimizer with groups; there are: {names}")
        before = [_number(group["lr"]) for one in optimizers for group in one.param_groups]
        schedules = list(_schedules(state.objects.values()))
        for optimizer in optimizers:
            _set_groups(optimizer, rate, [s for s in schedules if _drives(s, optimizer)])
        return before[0] if len(set(before)) == 1 else before, rate

    return set_lr


def set_path(state: State, path: str, value: object) -> tuple[object, object]:
    """Sets what a dotted path under the objects leads to, such as `model.dropout.p`.

    Args:
        state: Whose objects.
        path: Names of objects, attributes, keys and positions, with dots between.
        value: A number, text, truth value, None, or a list of them; the old value's type is kept.

    Returns:
        What it was and what it is.

    Raises:
        Refused: There is no such place, or the value is of another kind than the old one.
    """
    *way, last = path.split(".")
    holder: Any = state.objects
    for position, name in enumerate(way):
        holder = _within(holder, name, ".".join(way[:position]))
    if holder is state.objects and last not in state.objects:
        raise Refused(_unknown(holder, last, ""))
    before = _within(holder, last, ".".join(way))
    if _is_tensor(before):
        return _fill(before, value, path)
    after = _as_before(before, value, path)
    _put(holder, last, after)
    return _short(before), after


def _rate(value: object) -> float:
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        raise Refused(_NO_RATE.format(value))
    if not 0 <= value < float("inf"):
        raise Refused(_NO_RATE.format(value))
    return float(value)


def _set_groups(optimizer: Any, rate: float, schedules: list[Any]) -> None:  # noqa: ANN401
    ratios = []
    for group in optimizer.param_groups:
        present = _number(group["lr"])
        ratios.append(rate / present if present else None)
        _set_rate(group, "lr", rate)
        for name in _OF_GROUP:
            if isinstance(group.get(name), (int, float)):
                _scale(group, name, ratios[-1], rate)
    for schedule in schedules:
        for name in _OF_SCHEDULE:
            rates = getattr(schedule, name, None)
            if isinstance(rates, list) and len(rates) == len(ratios):
                for position, ratio in enumerate(ratios):
                    _scale(rates, position, ratio, rate)
        if isinstance(getattr(schedule, "_last_lr", None), list):
            schedule._last_lr = [rate] * len(ratios)  # noqa: SLF001  # what `get_last_lr` returns


def _scale(holder: Any, key: Any, ratio: float | None, rate: float) -> None:  # noqa: ANN401
    # At a rate of 0 the shape cannot be scaled: it begins anew from the rate asked for.
    holder[key] = rate if ratio is None else holder[key] * ratio


def _set_rate(group: Any, name: str, rate: float) -> None:  # noqa: ANN401  # a param_group
    if _is_tensor(group[name]):  # of an optimizer whose step is captured: the graph reads it
        group[name].fill_(rate)
    else:
        group[name] = rate


def _schedules(values: Any) -> Iterator[Any]:  # noqa: ANN401  # objects of any kind
    for value in values:
        if hasattr(value, "base_lrs") or hasattr(value, "_schedulers"):
            yield value
            yield from _schedules(getattr(value, "_schedulers", ()))


def _drives(schedule: Any, optimizer: Any) -> bool:  # noqa: ANN401  # objects of any kind
    return _bare(getattr(schedule, "optimizer", optimizer)) is _bare(optimizer)


def _bare(optimizer: Any) -> Any:  # noqa: ANN401  # an optimizer, or one wrapped
    # Accelerate wraps an optimizer and keeps it under this name.
    return getattr(optimizer, "optimizer", optimizer)


def _is_optimizer(value: object) -> bool:
    groups = getattr(value, "param_groups", None)
    return isinstance(groups, list) and all(isinstance(g, dict) and "lr" in g for g in groups)


def _within(holder: Any, name: str, path: str) -> Any:  # noqa: ANN401  # whatever there is
    if isinstance(holder, MutableMapping):
        for key in _keys(name):
            if key in holder:
                return holder[key]
        raise Refused(_unknown(holder, name, path))
    if isinstance(holder, (MutableSequence, tuple)) and _is_position(name):
        if int(name) < len(holder):
            return holder[int(name)]
        raise Refused(f"{path} has {len(holder)} entries, the first is 0")
    if name and hasattr(holder, name):
        return getattr(holder, name)
    raise Refused(_unknown(holder, name, path))


def _put(holder: Any, name: str, value: object) -> None:  # noqa: ANN401  # whatever there is
    if isinstance(holder, MutableMapping):
        holder[next(key for key in _keys(name) if key in holder)] = value
    elif isinstance(holder, MutableSequence) and _is_position(name):
        holder[int(name)] = value
    elif isinstance(holder, tuple):
        raise Refused("it is in a tuple, which cannot be changed")
    else:
        try:
            setattr(holder, name, value)
        except (AttributeError, TypeError) as error:
            raise Refused(str(error)) from error


def _keys(name: str) -> tuple[Any, ...]:
    return (name, int(name)) if _is_position(name) else (name,)


def _is_position(name: str) -> bool:
    return name.isascii() and name.isdigit()


def _unknown(holder: Any, name: str, path: str) -> str:  # noqa: ANN401  # whatever there is
    names = (
        holder if isinstance(holder, MutableMapping) else vars(holder) if _has_dict(holder) else ()
    )
    known = ", ".join(sorted(str(key) for key in names if not str(key).startswith("_"))[:20])
    where = f"{path} has no {name!r}" if path else f"no object is called {name!r}"
    return f"{where}; there is: {known}" if known else where


def _has_dict(value: object) -> bool:
    return hasattr(value, "__dict__")


def _as_before(before: object, value: object, path: str) -> object:
    """The new value, as what the old one was."""
    if before is None or value is None:
        return value
    if isinstance(before, bool) or isinstance(value, bool):
        if isinstance(before, bool) and isinstance(value, bool):
            return value
    elif isinstance(before, int):
        if isinstance(value, int) or (isinstance(value, float) and value.is_integer()):
            return int(value)
    elif isinstance(before, float):
        if isinstance(value, (int, float)):
            return float(value)
    elif isinstance(before, (tuple, list)) and isinstance(value, (tuple, list)):
        return type(before)(value)
    elif isinstance(value, type(before)):
        return value
    raise Refused(f"{path} is {_short(before)!r}, of type {type(before).__name__}, not {value!r}")


def _fill(tensor: Any, value: object, path: str) -> tuple[object, object]:  # noqa: ANN401
    if tensor.numel() != 1 or isinstance(value, bool) or not isinstance(value, (int, float)):
        raise Refused(f"{path} is a tensor of shape {tuple(tensor.shape)}; only numbers are set")
    before = tensor.item()
    with sys.modules["torch"].no_grad():
        tensor.fill_(value)
    return before, tensor.item()


def _is_tensor(value: object) -> bool:
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.Tensor)


def _number(value: Any) -> float:  # noqa: ANN401  # a number, or a tensor of one element
    return float(value)


def _short(value: object) -> object:
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    return repr(value)[:200]
