"""Finds what a script trains with that nobody has told of: its models and their schedules.

An optimizer that has stepped is known. What holds its parameters, and what schedules it, is looked
for among the objects of the process once somebody asks. Only weak references stay: an optimizer
that the script drops must give its memory back.
"""

from __future__ import annotations

import gc
import inspect
import sys
import weakref
from collections.abc import Iterable, Iterator, Mapping
from types import FrameType
from typing import Any

from rdev.loop.state import State

# How many frames outwards a name is looked for: Lightning has about 40 between a script and a step.
_FRAMES = 60

# Reading the locals of a function makes a copy that its frame keeps, with a loss and a batch in it.
_COPIES = sys.version_info < (3, 13)


def found_around(optimizers: Iterable[Any], frame: FrameType | None) -> dict[str, Any]:
    """Weak references to the optimizers and what belongs to them, by name.

    What a variable of the script is called is called so here; the others are `model`, `optimizer`
    and `scheduler`, with numbers from the second on. The search visits all objects that the
    interpreter tracks, which takes some 0.1 s beside torch.

    Args:
        optimizers: Those that have stepped.
        frame: Where a step was called from; names of the innermost frames come first.
    """
    torch: Any = sys.modules["torch"]
    members = list(optimizers)
    modules, schedulers = [], []
    for entry in gc.get_objects():
        kind = type(entry)  # `isinstance` would ask lazy objects what they are
        if issubclass(kind, torch.nn.Module):
            modules.append(entry)
        elif issubclass(kind, torch.optim.lr_scheduler.LRScheduler):
            schedulers.append(entry)
    groups = {
        "optimizer": members,
        "model": _outermost(modules, members),
        "scheduler": _schedules(schedulers, members),
    }
    names = _names(frame, {id(entry) for entries in groups.values() for entry in entries})
    found: dict[str, Any] = {}
    for word, entries in groups.items():
        for entry in entries:
            found[_free(names.get(id(entry), word), found)] = weakref.ref(entry)
    return found


def _outermost(modules: list[Any], optimizers: list[Any]) -> list[Any]:
    """The modules that are part of no other and hold a parameter that is optimized."""
    trained = {id(p) for one in optimizers for group in one.param_groups for p in group["params"]}
    parts: set[int] = set()
    holders: set[int] = set()
    for module in modules:
        own = vars(module)  # empty while the module is being made
        parts.update(id(part) for part in own.get("_modules", {}).values())
        if any(id(value) in trained for value in own.get("_parameters", {}).values()):
            holders.add(id(module))
    roots = [module for module in modules if id(module) not in parts and "_modules" in vars(module)]
    return [root for root in roots if any(id(part) in holders for part in root.modules())]


def _schedules(schedulers: list[Any], optimizers: list[Any]) -> list[Any]:
    """Those of these optimizers that are part of no other one."""
    parts = {id(p) for one in schedulers for p in vars(one).get("_schedulers", ())}
    return [
        one
        for one in schedulers
        if id(one) not in parts and any(vars(one).get("optimizer") is o for o in optimizers)
    ]


def _names(frame: FrameType | None, wanted: set[int]) -> dict[int, str]:
    names: dict[int, str] = {}
    for _ in range(_FRAMES):
        if frame is None or len(names) == len(wanted):
            break
        # Those of a library are called what the library calls them, for one `self`.
        if "-packages" not in frame.f_code.co_filename:
            for name, value in _variables(frame):
                if id(value) in wanted and id(value) not in names and not hasattr(State, name):
                    names[id(value)] = name
        frame = frame.f_back
    return names


def _variables(frame: FrameType) -> Iterator[tuple[str, object]]:
    """Variables by name, and attributes of the object whose method this is."""
    variables: Mapping[str, object] = frame.f_locals
    entries = list(variables.items())
    if _COPIES and frame.f_code.co_flags & inspect.CO_OPTIMIZED and isinstance(variables, dict):
        variables.clear()
    for name, value in entries:
        if name != "self":
            yield name, value
        else:
            attributes = getattr(value, "__dict__", {})
            yield from list(attributes.items())
            yield from list(attributes.get("_modules", {}).items())
    if frame.f_code.co_name != "<module>":
        yield from list(frame.f_globals.items())


def _free(name: str, taken: Mapping[str, object]) -> str:
    number, free = 1, name
    while free in taken:
        number += 1
        free = f"{name}{number}"
    return free
