"""Takes rdev off this machine: refuses while something would be lost, then leaves nothing behind.

look --> jobs live, or outputs that nobody has? --refused, all named--> nothing was touched
           '-- no --> the agent is ended --> looked again --> its folders are removed
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rdev.agent import lifecycle
from rdev.agent.jobs.store import JobStore
from rdev.agent.workspace.outputs import outputs_of
from rdev.protocol.errors import JobConflict, OutputsLeft, os_failure
from rdev.wire.home import Home, check_private

# What an agent makes in its home; whatever else lies there is not ours.
_SHARED = ("workspaces", "store", "envs", "dist")

# A person reads the first few, and how many more there are.
_MOST_NAMED = 10

_ACTION = "remove rdev from this machine"


@dataclass(frozen=True, slots=True)
class Removed:
    """What is gone.

    Attributes:
        paths: The folders, absolute.
        size: Bytes that they took.
        kept: What stays because other machines use it too; in words, empty if nothing does.
    """

    paths: tuple[str, ...]
    size: int
    kept: str = ""


def leave(home: Home, *, discard: bool) -> Removed:
    """Ends the agent and removes all it ever wrote here.

    Args:
        home: The agent's home.
        discard: Outputs that no laptop has may go too.

    Raises:
        JobConflict: Jobs live; they are named.
        OutputsLeft: Files would be lost; they are named.
        TimedOut: The agent does not end.
        RdevError: A folder could not be removed.
    """
    if not os.path.isdir(home.root):
        return Removed((), 0)
    try:
        check_private(home.root)
        _require_leavable(home, discard=discard)
        # Whoever has the lock ends, and while we have it no other agent begins.
        with lifecycle.locked(home, replacing=True):
            _require_leavable(home, discard=discard)  # what was started in between
            return _remove(home)
    except OSError as error:
        raise os_failure(_ACTION, error) from error


def _require_leavable(home: Home, *, discard: bool) -> None:
    live = [
        accepted.name
        for accepted, status in JobStore(home.jobs).load()
        if not status.state.is_final
    ]
    if live:
        hint = "`rdev wait JOB` waits for one, `rdev stop JOB` ends it"
        raise JobConflict(_ACTION, f"jobs live: {_named(live)}", hint=hint)
    if not discard and not _others(home):
        outputs = list(_outputs(home))
        if outputs:
            raise OutputsLeft(_ACTION, f"only this machine has {_named(outputs)}")


def _outputs(home: Home) -> Iterator[str]:
    folder = os.path.join(home.root, "workspaces")
    for name in sorted(os.listdir(folder)) if os.path.isdir(folder) else ():
        path = os.path.join(folder, name)
        if os.path.isdir(path) and not os.path.islink(path):
            yield from (os.path.join(path, output.path) for output in outputs_of(path))


def _named(things: Sequence[str]) -> str:
    more = len(things) - _MOST_NAMED
    shown = ", ".join(things[:_MOST_NAMED])
    return f"{shown} and {more} more" if more > 0 else shown


def _others(home: Home) -> list[str]:
    """Other machines whose agents use the same home, over a network file system."""
    with contextlib.suppress(FileNotFoundError):
        return [name for name in os.listdir(os.path.dirname(home.host)) if name != home.machine_id]
    return []


def _remove(home: Home) -> Removed:
    others = _others(home)
    # What is live may lie on a local disk; nobody finds that any more once the home is gone.
    own = [home.host] if home.live == home.host else [home.live, home.host]
    paths = own if others else [*own, *_shared(home)]
    size = sum(map(_size, paths))
    for path in paths:
        shutil.rmtree(path)
    if others:
        kept = f"{home.root}, which {len(others)} other machines use too"
        return Removed(tuple(paths), size, kept)
    with contextlib.suppress(OSError):  # somebody keeps other things there
        os.rmdir(os.path.dirname(home.host))
        os.rmdir(home.root)
    return Removed(tuple(paths), size)


def _shared(home: Home) -> list[str]:
    found = (os.path.join(home.root, name) for name in _SHARED)
    return [path for path in found if os.path.isdir(path)]


def _size(folder: str) -> int:
    total = 0
    for place, _, files in os.walk(folder):
        for name in files:
            with contextlib.suppress(FileNotFoundError):
                total += os.lstat(os.path.join(place, name)).st_blocks * 512
    return total
