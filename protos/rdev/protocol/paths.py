"""Which paths and link targets may travel: relative, NFC, and never out of the workspace.

Both ends apply these rules: the laptop so that a bad name is a line in the receipt, the agent so
that no message, whoever sent it, names anything outside the workspace's folder.
"""

from __future__ import annotations

import unicodedata

# NAME_MAX of Linux and macOS, in bytes of UTF-8.
MAX_COMPONENT = 255

# PATH_MAX less the closing NUL.
MAX_PATH = 4095

# rdev's own folder at a workspace's root: staging, index, conflict copies, cookies.
RESERVED = ".rdev"


def path_fault(path: str) -> str | None:
    """Why `path` may not travel, as a clause for a person; None if it may.

    Args:
        path: Path relative to the workspace root, with `/`.
    """
    return _text_fault(path) or _component_fault(path)


def target_fault(path: str, target: str) -> str | None:
    """Why a symbolic link at `path` may not point to `target`; None if it may.

    The rule is lexical: no prefix of the target may rise above the root. Nothing of ours follows
    a link of the workspace, so a chain of links that leaves the root leads none of our own
    writes out of it.
    """
    if not target or "\0" in target:
        return "its target is empty or has a NUL"
    if target.startswith("/"):
        return "its target is absolute"
    if fault := _text_fault(target):
        return f"of its target: {fault}"
    depth = path.count("/")
    for part in target.split("/"):
        depth += {"..": -1, ".": 0, "": 0}.get(part, 1)
        if depth < 0:
            return "its target lies outside the workspace"
    return None


def outer_target_fault(target: str) -> str | None:
    """Why a link that a person asked for may not point to `target`; None if it may.

    Such a link leads to data outside of the workspace, so it names its place there in full.
    """
    if not target or not target.startswith("/"):
        return "its target is not absolute"
    if fault := _text_fault(target):
        return f"of its target: {fault}"
    return None


def folder_fault(folder: str) -> str | None:
    """Why a workspace's folder on the host may not be named so; None if it may.

    Args:
        folder: Absolute, or below the home there with or without `~/`.
    """
    if not folder.isprintable():
        return "it has characters that cannot be shown"
    if ".." in folder.split("/"):
        return "it has a component `..`"
    if folder.startswith("~") and folder != "~" and not folder.startswith("~/"):
        return "it names the home of somebody else"
    return _text_fault(folder)


def _text_fault(path: str) -> str | None:
    if path.isascii():
        return "it has a NUL" if "\0" in path else _length_fault(len(path))
    try:
        length = len(path.encode())
    except UnicodeEncodeError:
        return "its name is not valid UTF-8"
    if not unicodedata.is_normalized("NFC", path):
        return "its name is not in Unicode's composed form (NFC)"
    return "it has a NUL" if "\0" in path else _length_fault(length)


def _length_fault(length: int) -> str | None:
    return f"its path is longer than {MAX_PATH} bytes" if length > MAX_PATH else None


def _component_fault(path: str) -> str | None:
    if path.startswith("/"):
        return "it is absolute"
    parts = path.split("/")
    for part in parts:
        if part in ("", ".", ".."):
            return "it has an empty component, `.` or `..`"
        if len(part) > MAX_COMPONENT // 4 and len(part.encode()) > MAX_COMPONENT:
            return f"a component is longer than {MAX_COMPONENT} bytes"
    if parts[0].casefold() == RESERVED:
        return f"{RESERVED} is rdev's own folder"
    return None
