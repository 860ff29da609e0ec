"""Makes rdev.hook, rdev.wire and rdev.loop importable in a job, whatever its path holds.

These three names come from the agent's release, before anything else. Every other `rdev.*`, and
`rdev` itself, is looked up on the user's path as if we were not there: an installed rdev, being a
namespace package, merges with ours; a regular package named `rdev` keeps its name, and does not
hide ours. Where the path has no `rdev` at all an empty namespace package stands in for it.
"""

from __future__ import annotations

import os
import sys
from _frozen_importlib import ModuleSpec  # as `importlib.machinery` has it, without its import
from _frozen_importlib_external import PathFinder

TYPE_CHECKING = False  # not from `typing`, see rdev.hook
if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import ModuleType

OURS = ("rdev.hook", "rdev.wire", "rdev.loop")


class Finder:
    """Finds our three packages in the agent's release; one instance is first on sys.meta_path."""

    def __init__(self, root: str) -> None:
        self._root = root

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """The spec of a module of ours; None for any other."""
        del path  # the user's, where ours are not
        if name in OURS:
            return PathFinder.find_spec(name, [self._root], target)
        if name.startswith(tuple(f"{package}." for package in OURS)):
            folder = os.path.join(self._root, *name.split(".")[1:-1])
            return PathFinder.find_spec(name, [folder], target)
        return None


class Fallback:
    """Stands in for `rdev` where nothing else is found; one instance is last on sys.meta_path."""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """The spec of an empty namespace package `rdev`; None for any other name."""
        del path, target
        if name != "rdev":
            return None
        spec = ModuleSpec("rdev", None, is_package=True)
        spec.submodule_search_locations = []
        return spec


def start(root: str, socket: str = "") -> None:
    """Plants the finders and arms the hook.

    Args:
        root: Folder that holds `hook`, `wire` and `loop` of the agent's release.
        socket: Whom a process that rdev did not start dials; empty for a job's, which knows.
    """
    sys.meta_path.insert(0, Finder(root))
    sys.meta_path.append(Fallback())
    if sys.version_info < (3, 11) or not (socket or "RDEV_JOB_SOCKET" in os.environ):
        return
    # A user's package named `rdev` must not be executed before the program asks for it, so an
    # empty parent stands in while our first modules are imported. The later ones do without: an
    # import of a name from `rdev.hook.module` looks up `rdev.hook`, which is there and ours, and
    # never asks what `rdev` means.
    stand_in: ModuleType | None = None
    if "rdev" not in sys.modules:
        empty = type(sys)("rdev")
        empty.__path__ = []
        stand_in = sys.modules["rdev"] = empty
    try:
        from rdev.hook.arm import arm

        arm(socket)
    finally:
        if stand_in is not None and sys.modules.get("rdev") is stand_in:
            del sys.modules["rdev"]
