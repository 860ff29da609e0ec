"""Entries of ours in `.vscode/launch.json`: put in, renewed, taken out; the rest stays as it is.

An entry is ours by its presentation group, which VS Code shows as a group of the list and keeps.
The text is edited, not written anew, so comments and layout stay; taking out undoes putting in.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from rdev.client.debug.jsonc import JsoncError, Node, parse

_GROUP = "rdev"

_HEAD = "// Made by `rdev debug --write`; `rdev debug --write --remove` takes it away.\n"
_EMPTY = _HEAD + '{\n    "version": "0.2.0",\n    "configurations": []\n}\n'
# An array that we made, so that it goes with what is in it.
_OURS = " // rdev"

_LISTS = ("compounds", "configurations")


def entry(name: str, port: int) -> dict[str, Any]:
    """A configuration that attaches to a port of this machine."""
    return {
        "name": f"rdev: {name}",
        "type": "debugpy",
        "request": "attach",
        "connect": {"host": "127.0.0.1", "port": port},
        "justMyCode": False,
        "presentation": {"group": _GROUP},
    }


def merged(text: str | None, ports: Mapping[str, int], *, stamp: str) -> str:
    """The file with entries for these ports, and none of ours for others.

    Args:
        text: The file as it is; None if there is none.
        ports: By what is to be attached to, as people name it.
        stamp: When this is written.

    Raises:
        JsoncError: The file cannot be understood, and is to be left alone.
    """
    text = _without_ours(_EMPTY if text is None else text)
    configurations = [entry(name, port) for name, port in ports.items()]
    if len(configurations) > 1:
        names = [configuration["name"] for configuration in configurations]
        compound = {
            "name": "rdev: all ranks",
            "configurations": names,
            "stopAll": False,
            "presentation": {"group": _GROUP},
        }
        text = _with(text, "compounds", [compound], stamp=stamp)
    return _with(text, "configurations", configurations, stamp=stamp)


def without(text: str) -> str | None:
    """The file without entries of ours; None if nothing is left that is not ours.

    Raises:
        JsoncError: The file cannot be understood.
    """
    left = _without_ours(text)
    return None if left == _EMPTY else left


def _with(text: str, key: str, entries: Sequence[Mapping[str, Any]], *, stamp: str) -> str:
    root = _root(text)
    end = "\r\n" if "\r\n" in text else "\n"
    unit = _unit(text, root)
    if key not in root.members:
        comma = "," if root.members else ""
        made = f'{end}{unit}"{key}": [{_OURS}{end}{unit}]{comma}'
        text = text[: root.start + 1] + made + text[root.start + 1 :]
        root = _root(text)
    array = root.members[key]
    if array.kind != "[":
        raise JsoncError(f"its {key!r} are no list")
    blocks = [_block(item, 2 * unit, end, unit, stamp) for item in entries]
    put = "".join(f"{end}{block}," for block in blocks)
    if not array.items:
        put = put[:-1]
        if array.end - array.start == len("[]"):
            put += f"{end}{unit}"
    place = array.start + 1
    if text.startswith(_OURS, place):
        place += len(_OURS)
    return text[:place] + put + text[place:]


def _block(item: Mapping[str, Any], indent: str, end: str, unit: str, stamp: str) -> str:
    lines = json.dumps(item, indent=unit, ensure_ascii=False).split("\n")
    lines[0] += f" // written by rdev, {stamp}"
    return end.join(indent + line for line in lines)


def _without_ours(text: str) -> str:
    for key in _LISTS:
        root = _root(text)
        array = root.members.get(key)
        if array is None or array.kind != "[":
            continue
        for item in reversed(array.items):
            if item.get("presentation", "group") == _GROUP:
                text = _cut(text, item)
        text = _tidied(text, key)
    return text


def _cut(text: str, item: Node) -> str:
    """The text without an element, the space before it, and the comma after it."""
    start = len(text[: item.start].rstrip(" \t\r\n"))
    end = item.end + 1 if text.startswith(",", item.end) else item.end
    return text[:start] + text[end:]


def _tidied(text: str, key: str) -> str:
    """What putting into an empty list, or making one, left beside the entries."""
    root = _root(text)
    array = root.members[key]
    if array.items:
        return text
    inner = text[array.start + 1 : array.end - 1]
    if not inner.startswith(_OURS):
        is_blank = not inner.strip()
        kept = "" if is_blank and inner.strip(" \t") in ("\n", "\r\n") else inner
        return text[: array.start + 1] + kept + text[array.end - 1 :]
    start = len(text[: text.rindex(f'"{key}"', 0, array.start)].rstrip(" \t\r\n"))
    end = array.end + 1 if text.startswith(",", array.end) else array.end
    return text[:start] + text[end:]


def _root(text: str) -> Node:
    root = parse(text)
    if root.kind != "{":
        raise JsoncError("it is no object")
    return root


def _unit(text: str, root: Node) -> str:
    """How the file indents."""
    line = text[root.start + 1 :].lstrip("\r\n")
    indent = line[: len(line) - len(line.lstrip(" \t"))]
    return indent or "    "
