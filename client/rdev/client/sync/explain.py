"""Why one path travels or does not: what the walk itself makes of it, and by which rule."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Collection
from dataclasses import dataclass

from rdev.client.sync.scan import open_file
from rdev.client.sync.tree import (
    Found,
    Visit,
    is_environment,
    rules_above,
    shown,
    unreadable,
    visit_folder,
)
from rdev.protocol.ignore import Rules, Verdict
from rdev.protocol.snapshot import Kind


@dataclass(frozen=True, slots=True)
class Fate:
    """What becomes of one path.

    Attributes:
        travels: A sync brings it to the host, or would if it existed.
        exists: It lies in the workspace.
        rule: The deciding ignore rule; empty if none matched.
        secret: It is left out because it may hold a secret.
        problem: What a receipt says about it; empty if nothing.
    """

    travels: bool
    exists: bool = True
    rule: str = ""
    secret: bool = False
    problem: str = ""

    def said_of(self, path: str) -> str:
        """The fate in one line for a person."""
        path = shown(path)
        if self.problem:
            return f"{path}: {self.problem}"
        subject = f"{path} is" if self.exists else f"{path} does not exist; it would be"
        negation = "" if self.travels else "not "
        return f"{subject} {negation}synced" + (f", by {self.rule}" if self.rule else "")


def explain(root: str, path: str, *, links: Collection[str] = ()) -> Fate:
    """The fate of one path, which need not exist.

    Args:
        root: The workspace's root.
        path: Relative to it, with `/`.
        links: Paths at which the host has links of the configuration.

    Raises:
        OSError: The root cannot be read.
    """
    rules, at, local = rules_above(root), "", ""
    parts = unicodedata.normalize("NFC", path).split("/")
    for number, part in enumerate(parts):
        visit, rules = visit_folder(root, at, local, rules, links=links)
        at = f"{at}/{part}" if at else part
        found = next((each for each in visit.found if each.path == at), None)
        rest = parts[number + 1 :]
        if found is None or (rest and found.kind is not Kind.DIRECTORY):
            return _left_out(root, visit, rules, at, rest)
        local = found.local
    assert found is not None
    return _travelling(root, visit, rules, found)


def _travelling(root: str, visit: Visit, rules: Rules, found: Found) -> Fate:
    """The fate of what the walk takes along, unless it cannot be read."""
    rule = rules.verdict(found.path, is_directory=found.kind is Kind.DIRECTORY).rule
    try:
        if found.kind is Kind.FILE:
            os.close(open_file(root, found.local))
        elif found.kind is Kind.DIRECTORY:
            os.listdir(os.path.join(root, found.local))
    except OSError as error:
        return Fate(travels=False, rule=rule, problem=unreadable(found.path, error).message)
    return Fate(travels=True, rule=rule, problem=_problem(visit, found.path))


def _left_out(root: str, visit: Visit, rules: Rules, at: str, rest: list[str]) -> Fate:
    """The fate of what the walk leaves out, or does not meet; `rest` lies below `at`."""
    if problem := _problem(visit, at):
        return Fate(travels=False, problem=problem)
    whole = os.path.join(root, visit.local, at.rpartition("/")[2])
    exists = os.path.lexists(os.path.join(whole, *rest))
    is_directory = bool(rest) or (os.path.isdir(whole) and not os.path.islink(whole))
    verdict = rules.verdict(at, is_directory=is_directory)
    if not verdict.ignored and is_directory and is_environment(whole):
        verdict = Verdict(ignored=True, rule="built-in: a Python environment")
    while rest and not verdict.ignored:
        at, rest = f"{at}/{rest[0]}", rest[1:]
        verdict = rules.verdict(at, is_directory=bool(rest))
    return Fate(not verdict.ignored, exists, verdict.rule, verdict.secret)


def _problem(visit: Visit, path: str) -> str:
    return next((each.message for each in visit.problems if each.path == shown(path)), "")
