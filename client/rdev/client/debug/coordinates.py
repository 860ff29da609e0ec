"""How a DAP client counts lines and columns and spells paths, and how debugpy does.

debugpy counts from 1 and knows plain paths only; a client says at `initialize` what it does.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, unquote, urlsplit

from rdev.protocol.dap import Message

_LINES = ("line", "endLine")
_COLUMNS = ("column", "endColumn")


@dataclass(frozen=True, slots=True)
class Coordinates:
    """A client's conventions.

    Attributes:
        first_line: The number of a file's first line.
        first_column: The number of a line's first character.
        has_uris: Paths are URIs.
    """

    first_line: int = 1
    first_column: int = 1
    has_uris: bool = False

    @classmethod
    def of(cls, arguments: Mapping[str, Any]) -> Coordinates:
        """Those that the arguments of an `initialize` name."""
        return cls(
            first_line=0 if arguments.get("linesStartAt1") is False else 1,
            first_column=0 if arguments.get("columnsStartAt1") is False else 1,
            has_uris=arguments.get("pathFormat") == "uri",
        )

    def path_in(self, path: str) -> str:
        """A plain path for one as the client spells it."""
        if not path.startswith("file:"):
            return path
        parts = urlsplit(path)
        return unquote(parts.path)

    def path_out(self, path: str) -> str:
        """A plain path as the client spells it."""
        return f"file://{quote(path)}" if self.has_uris and os.path.isabs(path) else path

    def numbers_in(self, item: Message) -> Message:
        """An object whose lines and columns count from 1."""
        return self._moved(item, 1 - self.first_line, 1 - self.first_column)

    def numbers_out(self, item: Message) -> Message:
        """An object whose lines and columns count as the client does."""
        return self._moved(item, self.first_line - 1, self.first_column - 1)

    def _moved(self, item: Message, lines: int, columns: int) -> Message:
        moved = dict(item)
        for names, distance in ((_LINES, lines), (_COLUMNS, columns)):
            for name in names:
                if distance and isinstance(moved.get(name), int):
                    # A frame without a source has line 0 already.
                    moved[name] = max(0, moved[name] + distance)
        return moved


# What debugpy is told instead of the client's own.
AS_DEBUGPY = {"linesStartAt1": True, "columnsStartAt1": True, "pathFormat": "path"}
