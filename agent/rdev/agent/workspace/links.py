"""The links that a person asked for: made in the workspace's folder, and never followed by us.

.rdev/links.json    {"format": 1, "links": {path: target}, "folders": [path]}: those we made, and
                    the folders that we made for them; both we may remove

What lies at a link's path and is not ours is left alone, whatever it is.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Collection, Iterable, Iterator, Mapping

from rdev.agent.workspace.beneath import Root
from rdev.agent.workspace.own import read_own, write_own
from rdev.protocol.snapshot import Problem, ProblemKind

RECORD = ".rdev/links.json"


def apply_links(root: Root, wanted: Mapping[str, str]) -> list[Problem]:
    """Makes the wanted links, and removes those of ours that are wanted no more.

    Args:
        root: The workspace's folder.
        wanted: Path to target; both have passed the rules of `rdev.protocol.paths`.

    Returns:
        What a person should know: links that could not be made, and targets that do not exist.

    Raises:
        OSError: Our record of them could not be written, or one of ours not removed.
    """
    root.forget()  # A job may have moved directories.
    ours, folders = _read(root)
    for path, target in ours.items():
        if wanted.get(path) != target and _leads_to(root, path, target):
            root.remove(path)
    kept = _remove_folders(root, folders, wanted)
    new = {path: target for path, target in wanted.items() if root.status(path) is None}
    still = {path: target for path, target in wanted.items() if ours.get(path) == target}
    kept |= {each for path in new for each in _above(path) if root.status(each) is None}
    # Noted first: a link that was made and not noted would never be removed.
    if ({**still, **new}, kept) != (ours, folders):
        body = {"format": 1, "links": {**still, **new}, "folders": sorted(kept)}
        write_own(root, RECORD, body)
    problems = []
    for path, target in sorted(wanted.items()):
        fault = _make(root, path, target) if path in new else _fault(root, path, target)
        if fault:
            message = f"the link to {target} is not made: {fault}"
            problems.append(Problem(path, ProblemKind.LINK_KEPT_OUT.value, message))
        elif not os.path.exists(target):
            message = f"links to {target}, which does not exist on the host"
            problems.append(Problem(path, ProblemKind.LINK_DANGLES.value, message))
    return problems


def remove_links(root: Root) -> list[str]:
    """Removes the links that we made and that still lead where they led; returns their paths.

    Raises:
        OSError: One could not be removed.
    """
    ours, folders = _read(root)
    found = [path for path, target in ours.items() if _leads_to(root, path, target)]
    for path in found:
        root.remove(path)
    _remove_folders(root, folders, ())
    return found


def _read(root: Root) -> tuple[dict[str, str], set[str]]:
    """The links that we made, and the folders that we made for them."""
    body = read_own(root, RECORD)
    found, folders = body.get("links"), body.get("folders")
    pairs = found.items() if isinstance(found, dict) else ()
    made = folders if isinstance(folders, list) else ()
    return (
        {path: target for path, target in pairs if isinstance(target, str)},
        {path for path in made if isinstance(path, str)},
    )


def _above(path: str) -> Iterator[str]:
    """The folders that a path leads through."""
    parts = path.split("/")
    yield from ("/".join(parts[:count]) for count in range(1, len(parts)))


def _remove_folders(root: Root, folders: Collection[str], wanted: Iterable[str]) -> set[str]:
    """Removes those of our folders that no link needs; returns the others.

    One that holds something is somebody's by now.
    """
    needed = {folder for path in wanted for folder in _above(path)}
    for folder in sorted(set(folders) - needed, reverse=True):
        with contextlib.suppress(OSError):
            root.remove_directory(folder)
    return needed.intersection(folders)


def _leads_to(root: Root, path: str, target: str) -> bool:
    status = root.status(path)
    is_link = status is not None and stat.S_ISLNK(status.st_mode)
    return is_link and root.link_target(path) == target


def _fault(root: Root, path: str, target: str) -> str:
    """Why what lies at the path cannot stand for the link; empty if it can."""
    if _leads_to(root, path, target):
        return ""
    status = root.status(path)
    kind = "a file"
    if status is not None and stat.S_ISDIR(status.st_mode):
        kind = "a folder"
    elif status is not None and stat.S_ISLNK(status.st_mode):
        kind = f"a link to {root.link_target(path)}"
    return f"{kind} of that name lies there, and stays"


def _make(root: Root, path: str, target: str) -> str:
    """Makes a link; returns why it could not be made."""
    parent = path.rpartition("/")[0]
    try:
        if parent:
            root.make_directories(parent)
        root.make_link(target, path)
    except OSError as error:
        where = f"{parent} is no folder, or a link" if parent else "it cannot be written"
        return f"{where} ({error.strerror})"
    return ""
