"""What the debugger shows of a tensor or an array: its shape, its kind, and its range if cheap.

debugpy shows the `repr` of a value and of each of its attributes. For a tensor that is a dozen
copies of itself (`T`, `H`, `real`, `data`...), each printed, and on a device each waits for all
that was queued before: behind a collective that is stuck, for ever. So here

- a value is one line, `Tensor (64, 784) float32 cpu, min -0.42 max 2.82`;
- the statistics are exact where the elements are few enough for the budget, else of an evenly
  spaced sample, and then marked: `min ~-4.4 max ~4.5`;
- they are computed on a thread of their own, which the stopped thread leaves behind after the
  budget: a device that does not answer costs that long once, and nothing more until it does.

Nothing of numpy's or torch's is imported; a program that has a tensor has imported them.
"""

from __future__ import annotations

import math
import sys
import time

from rdev.hook.aside import Aside

TYPE_CHECKING = False  # not from `typing`, see rdev.hook
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

# One look at a frame may take so long for the statistics of all its tensors together; the whole
# answer is to be there in 300 ms.
BUDGET_SECONDS = 0.1

# Values asked for within so long of each other belong to one look.
LOOK_SECONDS = 0.25

# So many are looked at one by one, which takes 1 to 10 ms; of more, a sample is, and also when a
# third of the budget is used up.
EXACT = 1 << 20

# The last values of a look get this, which a sample takes on a busy machine.
LEAST_SECONDS = 0.02

# Of a tensor that is too large: evenly spaced, which a few ten microseconds suffice for.
SAMPLE = 1 << 16

# So few elements are shown themselves.
FEW = 8

# As many as torch and numpy print before they abbreviate.
PRINTED = 1000

# Elements of the first dimension that can be opened.
OPENED = 100


class Arrays:
    """Shows tensors and arrays to pydevd; one instance is both a presentation and a resolver.

    pydevd asks its extensions in order and keeps the answer by type; see
    `_pydevd_bundle.pydevd_extension_api`.
    """

    def __init__(self) -> None:
        self._budget = _Budget()

    def can_provide(self, type_object: Any, type_name: str) -> bool:  # noqa: ANN401 - as pydevd calls it
        """True for torch's tensors and numpy's arrays."""
        del type_name
        return is_array_type(type_object)

    def get_str(self, value: Any) -> str:  # noqa: ANN401 - a tensor or an array
        """The value on one line."""
        return self._budget.summarize(value)

    def get_str_in_context(self, value: Any, context: str) -> str:  # noqa: ANN401 - as above
        """As `get_str`; who evaluates something small wants to see its elements."""
        summary = self.get_str(value)
        if context not in ("repl", "clipboard") or not FEW < _size(value) <= PRINTED:
            return summary
        printed = self._budget.spend(lambda: repr(value), str(_attribute(value, "device")))
        return f"{printed}\n{summary}" if printed else summary

    def get_contents_debug_adapter_protocol(
        self,
        value: Any,  # noqa: ANN401 - as above
        fmt: object = None,
    ) -> list[tuple[str, Any, str | None]]:
        """What opens below the value: name, value, and how to write it after the value's own."""
        del fmt
        contents: list[tuple[str, Any, str | None]] = []
        for name in ("shape", "dtype", "device", "requires_grad", "grad_fn", "grad"):
            part = _attribute(value, name)
            if part is not None:
                contents.append((name, part, f".{name}"))
        contents.extend((f"[{i}]", part, f"[{i}]") for i, part in enumerate(_first_parts(value)))
        return contents

    def get_dictionary(self, value: Any) -> dict[str, Any]:  # noqa: ANN401 - as above
        """As above, by name."""
        contents = self.get_contents_debug_adapter_protocol(value)
        return {name: part for name, part, _ in contents}

    def resolve(self, value: Any, attribute: str) -> Any:  # noqa: ANN401 - as above
        """One of them."""
        return self.get_dictionary(value).get(attribute)


def show_arrays() -> Arrays:
    """Makes pydevd, which must be imported, show tensors and arrays in this module's way."""
    arrays = Arrays()
    api = sys.modules["_pydevd_bundle.pydevd_extension_api"]
    manager = sys.modules["_pydevd_bundle.pydevd_extension_utils"]
    for kind in (api.StrPresentationProvider, api.TypeResolveProvider):
        manager.extensions_of_type(kind).insert(0, arrays)
    _show_in_containers(sys.modules["_pydevd_bundle.pydevd_safe_repr"].SafeRepr)
    return arrays


def is_array_type(type_object: Any) -> bool:  # noqa: ANN401 - pydevd may pass anything
    """True for torch's tensors and numpy's arrays."""
    if not isinstance(type_object, type):
        return False
    known = (
        getattr(sys.modules.get(module), name, None)
        for module, name in (("torch", "Tensor"), ("numpy", "ndarray"))
    )
    return any(isinstance(kind, type) and issubclass(type_object, kind) for kind in known)


def outline(value: Any) -> str:  # noqa: ANN401 - a tensor or an array
    """Its type, shape, kind and device; no element is looked at, and no device waited for."""
    words = [type(value).__name__, str(tuple(value.shape)), _kind(value)]
    device = _attribute(value, "device")
    if device is not None and "torch" in sys.modules:
        words.append(str(device))
    if _attribute(value, "requires_grad"):
        words.append("grad")
    return " ".join(words)


def short_text(value: Any, limit: int = 200) -> str:  # noqa: ANN401 - anything
    """Any value on a line, for a comparison between ranks; a tensor as its summary."""
    if is_array_type(type(value)):
        return _Budget().summarize(value)
    try:
        text = " ".join(repr(value).split())
    except Exception as error:  # noqa: BLE001 - it is the user's `__repr__`
        return f"<{type(value).__name__} whose repr raised {type(error).__name__}>"
    return text if len(text) <= limit else f"{text[:limit]}..."


def message_of(error: BaseException, limit: int = 1000) -> str:
    """What an exception says, whatever class of the user's it has."""
    try:
        return str(error)[:limit]
    except Exception as other:  # noqa: BLE001 - it is the user's `__str__`
        return f"<its str raised {type(other).__name__}>"


class _Budget:
    """The time that the statistics of one look may take, and who waits for a device since."""

    def __init__(self) -> None:
        self._left = BUDGET_SECONDS
        self._last = 0.0
        self._waiting: dict[str, _Summary] = {}

    def summarize(self, value: Any) -> str:  # noqa: ANN401 - a tensor or an array
        try:
            head = outline(value)
        except Exception:  # noqa: BLE001 - a subclass may refuse anything
            return f"<{type(value).__name__}>"
        self._begin()
        size = _size(value)
        exact = size <= (EXACT if self._left > BUDGET_SECONDS * 2 / 3 else SAMPLE)
        device = str(_attribute(value, "device") or "cpu")
        statistics = self.spend(lambda: _statistics(value, is_exact=exact), device)
        return f"{head}, {statistics}" if statistics else head

    def spend(self, action: Callable[[], str], device: str) -> str:
        """What the action returns; empty if it raises.

        Args:
            action: What takes its time; it is left behind when that is used up.
            device: What it may wait for.
        """
        if device in self._waiting and self._waiting[device].is_alive():
            return f"{device} is busy"
        began = time.monotonic()
        aside = _Summary(action)
        aside.start()
        aside.join(max(self._left, LEAST_SECONDS))
        self._left -= time.monotonic() - began
        if not aside.is_alive():
            return aside.result
        self._waiting[device] = aside
        return f"{device} is busy"

    def _begin(self) -> None:
        now = time.monotonic()
        if now - self._last > LOOK_SECONDS:
            self._left = BUDGET_SECONDS
        self._last = now


class _Summary(Aside):
    def __init__(self, action: Callable[[], str]) -> None:
        super().__init__("rdev-summary")
        self._action: Callable[[], str] | None = action
        self.result = ""

    def run(self) -> None:
        # Whoever keeps this thread, to see whether it still waits, does not keep the tensor.
        action, self._action = self._action, None
        try:
            self.result = action() if action is not None else ""
        except Exception:  # noqa: BLE001 - sparse, quantized, fake: what cannot be reduced is not
            self.result = ""


def _statistics(value: Any, *, is_exact: bool) -> str:  # noqa: ANN401 - a tensor or an array
    if not _has_elements(value):
        return ""
    size = _size(value)
    if size == 0:
        return "empty"
    looked_at = value.detach() if hasattr(value, "detach") else value
    if not is_exact:
        looked_at = looked_at[_sample(tuple(value.shape))]
    flat = looked_at.reshape(-1)
    return _elements(flat.tolist()) if size <= FEW else _range(flat, mark="" if is_exact else "~")


def _has_elements(value: Any) -> bool:  # noqa: ANN401 - a tensor or an array
    # A tensor on `meta` has none, and a sparse or quantized one has others than it shows.
    layout = str(_attribute(value, "layout") or "torch.strided")
    is_meta = str(_attribute(value, "device")) == "meta"
    return layout == "torch.strided" and not is_meta and not _attribute(value, "is_quantized")


def _sample(shape: tuple[int, ...]) -> tuple[slice, ...]:
    """Evenly spaced slices, of the longest dimension first, that leave about `SAMPLE` elements."""
    surplus = max(1, math.prod(shape) // SAMPLE)
    steps = [1] * len(shape)
    for dimension in sorted(range(len(shape)), key=lambda d: -shape[d]):
        # As a step it is odd, so that it does not fall into the period of a power of two.
        step = min(shape[dimension], surplus | 1) if surplus > 1 else 1
        steps[dimension], surplus = step, surplus // step
    return tuple(slice(None, None, step) for step in steps)


def _range(flat: Any, *, mark: str) -> str:  # noqa: ANN401 - of one dimension
    kind = _kind(flat)
    if kind == "bool":
        return f"{mark}{float(flat.sum()) / len(flat):.1%} true"
    if not kind.startswith(("float", "bfloat", "int", "uint")):
        return ""
    low, high = _ends(flat)
    if math.isfinite(low) and math.isfinite(high):
        return f"min {mark}{_number(low)} max {mark}{_number(high)}"
    return _unusual(flat, mark=mark)


def _ends(flat: Any) -> tuple[Any, Any]:  # noqa: ANN401 - of one dimension
    if not hasattr(flat, "aminmax"):
        return flat.min().item(), flat.max().item()
    if _kind(flat).startswith("float8"):
        flat = flat.float()  # it has no reductions of its own
    low, high = flat.aminmax()
    return low.item(), high.item()


def _unusual(flat: Any, *, mark: str) -> str:  # noqa: ANN401 - of one dimension
    """The range of what is finite, and how much is not."""
    library = sys.modules["torch" if hasattr(flat, "aminmax") else "numpy"]
    counts = ((int(library.isnan(flat).sum()), "nan"), (int(library.isinf(flat).sum()), "inf"))
    words = [f"{mark}{count} {name}" for count, name in counts if count]
    finite = flat[library.isfinite(flat)]
    if len(finite):
        low, high = _ends(finite)
        words.insert(0, f"min {mark}{_number(low)} max {mark}{_number(high)}")
    return " ".join(words)


def _elements(values: list[Any]) -> str:
    shown = [_number(value) for value in values]
    return shown[0] if len(shown) == 1 else f"[{', '.join(shown)}]"


def _number(value: Any) -> str:  # noqa: ANN401 - an element
    return f"{value:.5g}" if isinstance(value, float) else str(value)


def _kind(value: Any) -> str:  # noqa: ANN401 - a tensor or an array
    return str(value.dtype).removeprefix("torch.")


def _size(value: Any) -> int:  # noqa: ANN401 - a tensor or an array
    return math.prod(tuple(value.shape))


def _attribute(value: Any, name: str) -> Any:  # noqa: ANN401 - a tensor or an array
    if name == "grad" and not _attribute(value, "is_leaf"):
        return None  # torch warns of that look
    try:
        return getattr(value, name, None)
    except Exception:  # noqa: BLE001 - a subclass may refuse anything
        return None


def _first_parts(value: Any) -> list[Any]:  # noqa: ANN401 - a tensor or an array
    try:
        if not len(value.shape):
            return []
        whole = value.detach() if hasattr(value, "detach") else value
        return [whole[i] for i in range(min(OPENED, value.shape[0]))]
    except Exception:  # noqa: BLE001 - sparse ones have no parts
        return []


def _show_in_containers(safe_repr: Any) -> None:  # noqa: ANN401 - the class SafeRepr
    original = safe_repr._repr  # noqa: SLF001 - a contract test guards the name

    def _repr(self: Any, obj: Any, level: int) -> Any:  # noqa: ANN401 - as pydevd calls it
        if is_array_type(type(obj)):
            return (outline(obj),)
        return original(self, obj, level)

    safe_repr._repr = _repr  # noqa: SLF001 - as above
