"""The lock file of a workspace, and what its contents make an environment's identity."""

from __future__ import annotations

import hashlib
import os
import platform
import re
import sysconfig
import tomllib
from dataclasses import dataclass
from fnmatch import fnmatch

from rdev.protocol.errors import EnvironmentFailed

# Raised whenever what is made of the same files becomes something else.
_FORMAT = "1"

_ACTION = "make the environment"

# Strongest first: what pins everything beats what pins little.
UV_LOCK, PYLOCK, REQUIREMENTS = "uv.lock", "pylock.toml", "requirements.txt"
_REQUIREMENTS = "requirements*.txt"

# A requirements file may take in others; those that it names count as its contents.
_INCLUDED = re.compile(r"^\s*(?:-r|--requirement|-c|--constraint)[ =]?\s*(\S+)", re.MULTILINE)

# A package that lies in the workspace: such an environment serves that workspace alone.
_LOCAL = re.compile(r"""^\s*(?:-e\s|--editable[ =]|\.{1,2}/|/|file:)|(?:@\s*file:)""", re.MULTILINE)
_LOCAL_IN_LOCK = re.compile(r"""(?:editable|directory|path)\s*=\s*"(?!\."\s*\})""")


@dataclass(frozen=True, slots=True)
class Lock:
    """What an environment is made from.

    Attributes:
        file: The lock file's name in the workspace: `uv.lock`, `pylock.toml`, or a requirements
            file.
        folder: The workspace's folder.
        python: Which Python it wants: a version, a path, or empty for what there is.
        digest: Names its contents, the Python and the platform.
    """

    file: str
    folder: str
    python: str
    digest: str


def read_lock(folder: str, *, python: str, fallback: str) -> Lock:
    """Finds and reads the lock file of a workspace; some milliseconds.

    Args:
        folder: The workspace's folder.
        python: The interpreter or version that is configured; may be empty.
        fallback: The login's Python, which is taken where the workspace does not say either.

    Raises:
        EnvironmentFailed: There is none, there are several, or it cannot be read.
    """
    name = lock_name(os.listdir(folder))
    try:
        contents = _contents(folder, name)
        wanted = python or _pinned(folder) or ("" if name == UV_LOCK else fallback)
        body = [_FORMAT, name, _version_of(wanted or fallback), wanted, _platform(), *contents]
        if _is_local(name, contents):
            body.append(folder)
    except (OSError, UnicodeDecodeError) as error:
        raise EnvironmentFailed(_ACTION, f"{name}: {error}") from error
    digest = hashlib.sha256("\0".join(body).encode()).hexdigest()[:20]
    return Lock(name, folder, wanted, digest)


def lock_name(names: list[str]) -> str:
    """The lock file among a workspace's files.

    Raises:
        EnvironmentFailed: There is none, or nobody can say which is meant.
    """
    for name in (UV_LOCK, PYLOCK, REQUIREMENTS):
        if name in names:
            return name
    found = sorted(name for name in names if fnmatch(name, _REQUIREMENTS))
    if len(found) == 1:
        return found[0]
    hint = "add a uv.lock, a pylock.toml or a requirements.txt, or leave out `manage`"
    if found:
        hint = "call the one that is meant requirements.txt"
    cause = f"there are {', '.join(found)}" if found else "the workspace has no lock file"
    raise EnvironmentFailed(_ACTION, cause, hint=hint)


def project_paths(folder: str) -> list[str]:
    """Where a workspace that is a package has its modules: it is not installed, but found there."""
    try:
        with open(os.path.join(folder, "pyproject.toml"), "rb") as file:
            is_package = "build-system" in tomllib.load(file)
    except (OSError, tomllib.TOMLDecodeError):
        return []
    source = os.path.join(folder, "src")
    return [source if os.path.isdir(source) else folder] if is_package else []


def _contents(folder: str, name: str) -> list[str]:
    with open(os.path.join(folder, name), encoding="utf-8") as file:
        text = file.read()
    if name == UV_LOCK:
        return [text, _project(folder)]
    if name == PYLOCK:
        return [text]
    return _with_included(folder, name, text, seen={name})


def _with_included(folder: str, name: str, text: str, *, seen: set[str]) -> list[str]:
    found = [text]
    for included in _INCLUDED.findall(text):
        path = os.path.normpath(os.path.join(os.path.dirname(name), included))
        if path in seen or ":" in path:
            continue
        seen.add(path)
        with open(os.path.join(folder, path), encoding="utf-8") as file:
            found += _with_included(folder, path, file.read(), seen=seen)
    return found


def _project(folder: str) -> str:
    """What of the project file decides about a uv environment beside the lock."""
    try:
        with open(os.path.join(folder, "pyproject.toml"), "rb") as file:
            project = tomllib.load(file)
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise EnvironmentFailed(_ACTION, f"pyproject.toml: {error}") from error
    table = project.get("project", {})
    groups = project.get("tool", {}).get("uv", {}).get("default-groups")
    return repr((table.get("requires-python"), project.get("dependency-groups"), groups))


def _pinned(folder: str) -> str:
    """What .python-version says, as pyenv and uv read it."""
    try:
        with open(os.path.join(folder, ".python-version"), encoding="utf-8") as file:
            lines = [line.strip() for line in file]
    except FileNotFoundError:
        return ""
    return next((line for line in lines if line and not line.startswith("#")), "")


def _version_of(python: str) -> str:
    """What tells a Python from the one that replaces it at the same place."""
    return os.path.realpath(python) if "/" in python else python


def _platform() -> str:
    # One home may be shared by machines of different kinds.
    return "-".join([sysconfig.get_platform(), *platform.libc_ver()])


def _is_local(name: str, contents: list[str]) -> bool:
    pattern = _LOCAL_IN_LOCK if name in (UV_LOCK, PYLOCK) else _LOCAL
    return any(pattern.search(text) for text in contents)
