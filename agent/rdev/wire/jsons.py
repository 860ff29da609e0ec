"""JSON by the C code that Python's own `json` is made of, without that module.

Its import is 4 ms, for it compiles regular expressions that only its Python fallback uses; every
Python process of a job would pay them at its start. Where that C code is not what it has been since
Python 3.1, `json` itself serves.
"""

from __future__ import annotations

TYPE_CHECKING = False  # not from `typing`, see rdev.hook
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

# What `json` skips around a value, see RFC 8259.
_SPACE = " \t\n\r"


class _Options:
    """How numbers and objects are made, as `json.loads` has it made."""

    strict = True
    object_hook = None
    object_pairs_hook = None
    parse_float = float
    parse_int = int
    parse_constant = float  # `NaN`, `Infinity` and `-Infinity`


def _refuse(value: object) -> Any:  # noqa: ANN401 - it never returns
    raise TypeError(f"Object of type {type(value).__name__} is not JSON serializable")


def _native() -> tuple[Callable[[Any], str], Callable[[str], Any]]:
    import _json

    make_encoder: Any = _json.make_encoder
    quote = _json.encode_basestring_ascii
    scan: Any = _json.make_scanner(_Options())  # type: ignore[arg-type]  # it reads these names

    def dump(value: Any) -> str:  # noqa: ANN401 - whatever JSON has a word for
        # A new one each time: it remembers what it is in the middle of.
        encode = make_encoder({}, _refuse, quote, None, ":", ",", False, False, True)  # noqa: FBT003 - as json calls it
        return "".join(encode(value, 0))

    def load(text: str) -> Any:  # noqa: ANN401 - as above
        text = text.strip(_SPACE)
        try:
            value, end = scan(text, 0)
        except StopIteration as error:
            raise ValueError(f"a value is expected at character {error.value}") from None
        if end != len(text):
            raise ValueError(f"more than one value: character {end}")
        return value

    if dump(load('{"a":[1,NaN,-1.5e3,"\\u00e9"]}')) != '{"a":[1,NaN,-1500.0,"\\u00e9"]}':
        raise ImportError("not the C code that json uses")
    return dump, load


def _portable() -> tuple[Callable[[Any], str], Callable[[str], Any]]:
    import json

    return lambda value: json.dumps(value, separators=(",", ":")), json.loads


try:
    _dump, _load = _native()
except (ImportError, AttributeError, TypeError, ValueError):
    _dump, _load = _portable()


def dump(message: Mapping[str, Any]) -> str:
    """An object in JSON, in ASCII and without a space.

    Floats that JSON has no word for (NaN, infinities) are written as Python's json reads them back.

    Raises:
        TypeError: A part of it has no JSON.
        ValueError: It contains itself.
    """
    return _dump(message)


def load(line: bytes) -> Any:  # noqa: ANN401 - any JSON
    """The value that UTF-8 text in JSON says.

    Raises:
        ValueError: It is no JSON.
        RecursionError: It is nested too deep.
    """
    return _load(line.decode("utf-8", "surrogatepass"))
