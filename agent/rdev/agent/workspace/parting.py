"""Leaves a folder that a person named: what rdev keeps there goes, the files stay."""

from __future__ import annotations

import os

from rdev.agent.workspace.beneath import Root
from rdev.agent.workspace.links import remove_links
from rdev.agent.workspace.own import OWN, read_marker


def is_parted(folder: str, workspace_id: str) -> bool:
    """True if there is nothing of that workspace in a folder, which may be gone."""
    marker = read_marker(folder)
    return marker is None or marker.id != workspace_id


def part(folder: str) -> list[str]:
    """Removes the links that we made; what is left of ours then is one folder.

    Args:
        folder: One that `is_parted` denies.

    Returns:
        Our own folder in it, then the links that are gone; absolute.

    Raises:
        OSError: A link could not be removed.
    """
    with Root(folder) as root:
        links = remove_links(root)
    return [os.path.join(folder, name) for name in (OWN, *links)]
