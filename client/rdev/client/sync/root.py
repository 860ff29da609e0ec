"""Workspaces on the laptop: where they begin, and what tells them apart.

root   nearest ancestor with rdev.toml, [tool.rdev], .git or pyproject.toml, else the folder
id     [workspace] id, else git's first commit + path in the repository, else laptop + path
path   [workspace] path, its folder on the host; else the host chooses
links  [workspace] links, which the host makes in that folder
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import stat
import subprocess
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from blake3 import blake3

from rdev.client.folders import CACHE_VARIABLE, STATE_VARIABLE, movable
from rdev.protocol.errors import ConfigError, WorkspaceRefused
from rdev.protocol.exchange import MAX_LINKS
from rdev.protocol.ids import WORKSPACE_ID
from rdev.protocol.paths import folder_fault, outer_target_fault, path_fault

# Git answers this in milliseconds on most repositories; a laptop on a dead network mount must not
# hang on it.
_GIT_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Workspace:
    """A folder on the laptop that is synced.

    Attributes:
        id: Identity, the same on each laptop that has the same repository.
        name: Name for people: the folder's.
        root: Absolute path, without links.
        folder: Where on the host it is to lie, as configured; empty lets the host choose.
        links: Links that the host makes in that folder, path to absolute target.
    """

    id: str
    name: str
    root: str
    folder: str = ""
    links: Mapping[str, str] = field(default_factory=dict, hash=False)


def find_workspace(path: str) -> Workspace:
    """The workspace that holds `path`.

    Args:
        path: A folder, or a script in it.

    Raises:
        WorkspaceRefused: Its root may not be a workspace.
        ConfigError: Its configuration cannot be read.
    """
    start = os.path.realpath(path)
    folder = start if os.path.isdir(start) else os.path.dirname(start)
    root = _root_of(folder)
    refuse_unsafe_root(root)
    table = _configured(root)
    chosen = _configured_id(table, root)
    return Workspace(
        chosen or _git_id(root) or _laptop_path_id(root),
        os.path.basename(root),
        root,
        folder=_configured_folder(table, root),
        links=_configured_links(table, root),
    )


def workspace_for_script(script: str, here: str) -> Workspace:
    """The workspace that a script runs in: where the person stands, or else the script's own.

    Args:
        script: Path of the script.
        here: The person's current folder; it decides if its tree is marked as a workspace.

    Raises:
        WorkspaceRefused: Its root may not be a workspace.
        ConfigError: Its configuration cannot be read.
    """
    root = _root_of(os.path.realpath(here))
    return find_workspace(here if _is_marked(root) else script)


# As /tmp has it: others write there, too, and may not remove what is not theirs.
_EVERYBODYS = stat.S_ISVTX | stat.S_IWOTH


def require_marked(workspace: Workspace) -> None:
    """Refuses a folder that nothing marks as a workspace: any folder at all may be current.

    Raises:
        WorkspaceRefused: Its root has none of the marks.
    """
    if not _is_marked(workspace.root):
        cause = f"it has no {', '.join(_MARKERS)}"
        hint = "`rdev init` makes it one"
        raise WorkspaceRefused(f"sync {workspace.root} as a workspace", cause, hint=hint)


def refuse_unsafe_root(root: str) -> None:
    """Refuses a folder that holds far more than a project.

    Raises:
        WorkspaceRefused: It is `/`, a home folder, one that all write into, or holds `.ssh`.
    """
    action = f"use {root} as a workspace"
    if not os.path.isdir(root):
        raise WorkspaceRefused(action, "it is no folder")
    if os.path.realpath(root) == "/":
        raise WorkspaceRefused(action, "it is the root of the file system")
    if os.path.realpath(root) == os.path.realpath(os.path.expanduser("~")):
        raise WorkspaceRefused(action, "it is your home folder")
    if os.stat(root).st_mode & _EVERYBODYS == _EVERYBODYS:
        raise WorkspaceRefused(action, "everybody keeps files in it")
    if os.path.lexists(os.path.join(root, ".ssh")):
        raise WorkspaceRefused(action, "it holds a .ssh folder")


def client_id() -> str:
    """Identity of this laptop for this user, made at first use.

    Raises:
        OSError: It can be neither read nor made.
    """
    base = os.environ.get("XDG_STATE_HOME") or os.path.expanduser("~/.local/state")
    path = os.path.join(base, "rdev", "client-id")
    try:
        with movable(STATE_VARIABLE):
            if found := _read(path).strip():
                return found
            os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return _read(path).strip() or "laptop"
    with os.fdopen(descriptor, "w") as file:
        file.write(secrets.token_hex(8))
    return _read(path)


def cache_folder() -> str:
    """Folder of what can be computed anew, 0700, made if need be.

    Raises:
        OSError: It cannot be made.
    """
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    path = os.path.join(base, "rdev")
    with movable(CACHE_VARIABLE):
        os.makedirs(path, mode=0o700, exist_ok=True)
    return path


def _root_of(folder: str) -> str:
    current = folder
    while True:
        if _is_marked(current):
            return current
        above = os.path.dirname(current)
        if above == current:
            return folder
        current = above


def _is_marked(folder: str) -> bool:
    return any(os.path.lexists(os.path.join(folder, name)) for name in _MARKERS)


# `[tool.rdev]` lies in a pyproject.toml, which is a marker with or without it.
_MARKERS = ("rdev.toml", ".git", "pyproject.toml")


def _configured(root: str) -> dict[str, Any]:
    """The table `[workspace]` of the workspace's file."""
    found = _table(os.path.join(root, "rdev.toml")).get("workspace", {})
    if not found:
        project = _table(os.path.join(root, "pyproject.toml"))
        found = project.get("tool", {}).get("rdev", {}).get("workspace", {})
    return found if isinstance(found, dict) else {}


def _configured_id(table: Mapping[str, Any], root: str) -> str:
    chosen = table.get("id", "")
    if chosen and (not isinstance(chosen, str) or not WORKSPACE_ID.fullmatch(chosen)):
        raise ConfigError(
            f"read the workspace's id in {root}",
            f"{chosen!r} does not match {WORKSPACE_ID.pattern}",
        )
    return str(chosen)


def _configured_folder(table: Mapping[str, Any], root: str) -> str:
    chosen = table.get("path", "")
    action = f"read the workspace's path in {root}"
    if not isinstance(chosen, str):
        raise ConfigError(action, f"{chosen!r} is no path")
    if fault := folder_fault(chosen):
        raise ConfigError(action, f"{chosen!r}: {fault}")
    return chosen


def _configured_links(table: Mapping[str, Any], root: str) -> dict[str, str]:
    chosen = table.get("links", {})
    action = f"read the workspace's links in {root}"
    if not isinstance(chosen, dict) or len(chosen) > MAX_LINKS:
        raise ConfigError(action, f"they are a table of at most {MAX_LINKS} names and targets")
    for path, target in chosen.items():
        if not isinstance(target, str):
            raise ConfigError(
                action, f"{path!r}: {target!r} is no path; quote names that have a dot"
            )
        if fault := path_fault(path) or outer_target_fault(target):
            raise ConfigError(action, f"{path!r}: {fault}")
    return dict(chosen)


def _table(path: str) -> dict[str, Any]:
    try:
        with open(path, "rb") as file:
            return tomllib.load(file)
    except FileNotFoundError:
        return {}
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"read {path}", str(error)) from error


def _git_id(root: str) -> str:
    """Identity by git's first commit; "" without git, a commit, or with a shallow clone only."""
    git = _git_folder(root)
    if git is None:
        return ""
    known = _known_ids()
    key = f"{root}:{os.stat(git).st_ino}"
    if key in known:
        return known[key]
    shallow = _git(root, "rev-parse", "--is-shallow-repository")
    roots = _git(root, "rev-list", "--max-parents=0", "HEAD").split() if shallow == "false" else []
    if not roots:
        return ""
    inside = _git(root, "rev-parse", "--show-prefix").rstrip("/")
    found = _hashed("git", roots[-1], inside)
    _remember_id({**known, key: found})
    return found


def _git_folder(root: str) -> str | None:
    current = root
    while True:
        path = os.path.join(current, ".git")
        if os.path.exists(path):
            return path
        above = os.path.dirname(current)
        if above == current:
            return None
        current = above


def _git(root: str, *words: str) -> str:
    environment = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}
    try:
        done = subprocess.run(  # words are ours; no shell
            ["git", "-C", root, *words],
            capture_output=True,
            timeout=_GIT_SECONDS,
            check=False,
            env=environment,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.decode(errors="replace").strip() if done.returncode == 0 else ""


def _known_ids() -> dict[str, str]:
    # Finding the first commit walks all history, which takes seconds on a large repository.
    try:
        found = json.loads(_read(os.path.join(cache_folder(), "identities.json")) or "{}")
    except (OSError, ValueError):
        return {}
    pairs = found.items() if isinstance(found, dict) else ()
    return {str(key): str(value) for key, value in pairs if WORKSPACE_ID.fullmatch(str(value))}


def _remember_id(known: dict[str, str]) -> None:
    with contextlib.suppress(OSError):  # a cache that cannot be written costs time, and no more
        path = os.path.join(cache_folder(), "identities.json")
        temporary = f"{path}.{os.getpid()}"
        with open(temporary, "w") as file:
            json.dump(known, file)
        os.replace(temporary, path)


def _laptop_path_id(root: str) -> str:
    return _hashed("path", client_id(), root)


def _hashed(*words: str) -> str:
    return blake3("\0".join(words).encode(errors="surrogateescape")).hexdigest()[:16]


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8") as file:
            return file.read()
    except FileNotFoundError:
        return ""
