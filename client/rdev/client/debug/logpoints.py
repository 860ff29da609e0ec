"""Messages of logpoints, as people write them, in what debugpy can evaluate.

debugpy makes `"loss %s" % (loss,)` of `loss {loss}`. So it knows no format (`{loss:.3f}`), a per
cent sign beside a value breaks it, and an expression that cannot be read is a failure at each hit.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from itertools import accumulate

_BRACE = re.compile(r"\{\{|\}\}|\{")


def prepared(message: str) -> str:
    """The message as debugpy understands it.

    Args:
        message: What the person wrote, with expressions in braces, each with or without the
            conversion and format of an f-string. As there, `{{` and `}}` are braces.

    Raises:
        ValueError: It cannot be evaluated anywhere; the text says why.
    """
    pieces = list(_pieces(message))
    if not any(is_value for _, is_value in pieces):
        return message
    return "".join(
        f"{{{text}}}" if is_value else text.replace("%", "%%") for text, is_value in pieces
    )


def _pieces(message: str) -> Iterator[tuple[str, bool]]:
    """Texts, and expressions as debugpy takes them; an empty pair of braces is nothing."""
    start = 0
    while (found := _BRACE.search(message, start)) is not None:
        yield message[start : found.start()], False
        start = found.end()
        if found[0] != "{":
            yield f"chr({ord(found[0][0])})", True  # debugpy has no escape
            continue
        expression, start = _value(message, start)
        if expression:
            yield expression, True
    yield message[start:], False


def _value(message: str, start: int) -> tuple[str, int]:
    """The expression that begins here, and where it has ended.

    Braces may be in it, in a dictionary or a text: it ends at the first that makes it one.
    """
    place = first = message.find("}", start)
    if first < 0:
        raise ValueError("a brace in the message is not closed")
    while place >= 0:
        value = message[start:place].strip()
        expression = _expression(value) if value else ""
        if expression is not None:
            _require_balanced(expression)
            return expression, place + 1
        place = message.find("}", place + 1)
    raise ValueError(f"`{message[start:first].strip()}` in the message is no expression")


def _require_balanced(expression: str) -> None:
    depths = list(accumulate((letter == "{") - (letter == "}") for letter in expression))
    if depths and (min(depths) < 0 or depths[-1]):
        raise ValueError(f"`{expression}` in the message has a brace in a text")


def _expression(value: str) -> str | None:
    for candidate in (value, f'f"""{{{value}}}"""'):
        try:
            tree = ast.parse(candidate, mode="eval")
        except (SyntaxError, ValueError):
            continue
        # It becomes one of a tuple: its own commas and comments stay within it.
        is_loose = isinstance(tree.body, ast.Tuple) or "#" in candidate
        return ast.unparse(tree) if is_loose else candidate
    return None
