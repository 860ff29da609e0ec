"""JSON with comments, as editors keep it: where things stand in a text that is to be edited.

Comments, trailing commas and a byte order mark are passed over; everything else is JSON.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field

_SPACE = re.compile(r"(?:[ \t\r\n\ufeff]+|//[^\n]*|/\*.*?\*/)*", re.DOTALL)
_STRING = re.compile(r'"(?:[^"\\\x00-\x1f]|\\.)*"')
_WORD = re.compile(r"true|false|null|-?[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")

# An editor's settings are a handful of levels deep; more is no such file.
_DEEPEST = 100


class JsoncError(ValueError):
    """The text is no JSON with comments; the message says where."""


@dataclass(frozen=True, slots=True)
class Node:
    """A value in a text.

    Attributes:
        start: Where it begins.
        end: Where it has ended.
        value: A string, number, true, false or null; None for the others.
        items: The elements of an array.
        members: The members of an object, by key; of two equal keys the later.
        kind: `{`, `[` or empty.
    """

    start: int
    end: int
    value: object = None
    items: tuple[Node, ...] = ()
    members: dict[str, Node] = field(default_factory=dict)
    kind: str = ""

    def get(self, *keys: str) -> object:
        """The plain value under nested keys; None if there is none."""
        node: Node | None = self
        for key in keys:
            node = node.members.get(key) if node is not None else None
        return node.value if node is not None else None


def parse(text: str) -> Node:
    """The value that a text holds.

    Raises:
        JsoncError: It holds none.
    """
    parser = _Parser(text)
    node = parser.value(parser.space(0), depth=0)
    end = parser.space(node.end)
    if end != len(text):
        raise parser.error(end)
    return node


class _Parser:
    def __init__(self, text: str) -> None:
        self._text = text

    def error(self, position: int) -> JsoncError:
        line = self._text.count("\n", 0, position) + 1
        return JsoncError(f"line {line} is no JSON with comments")

    def space(self, position: int) -> int:
        match = _SPACE.match(self._text, position)
        return match.end() if match else position

    def value(self, position: int, *, depth: int) -> Node:
        if depth > _DEEPEST:
            raise self.error(position)
        first = self._text[position : position + 1]
        if first == "{":
            return self._object(position, depth)
        if first == "[":
            return self._array(position, depth)
        match = (_STRING if first == '"' else _WORD).match(self._text, position)
        if match is None:
            raise self.error(position)
        try:
            return Node(position, match.end(), json.loads(match[0]))
        except ValueError:
            raise self.error(position) from None

    def _object(self, start: int, depth: int) -> Node:
        members: dict[str, Node] = {}
        position = self.space(start + 1)
        while self._text[position : position + 1] != "}":
            key = self.value(position, depth=depth + 1)
            colon = self.space(key.end)
            if not isinstance(key.value, str) or self._text[colon : colon + 1] != ":":
                raise self.error(colon)
            node = self.value(self.space(colon + 1), depth=depth + 1)
            members[key.value] = node
            position = self._following(node.end, "}")
        return Node(start, position + 1, members=members, kind="{")

    def _array(self, start: int, depth: int) -> Node:
        items: list[Node] = []
        position = self.space(start + 1)
        while self._text[position : position + 1] != "]":
            items.append(self.value(position, depth=depth + 1))
            position = self._following(items[-1].end, "]")
        return Node(start, position + 1, items=tuple(items), kind="[")

    def _following(self, position: int, close: str) -> int:
        """Where the next element begins, or the end; a comma stands between."""
        position = self.space(position)
        if self._text[position : position + 1] == ",":
            return self.space(position + 1)
        if self._text[position : position + 1] != close:
            raise self.error(position)
        return position
