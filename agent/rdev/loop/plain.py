"""State as plain values: what a checkpoint holds of objects, and how they are given it back.

    pack    objects -> numbers, texts, containers and tensors, which files hold without code
    graft   what was packed -> the same objects again, in place wherever that can be

What is no plain value is packed as a dictionary whose key `MARK` says what it stands for.
"""

from __future__ import annotations

import random
import sys
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

MARK = "\0rdev"

_LEAVES = frozenset({type(None), bool, int, float, str, bytes})


class NotPlainError(ValueError):
    """Something cannot be packed.

    Attributes:
        where: The path to it, from the object that was to be packed.
    """

    def __init__(self, where: str, value: object) -> None:
        super().__init__(f"{where or 'it'} is of the type {_name(type(value))}")
        self.where = where


def is_stateful(value: object) -> bool:
    """True for what gives its state and takes it back: models, optimizers, schedulers, scalers."""
    return (
        callable(getattr(value, "state_dict", None))
        and callable(getattr(value, "load_state_dict", None))
        and not isinstance(value, type)
    )


def pack(value: Any, *, where: str = "") -> Any:  # noqa: ANN401  # any value there is
    """The value as plain ones; tensors and the memory of arrays are shared, not copied.

    Raises:
        NotPlainError: It, or something in it, is neither plain nor stateful.
    """
    if type(value) in _LEAVES or _is_torch(value):
        return value
    if is_stateful(value):
        state = pack(value.state_dict(), where=f"{where}.state_dict()")
        return {MARK: "state", "class": _name(type(value)), "state": state}
    if isinstance(value, (dict, list, tuple)):
        return _pack_container(value, where)
    if isinstance(value, (set, frozenset, bytearray, complex)):
        return _pack_builtin(value, where)
    packed = _pack_generator(value)
    if packed is None:
        packed = _pack_array(value)
    if packed is None:
        raise NotPlainError(where, value)
    return packed


def unpack(value: Any) -> Any:  # noqa: ANN401
    """The plain value that was packed, arrays and sets among it; states stay as they are."""
    if isinstance(value, dict):
        if value.get(MARK) in _UNPACK:
            return _UNPACK[value[MARK]](value)
        new: dict[Any, Any] = OrderedDict() if isinstance(value, OrderedDict) else {}
        new.update((key, unpack(item)) for key, item in value.items())
        if isinstance(value, OrderedDict):
            vars(new).update(vars(value))
        return new
    if isinstance(value, list):
        return [unpack(item) for item in value]
    if type(value) is tuple:
        return tuple(unpack(item) for item in value)
    return value


def graft(old: Any, packed: Any, *, where: str = "") -> Any:  # noqa: ANN401
    """What takes the place of `old`: mostly `old` itself, in the state that was packed.

    Lists, dictionaries, arrays and tensors of one shape keep their identity, because optimizers
    and closures hold them.

    Args:
        old: What is there now.
        packed: What `pack` gave; the tensors in it may be taken over.
        where: The path to it, for errors.

    Raises:
        ValueError: The state does not fit what is there; says what and where.
    """
    kind = packed.get(MARK) if isinstance(packed, dict) else None
    if kind == "state":
        return _load(old, packed, where)
    if kind == "generator":
        return _set_generator(old, packed, where)
    if isinstance(old, dict) and isinstance(packed, dict) and kind is None:
        filled = {
            key: graft(old.get(key), new, where=f"{where}[{key!r}]") for key, new in packed.items()
        }
        old.clear()
        old.update(filled)
        return old
    if isinstance(old, (list, tuple)) and isinstance(packed, (list, tuple)):
        pairs = zip([*old, *[None] * len(packed)], packed, strict=False)
        items = [graft(*pair, where=f"{where}[{at}]") for at, pair in enumerate(pairs)]
        if not isinstance(old, list):
            return tuple(items)
        old[:] = items
        return old
    return _fill(old, unpack(packed))


def clone(packed: Any, *, device: str | None = None, seen: dict[Any, Any] | None = None) -> Any:  # noqa: ANN401
    """A copy of what `pack` gave that shares no memory with it.

    Args:
        packed: What `pack` gave.
        device: Where copies of tensors lie; None for where the originals do.
        seen: Copies made already, so that tensors which are one stay one.
    """
    seen = {} if seen is None else seen
    if isinstance(packed, dict):
        new = type(packed)()
        for key, value in packed.items():
            new[key] = clone(value, device=device, seen=seen)
        if isinstance(packed, OrderedDict):
            vars(new).update(vars(packed))
        return new
    if isinstance(packed, list) or type(packed) is tuple:
        return type(packed)(clone(value, device=device, seen=seen) for value in packed)
    torch = sys.modules.get("torch")
    if torch is None or not isinstance(packed, torch.Tensor):
        return packed
    key = (packed.data_ptr(), packed.shape, packed.stride(), packed.dtype, packed.device)
    if key not in seen or not packed.numel():
        copy = packed.detach().clone()
        seen[key] = copy if device is None else copy.to(device)
    return seen[key]


def _pack_container(value: Any, where: str) -> Any:  # noqa: ANN401
    if isinstance(value, dict):
        new: dict[Any, Any] = OrderedDict() if isinstance(value, OrderedDict) else {}
        for key, item in value.items():
            if type(key) not in _LEAVES and type(key) is not tuple:
                raise NotPlainError(f"{where}, the key {key!r},", key)
            new[key] = pack(item, where=f"{where}[{key!r}]")
        if isinstance(value, OrderedDict):
            # Modules keep the versions of their formats in an attribute of their state_dict.
            vars(new).update(vars(value))
        return new
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        raise NotPlainError(where, value)
    items = [pack(item, where=f"{where}[{at}]") for at, item in enumerate(value)]
    return tuple(items) if isinstance(value, tuple) else items


def _pack_builtin(value: Any, where: str) -> Any:  # noqa: ANN401
    if isinstance(value, complex):
        return {MARK: "complex", "items": [value.real, value.imag]}
    if isinstance(value, bytearray):
        return {MARK: "bytearray", "items": bytes(value)}
    kind = "set" if isinstance(value, set) else "frozenset"
    return {MARK: kind, "items": [pack(item, where=f"{where}, an item,") for item in value]}


def _pack_array(value: Any) -> Any:  # noqa: ANN401
    numpy = sys.modules.get("numpy")
    if numpy is None or not isinstance(value, (numpy.ndarray, numpy.generic)):
        return None
    if value.dtype.kind not in "biufcmMSU":
        return None
    array = numpy.ascontiguousarray(value)
    torch = sys.modules.get("torch")
    octets = array.reshape(-1).view(numpy.uint8)
    if torch is not None:
        octets = torch.from_numpy(octets if octets.flags.writeable else octets.copy())
    return {
        MARK: "array" if isinstance(value, numpy.ndarray) else "scalar",
        "dtype": value.dtype.str,
        "shape": tuple(value.shape),
        "data": octets if torch is not None else octets.tobytes(),
    }


def _unpack_array(packed: Any) -> Any:  # noqa: ANN401
    numpy = sys.modules.get("numpy")
    if numpy is None:
        raise ValueError("it holds arrays of numpy, and numpy has not been imported")
    data = packed["data"]
    if isinstance(data, bytes):
        octets = numpy.frombuffer(bytearray(data), numpy.uint8)
    else:
        octets = data.cpu().numpy()
    array = octets.view(packed["dtype"]).reshape(packed["shape"])
    return array if packed[MARK] == "array" else array[()]


_UNPACK: dict[str, Callable[[Any], Any]] = {
    "array": _unpack_array,
    "scalar": _unpack_array,
    "set": lambda packed: {unpack(item) for item in packed["items"]},
    "frozenset": lambda packed: frozenset(unpack(item) for item in packed["items"]),
    "complex": lambda packed: complex(*packed["items"]),
    "bytearray": lambda packed: bytearray(packed["items"]),
}


def _pack_generator(value: Any) -> Any:  # noqa: ANN401
    torch, numpy = sys.modules.get("torch"), sys.modules.get("numpy.random")
    if isinstance(value, random.Random):
        state = value.getstate()
    elif torch is not None and isinstance(value, torch.Generator):
        state = value.get_state()
    elif numpy is not None and isinstance(value, numpy.Generator):
        state = value.bit_generator.state
    else:
        return None
    return {MARK: "generator", "class": _name(type(value)), "state": pack(state)}


def _set_generator(old: Any, packed: Any, where: str) -> Any:  # noqa: ANN401
    _same_class(old, packed, where)
    state = unpack(packed["state"])
    if isinstance(old, random.Random):
        old.setstate(state)
    elif hasattr(old, "bit_generator"):
        old.bit_generator.state = state
    else:
        old.set_state(state)
    return old


def _load(old: Any, packed: Any, where: str) -> Any:  # noqa: ANN401
    if not is_stateful(old):
        raise ValueError(f"{where} takes no state here; then it was a {packed['class']}")
    if hasattr(old, "param_groups"):
        _same_class(old, packed, where)  # One optimizer takes another's state without a word.
    try:
        old.load_state_dict(unpack(packed["state"]))
    except (KeyError, TypeError, ValueError, RuntimeError, AttributeError) as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        cause = " ".join(line.strip() for line in lines[:3])
        raise ValueError(f"{where} does not take its state: {cause}") from error
    return old


def _same_class(old: object, packed: Any, where: str) -> None:  # noqa: ANN401
    if _name(type(old)) != packed["class"]:
        raise ValueError(f"{where} is a {_name(type(old))} here; then it was a {packed['class']}")


def _fill(old: Any, new: Any) -> Any:  # noqa: ANN401
    torch, numpy = sys.modules.get("torch"), sys.modules.get("numpy")
    if torch is not None and isinstance(old, torch.Tensor) and isinstance(new, torch.Tensor):
        if old.shape != new.shape or old.dtype != new.dtype:
            return new.to(old.device)
        with torch.no_grad():
            return old.copy_(new)
    if numpy is None or not isinstance(old, numpy.ndarray) or not isinstance(new, numpy.ndarray):
        return new
    if old.shape != new.shape or old.dtype != new.dtype or not old.flags.writeable:
        return new
    old[...] = new
    return old


def _is_torch(value: object) -> bool:
    torch = sys.modules.get("torch")
    kinds = ("Tensor", "Size", "dtype", "device")
    return torch is not None and isinstance(value, tuple(getattr(torch, kind) for kind in kinds))


def _name(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"
