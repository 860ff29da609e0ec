"""Messages of logpoints, as people write them, in what debugpy can evaluate.

debugpy makes `"loss %s" % (loss,)` of `loss {loss}`. So it knows no format (`{loss:.3f}`), a per
cent sign beside a value breaks it, and an expression that cannot be read is a failure at each hit.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class _Piece:
    text: str
    is_value: bool


def prepared(message: str) -> str:
    """The message as debugpy understands it.

    Args:
        message: What the person wrote, with expressions in braces, each as in an f-string.

    Raises:
        ValueError: It cannot be evaluated anywhere; the text says why.
    """
    pieces = list(_pieces(message))
    if not any(piece.is_value for piece in pieces):
        return message
    return "".join(
        f"{{{_expression(piece.text)}}}" if piece.is_value else piece.text.replace("%", "%%")
        for piece in pieces
    )


def _pieces(message: str) -> Iterator[_Piece]:
    """Text and values in turn; braces nest, and an empty pair is nothing."""
    start = depth = 0
    for place, letter in enumerate(message):
        if letter == "{":
            if not depth:
                yield _Piece(message[start:place], is_value=False)
                start = place + 1
            depth += 1
        elif letter == "}" and depth:
            depth -= 1
            if not depth:
                if value := message[start:place].strip():
                    yield _Piece(value, is_value=True)
                start = place + 1
    if depth:
        raise ValueError("a brace in the message is not closed")
    yield _Piece(message[start:], is_value=False)


def _expression(value: str) -> str:
    formatted = f'f"""{{{value}}}"""'
    for candidate in (value, formatted):
        try:
            ast.parse(candidate, mode="eval")
        except (SyntaxError, ValueError):
            continue
        return candidate
    raise ValueError(f"`{value}` in the message is no expression")
