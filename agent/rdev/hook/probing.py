"""Arms the live probe of `rdev.loop` in a training that nobody prepared, when the agent asks.

The hook does not know the loop: the probe is loaded, by its name, at the moment it is asked for, so
that no process pays for it before, and neither package's code names the other's.
"""

from __future__ import annotations

import sys
from _frozen_importlib_external import PathFinder

TYPE_CHECKING = False  # not from `typing`, see rdev.hook
if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import ModuleType
    from typing import Any

_LIVE = "rdev.loop.live"


def probe(args: Mapping[str, Any]) -> Mapping[str, Any]:
    """The command `probe`: `armed` on or off; `mark` and `step` align it with other ranks.

    Returns:
        `armed`, `kind` (what counts the steps), and `refused`, why it could not be armed; else see
        `rdev.loop.live.arm`.
    """
    if args.get("armed"):
        step, mark = _number(args.get("step")), _number(args.get("mark"))
        return dict(loop_module(_LIVE).arm(mark=mark, step=step))
    live: Any = sys.modules.get(_LIVE)
    return dict(live.disarm()) if live is not None else {"armed": False, "kind": "probe"}


def loop_module(name: str) -> Any:  # noqa: ANN401 - the module, which the hook has no types of
    """A module of `rdev.loop`, loaded if it has not been."""
    loaded = sys.modules.get(name)
    if loaded is not None:
        return loaded
    from importlib import import_module

    # A user's own package `rdev` is neither executed before the program asks for it nor given
    # ours as an attribute: an empty one stands in for it meanwhile.
    users = sys.modules.get("rdev")
    if not _is_regular(users):
        return import_module(name)
    stand_in = type(sys)("rdev")
    stand_in.__path__ = []
    sys.modules["rdev"] = stand_in
    try:
        return import_module(name)
    finally:
        if users is not None:
            sys.modules["rdev"] = users
        elif sys.modules.get("rdev") is stand_in:
            del sys.modules["rdev"]


def _is_regular(users: ModuleType | None) -> bool:
    """Whether `rdev` is a package with code of its own; ours is a namespace."""
    if users is not None:
        return getattr(users, "__file__", None) is not None
    spec = PathFinder.find_spec("rdev")
    return spec is not None and spec.origin is not None


def _number(value: object) -> int | None:
    return value if isinstance(value, int) else None
