"""rdev's own small files in a workspace's folder, `.rdev/*.json`, and the marker among them.

.rdev/workspace.json    {"format": 1, "id": ..., "name": ..., "owner": who synced last}
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rdev.agent.workspace.beneath import Root

OWN = ".rdev"
MARKER = ".rdev/workspace.json"


@dataclass(frozen=True, slots=True)
class Marker:
    """Whose folder it is.

    Attributes:
        id: Identity of the workspace.
        name: Name for people.
        owner: Who synced to it last, as `user@laptop`; empty if nobody said.
    """

    id: str
    name: str = ""
    owner: str = ""


def read_marker(path: str) -> Marker | None:
    """The marker of a folder; None if it is no workspace's."""
    try:
        with Root(path) as root:
            found = read_own(root, MARKER)
    except OSError:
        return None
    words = [found.get(key, "") for key in ("id", "name", "owner")]
    if not words[0] or not all(isinstance(word, str) for word in words):
        return None
    return Marker(*words)


def write_marker(root: Root, marker: Marker) -> None:
    """Notes which workspace a folder is.

    Raises:
        OSError: It could not be written.
    """
    words = {"id": marker.id, "name": marker.name, "owner": marker.owner}
    write_own(root, MARKER, {"format": 1, **words})


def read_own(root: Root, path: str) -> dict[str, Any]:
    """The object in one of our files; empty if it is missing or damaged."""
    try:
        with root.reading(path) as descriptor, os.fdopen(os.dup(descriptor)) as file:
            found = json.load(file)
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def write_own(root: Root, path: str, body: Mapping[str, Any]) -> None:
    """Replaces one of our files.

    Raises:
        OSError: It could not be written; the old one stands.
    """
    root.make_directories(OWN)
    temporary = path + ".new"
    if root.status(temporary) is not None:
        root.remove(temporary)
    with os.fdopen(root.create(temporary), "w") as file:
        file.write(json.dumps(body))
    root.move(temporary, path)


def hide_from_git(root: Root) -> None:
    """Keeps git on the host from seeing our folder, this file included."""
    with (
        contextlib.suppress(FileExistsError),
        os.fdopen(root.create(f"{OWN}/.gitignore"), "w") as file,
    ):
        file.write("*\n")
