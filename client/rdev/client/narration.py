"""Who is told of what takes a while at a host: nobody, unless a program says otherwise."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar


def _silent(_line: str) -> None:
    pass


narrator: ContextVar[Callable[[str], None]] = ContextVar("narrator", default=_silent)
