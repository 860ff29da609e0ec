"""The pattern language of .gitignore, as regular expressions.

Source of the rules: gitignore(5), and where that is silent the behaviour of git's wildmatch.c: an
unclosed bracket or a trailing backslash makes a pattern that matches nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

_NEVER = r"(?!)"

_CLASSES = {
    "alnum": "a-zA-Z0-9",
    "alpha": "a-zA-Z",
    "blank": r" \t",
    "cntrl": r"\x00-\x1f\x7f",
    "digit": "0-9",
    "graph": r"\x21-\x7e",
    "lower": "a-z",
    "print": r"\x20-\x7e",
    "punct": r"\x21-\x2f\x3a-\x40\x5b-\x60\x7b-\x7e",
    "space": r"\s",
    "upper": "A-Z",
    "xdigit": "a-fA-F0-9",
}


@dataclass(frozen=True, slots=True)
class Pattern:
    """One line of an ignore file.

    Attributes:
        text: As written.
        line: Its number, from 1.
        negated: It re-includes.
        directory_only: It means directories only.
        anchored: It is matched against the path, else against the last component.
        regex: What it matches, as a whole.
    """

    text: str
    line: int
    negated: bool
    directory_only: bool
    anchored: bool
    regex: re.Pattern[str]


def parse(lines: Iterable[str]) -> tuple[Pattern, ...]:
    """The patterns among the lines of an ignore file."""
    numbered = ((number, _stripped(line)) for number, line in enumerate(lines, 1))
    return tuple(
        _pattern(text, number) for number, text in numbered if text and not text.startswith("#")
    )


def _stripped(line: str) -> str:
    """The line without its end and without trailing spaces, unless the last is escaped."""
    line = line.rstrip("\r\n").removeprefix("\ufeff")
    bare = line.rstrip(" ")
    slashes = len(bare) - len(bare.rstrip("\\"))
    return bare + " " if slashes % 2 and len(bare) < len(line) else bare


def _pattern(text: str, number: int) -> Pattern:
    body = text
    negated = body.startswith("!")
    body = body[1:] if negated else body
    directory_only = body.endswith("/") and not body.endswith("\\/")
    body = body[:-1] if directory_only else body
    anchored = "/" in body
    regex = _compiled(body.removeprefix("/"), anchored=anchored)
    return Pattern(text, number, negated, directory_only, anchored, regex)


def _compiled(body: str, *, anchored: bool) -> re.Pattern[str]:
    try:
        source = _path_source(body) if anchored else _segment_source(body)
        return re.compile(source, re.DOTALL)
    except re.error:
        return re.compile(_NEVER)


def _path_source(body: str) -> str:
    """Regular expression of a pattern with slashes."""
    parts = body.split("/")
    source = ""
    for number, part in enumerate(parts):
        last = number == len(parts) - 1
        if len(part) > 1 and not part.strip("*"):
            source += ".+" if last else "(?:.*/)?"
        else:
            source += _segment_source(part) + ("" if last else "/")
    return source


def _segment_source(segment: str) -> str:
    """Regular expression of one component."""
    if not segment:
        return _NEVER
    source, at = "", 0
    while at < len(segment):
        character = segment[at]
        at += 1
        if character == "*":
            source += "" if source.endswith("[^/]*") else "[^/]*"
        elif character == "?":
            source += "[^/]"
        elif character == "[":
            bracket, at = _bracket(segment, at)
            source += bracket
        elif character == "\\":
            if at == len(segment):
                return _NEVER
            source += re.escape(segment[at])
            at += 1
        else:
            source += re.escape(character)
    return source


def _bracket(segment: str, at: int) -> tuple[str, int]:
    """Regular expression of the bracket whose inside begins at `at`, and where it ends."""
    negated = segment[at : at + 1] in ("!", "^")
    start = at = at + negated
    inside = ""
    while at < len(segment) and (segment[at] != "]" or at == start):
        if segment.startswith("[:", at) and (end := segment.find(":]", at)) > 0:
            inside += _CLASSES.get(segment[at + 2 : end], "")
            at = end + 2
            continue
        low, at = _literal(segment, at)
        high = low
        if segment[at : at + 1] == "-" and segment[at + 1 : at + 2] not in ("", "]"):
            high, at = _literal(segment, at + 1)
        # Git compares the lower end by itself too, so it counts in a range that runs backwards.
        inside += re.escape(low) + (f"-{re.escape(high)}" if low <= high else "")
    if at >= len(segment):
        return _NEVER, at
    if not inside:
        return ("[^/]" if negated else _NEVER), at + 1
    return (f"(?!/)[^{inside}]" if negated else f"(?!/)[{inside}]"), at + 1


def _literal(segment: str, at: int) -> tuple[str, int]:
    """One character of a bracket, which may be escaped, and where it ends."""
    if segment[at] == "\\" and at + 1 < len(segment):
        at += 1
    return segment[at], at + 1
