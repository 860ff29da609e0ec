"""Takes rdev off this machine: refuses while something would be lost, then leaves nothing behind.

look --> jobs live, or outputs that nobody has? --refused, all named--> nothing was touched
           '-- no --> the agent is ended --> looked again --> all is removed --> nobody came back?
                              ^                                                     | an agent did
                              '-----------------------------------------------------'
Releases go last, so that whoever was interrupted can do it again.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rdev.agent import lifecycle
from rdev.agent.jobs.store import JobStore
from rdev.agent.local import is_ours
from rdev.agent.removal import remove, size_of
from rdev.agent.workspace.outputs import old_versions, outputs_of
from rdev.agent.workspace.parting import is_parted, part
from rdev.agent.workspace.places import named_folders
from rdev.protocol.errors import AgentBusy, JobConflict, OutputsLeft, os_failure
from rdev.wire.home import Home, check_private, recorded_local

# What an agent makes in its home; whatever else lies there is not ours. Releases come by
# themselves: as long as there is one, all this can be done again.
_SHARED = ("workspaces", "store", "envs")
_RELEASES, _ELSEWHERE = "dist", "dist-folder"

# What is about to be removed is first moved here, all of it at once.
_ASIDE = ".leaving-"

# A person reads the first few, and how many more there are.
_MOST_NAMED = 10

# A client that was connected, or connects just now, brings an agent back; not for ever.
_MOST_ROUNDS = 3

_ACTION = "remove rdev from this machine"


@dataclass(frozen=True, slots=True)
class Removed:
    """What is gone.

    Attributes:
        paths: The folders, and the links in folders that people named, absolute.
        size: Bytes that they took.
        kept: What stays, in words: folders that people named, and what other machines use too;
            empty if nothing does.
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
        AgentBusy: One is started again and again.
        RdevError: Something could not be removed.
    """
    if not os.path.isdir(home.root):
        return Removed((), 0)
    try:
        check_private(home.root)
        _require_leavable(home, discard=discard)
        leaving = _Leaving(home)
        for _ in range(_MOST_ROUNDS):
            recorded = recorded_local(home)
            _end_agent(home)
            # While we have the lock no other agent begins.
            with lifecycle.locked(home, replacing=True):
                _require_leavable(home, discard=discard)  # what was started in between
                leaving.remove(recorded)
            if not os.path.lexists(home.host):
                return leaving.removed
    except OSError as error:
        raise os_failure(_ACTION, error) from error
    hint = "end other `rdev` commands that are connected to this machine, and do it again"
    raise AgentBusy(_ACTION, "somebody starts its agent again and again", hint=hint)


def _end_agent(home: Home) -> None:
    pid = lifecycle.holder(home)
    if pid is not None:
        lifecycle.end(pid)
        lifecycle.call_off_others(home)


def _require_leavable(home: Home, *, discard: bool) -> None:
    live = [
        accepted.name
        for accepted, status in JobStore(home.jobs).load()
        if not status.state.is_final
    ]
    if live:
        hint = "`rdev wait JOB` waits for one, `rdev stop JOB` ends it"
        raise JobConflict(_ACTION, f"jobs live: {_named(live)}", hint=hint)
    outputs = [] if discard else list(_outputs(home))
    if outputs:
        raise OutputsLeft(_ACTION, f"no laptop has {_named(outputs)}")


def _outputs(home: Home) -> Iterator[str]:
    """What nobody would have any more; in a folder that a person named, that is little."""
    for folder in _adopted(home):
        yield from (os.path.join(folder, kept.path) for kept in old_versions(folder))
    if _others(home):
        return
    workspaces = os.path.join(home.root, "workspaces")
    for name in sorted(os.listdir(workspaces)) if os.path.isdir(workspaces) else ():
        folder = os.path.join(workspaces, name)
        if os.path.isdir(folder) and not os.path.islink(folder):
            yield from (os.path.join(folder, output.path) for output in outputs_of(folder))


def _named(things: Sequence[str]) -> str:
    more = len(things) - _MOST_NAMED
    shown = ", ".join(things[:_MOST_NAMED])
    return f"{shown} and {more} more" if more > 0 else shown


def _others(home: Home) -> list[str]:
    """Other machines whose agents use the same home, over a network file system."""
    with contextlib.suppress(FileNotFoundError):
        names = sorted(os.listdir(os.path.dirname(home.host)))
        return [name for name in names if name != home.machine_id]
    return []


def _adopted(home: Home) -> list[str]:
    """Folders that people named, with something of ours in them and of no other machine's."""
    theirs = {
        folder
        for name in _others(home)
        for _, folder in named_folders(os.path.join(os.path.dirname(home.host), name, "places"))
    }
    named = named_folders(os.path.join(home.host, "places"))
    return [path for key, path in named if path not in theirs and not is_parted(path, key)]


class _Leaving:
    """What has been removed so far."""

    def __init__(self, home: Home) -> None:
        self._home = home
        self._paths: dict[str, None] = {}
        self._kept: dict[str, None] = {}
        self._size = 0

    @property
    def removed(self) -> Removed:
        return Removed(tuple(self._paths), self._size, "; ".join(self._kept))

    def remove(self, recorded: str | None) -> None:
        """Removes it all; the caller has the lock.

        Args:
            recorded: Where live state lay before the lock was taken, if not in the home.

        Raises:
            OSError: Something cannot be removed; what is left is found the next time.
        """
        home = self._home
        for folder in _adopted(home):
            own, *links = part(folder)
            self._drop(own)
            self._note(*links)
            self._kept[f"{folder}, which is yours"] = None
        others = _others(home)
        if not others:
            self._move_out(*(os.path.join(home.root, name) for name in _SHARED))
        # Nobody finds a folder any more once what names it is gone.
        for live in {recorded, home.live} - {None, home.host}:
            if live is not None and is_ours(live):
                self._drop(live)
        if others:
            self._move_out(home.host)
            self._keep_shared(others)
            return
        elsewhere = os.path.join(home.root, _ELSEWHERE)
        if (releases := _recorded_releases(elsewhere)) is not None:
            self._drop(releases)
        self._move_out(home.host, os.path.join(home.root, _RELEASES))
        for name in os.listdir(home.root):
            if name.partition(".")[0] == _ELSEWHERE or name.startswith(_ASIDE):
                remove(os.path.join(home.root, name))
        with contextlib.suppress(OSError):  # somebody keeps other things there
            os.rmdir(os.path.dirname(home.host))
            os.rmdir(home.root)

    def _keep_shared(self, others: Sequence[str]) -> None:
        machines = ", ".join(os.path.join("hosts", name) for name in others)
        count = len(others)
        whose = "another machine uses" if count == 1 else f"{count} other machines use"
        self._kept[f"{self._home.root}, which {whose} too ({machines})"] = None

    def _drop(self, path: str) -> None:
        """Removes one thing from where it lies."""
        if not os.path.lexists(path):
            return
        size = size_of([path])
        remove(path)
        self._note(path)
        self._size += size

    def _move_out(self, *paths: str) -> None:
        """Removes things of the home; for everybody else all of them vanish at once."""
        there = [path for path in paths if os.path.lexists(path)]
        if not there:
            return
        size = size_of(there)
        aside = os.path.join(self._home.root, f"{_ASIDE}{secrets.token_hex(4)}")
        os.mkdir(aside, 0o700)
        for path in there:
            os.rename(path, os.path.join(aside, os.path.basename(path)))
        remove(aside)
        self._note(*there)
        self._size += size

    def _note(self, *paths: str) -> None:
        self._paths.update(dict.fromkeys(paths))


def _recorded_releases(record: str) -> str | None:
    """The folder of releases outside of the home; None if there is none that is ours."""
    try:
        with open(record, encoding="utf-8") as file:
            path = file.readline().rstrip("\n")
    except (OSError, UnicodeDecodeError):
        return None
    return path if os.path.isabs(path) and is_ours(path) else None
