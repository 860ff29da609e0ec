"""Where the folders of workspaces lie: where a person said, or else below the state folder.

    <home>/workspaces/<name>-<id>/       chosen by the agent
    <records>/<id>.json                  {"format": 1, "folder": ..., "former": [...]}: said by a
                                         person, and used; `former` are those before it

The records are a machine's own: a home that many machines share may name different disks.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass

from rdev.agent.workspace.beneath import is_below
from rdev.agent.workspace.own import read_marker
from rdev.protocol.errors import SyncFailed, WorkspaceRefused, os_failure
from rdev.protocol.ids import WORKSPACE_ID
from rdev.protocol.paths import folder_fault
from rdev.wire.blocks import read_file, write_file

# Of the name in a folder's name: enough to recognise it, and a path of a job stays short.
MAX_NAME = 40

# A workspace is moved once or twice in its life; whoever does it for ever leaves traces.
_MOST_FORMER = 50

_HINT = "name another folder as `[workspace] path`, or none"


@dataclass(frozen=True, slots=True)
class Place:
    """A folder for a workspace.

    Attributes:
        path: Where it is, without links.
        is_named: A person named it.
        asked: The path as it was named, made absolute; it may lead through links.
    """

    path: str
    is_named: bool = False
    asked: str = ""


class Places:
    """The folders of all workspaces of one home, on one machine."""

    def __init__(self, home: str, records: str) -> None:
        """Opens them.

        Args:
            home: The agent's state folder.
            records: Folder for the records, which is made if need be.

        Raises:
            OSError: The folders cannot be made.
        """
        self._home = os.path.realpath(home)
        self._folder = os.path.join(home, "workspaces")
        self._records = records
        for path in (self._folder, self._records):
            os.makedirs(path, mode=0o700, exist_ok=True)

    def find(self, workspace_id: str) -> Place | None:
        """Where the workspace was synced to last; None if it never was."""
        if named := self._recorded(workspace_id):
            return Place(named, is_named=True)
        for path in self._chosen():
            marker = read_marker(path) if path.endswith(f"-{workspace_id}") else None
            if marker is not None and marker.id == workspace_id:
                return Place(path)
        return None

    def choose(self, workspace_id: str, name: str) -> Place:
        """A place of our own for a workspace that has none."""
        safe = re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.")[:MAX_NAME] or "workspace"
        return Place(os.path.join(self._folder, f"{safe}-{workspace_id}"))

    def named(self, workspace_id: str, folder: str) -> Place:
        """The place that a person named.

        Args:
            workspace_id: For which workspace.
            folder: Absolute, or below the login's home, with or without `~/`.

        Raises:
            WorkspaceRefused: It may not be a workspace's folder.
        """
        action = f"use {folder!r} as the workspace's folder"
        if fault := folder_fault(folder):
            raise WorkspaceRefused(action, fault, hint=_HINT)
        login = os.path.expanduser("~")
        asked = os.path.normpath(os.path.join(login, os.path.expanduser(folder)))
        real = os.path.realpath(asked)
        keys = os.path.realpath(os.path.join(login, ".ssh"))
        fault = place_fault(real, login=os.path.realpath(login), keys=keys, state=self._home)
        fault = fault or _folder_fault(real) or self._neighbour_fault(real, workspace_id)
        if fault:
            shown = f"{folder!r}, which is {real}," if real != folder else repr(folder)
            raise WorkspaceRefused(f"use {shown} as the workspace's folder", fault, hint=_HINT)
        return Place(real, is_named=True, asked=asked)

    def remember(self, workspace_id: str, place: Place) -> None:
        """Notes where the workspace is now.

        Raises:
            DiskFull, SyncFailed: It could not be written.
        """
        if not place.is_named or self._recorded(workspace_id) == place.path:
            return
        used = [path for path in self._named_by(workspace_id) if path != place.path]
        body = {"format": 1, "folder": place.path, "former": used[:_MOST_FORMER]}
        try:
            write_file(self._record(workspace_id), body)
        except OSError as error:
            raise os_failure("note the workspace's folder", error, otherwise=SyncFailed) from error

    def folders(self) -> Iterator[str]:
        """All folders that exist."""
        yield from self._chosen()
        for _, path in self._all_recorded():
            if os.path.isdir(path) and not os.path.islink(path):
                yield path

    def _chosen(self) -> list[str]:
        names = sorted(os.listdir(self._folder))
        paths = [os.path.join(self._folder, name) for name in names]
        return [path for path in paths if os.path.isdir(path) and not os.path.islink(path)]

    def _neighbour_fault(self, real: str, workspace_id: str) -> str | None:
        """Why a folder would collide with another workspace's; None if it does not."""
        above = real
        while True:
            marker = read_marker(above)
            if marker is not None and marker.id != workspace_id:
                owner = f", synced last by {marker.owner}" if marker.owner else ""
                where = "it is" if above == real else f"it lies in {above},"
                return f"{where} the folder of the workspace {marker.name or marker.id}{owner}"
            if above == "/":
                break
            above = os.path.dirname(above)
        for other, path in self._all_recorded():
            marker = read_marker(path) if is_below(path, real) and path != real else None
            if other != workspace_id and marker is not None and marker.id == other:
                return f"it holds the folder of another workspace, {path}"
        return None

    def _all_recorded(self) -> Iterator[tuple[str, str]]:
        for name in sorted(os.listdir(self._records)):
            workspace_id, ending = os.path.splitext(name)
            if ending == ".json" and (path := self._recorded(workspace_id)):
                yield workspace_id, path

    def _recorded(self, workspace_id: str) -> str:
        """The folder in a record; empty if there is none that can be read."""
        return next(iter(self._named_by(workspace_id)), "")

    def _named_by(self, workspace_id: str) -> list[str]:
        """The folders in a record, the present one first."""
        if not WORKSPACE_ID.fullmatch(workspace_id):
            return []
        return _folders_in(self._record(workspace_id))

    def _record(self, workspace_id: str) -> str:
        return os.path.join(self._records, f"{workspace_id}.json")


def named_folders(records: str) -> Iterator[tuple[str, str]]:
    """Id and folder of each workspace that has, or had, one that a person named.

    Args:
        records: Folder of the records of one machine; it may not exist.
    """
    try:
        names = sorted(os.listdir(records))
    except FileNotFoundError:
        return
    for name in names:
        workspace_id, ending = os.path.splitext(name)
        if ending == ".json" and WORKSPACE_ID.fullmatch(workspace_id):
            for folder in _folders_in(os.path.join(records, name)):
                yield workspace_id, folder


def _folders_in(record: str) -> list[str]:
    """The folders that a record names, the present one first; none if it cannot be read."""
    try:
        body = read_file(record)
    except (OSError, ValueError):
        return []
    former = body.get("former", [])
    named = [body.get("folder", ""), *(former if isinstance(former, list) else [])]
    return [path for path in named if isinstance(path, str) and path]


def place_fault(real: str, *, login: str, keys: str, state: str) -> str | None:
    """Why a path, as such, may not be a workspace's folder; None if it may.

    Args:
        real: The path, without links.
        login: The login's home, likewise.
        keys: Its folder of keys, likewise.
        state: The agent's state folder, likewise.
    """
    if real == "/":
        return "it is the root of the file system"
    if real == login:
        return "it is the home folder"
    if is_below(login, real):
        return "it holds the home folder"
    if is_below(real, keys):
        return "it lies in ~/.ssh"
    if is_below(real, state):
        return "it lies in rdev's own state"
    if is_below(state, real):
        return "it holds rdev's own state"
    return None


def _folder_fault(real: str) -> str | None:
    """Why what lies at a path may not be a workspace's folder; None if it may."""
    try:
        status = os.stat(real, follow_symlinks=False)
    except FileNotFoundError:
        return None
    except OSError as error:
        return error.strerror or str(error)
    if not os.path.isdir(real):
        return "it is no folder"
    if status.st_uid != os.geteuid():
        return "it belongs to another user"
    if os.path.lexists(os.path.join(real, ".ssh")):
        return "it holds a .ssh folder"
    return None
