"""Walking a workspace: every path that travels with its stat, and a word on each that does not."""

from __future__ import annotations

import os
import stat
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, field

from rdev.protocol.ignore import GITIGNORE, RDEVIGNORE, RuleFile, Rules, Verdict
from rdev.protocol.paths import path_fault, target_fault
from rdev.protocol.snapshot import Kind, Problem, ProblemKind

# A larger file is data, not code: it takes longer to send than a person waits after a save.
MAX_FILE = 50 << 20


@dataclass(frozen=True, slots=True)
class Found:
    """Something that travels.

    Attributes:
        path: As it travels: NFC, with `/`.
        local: As it lies here, relative to the root.
        kind: What it is.
        status: Its lstat.
        target: Of a link.
    """

    path: str
    local: str
    kind: Kind
    status: os.stat_result
    target: str = ""


@dataclass(slots=True)
class Walk:
    """What a walk came across.

    Attributes:
        found: What travels, folders before what is in them.
        problems: Trouble with single paths.
        ignored: Paths that a rule leaves out; an ignored folder counts once.
        secrets: Those of them that may hold a secret.
    """

    found: list[Found] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    ignored: int = 0
    secrets: list[str] = field(default_factory=list)

    @property
    def size(self) -> int:
        """Bytes of all files that travel."""
        return sum(each.status.st_size for each in self.found if each.kind is Kind.FILE)


def walk(root: str) -> Walk:
    """Walks the workspace at `root`.

    Raises:
        OSError: The root itself cannot be read.
    """
    result = Walk()
    pending = [("", "", rules_above(root))]
    while pending:
        path, local, rules = pending.pop()
        try:
            with os.scandir(os.path.join(root, local) if local else root) as scan:
                entries = sorted(scan, key=lambda entry: entry.name)
        except OSError as error:
            if not path:
                raise
            result.problems.append(_unreadable(path, error))
            continue
        rules = _entered(rules, path, root, local, {entry.name for entry in entries})
        pending.extend(_visit(result, root, (path, local, rules), entries))
    return result


def why(root: str, path: str) -> Verdict:
    """The verdict on one path, which need not exist, and the rule behind it.

    Args:
        root: The workspace's root.
        path: Relative to it, with `/`.
    """
    rules, parts = rules_above(root), path.split("/")
    at = ""
    for number, part in enumerate(parts):
        folder = os.path.join(root, at) if at else root
        names = set(os.listdir(folder)) if os.path.isdir(folder) else set()
        rules = _entered(rules, at, root, at, names)
        at = f"{at}/{part}" if at else part
        whole = os.path.join(root, at)
        is_directory = number < len(parts) - 1 or (
            os.path.isdir(whole) and not os.path.islink(whole)
        )
        verdict = rules.verdict(at, is_directory=is_directory)
        if not verdict.ignored and is_directory and _is_environment(whole):
            verdict = Verdict(ignored=True, rule="built-in: a Python environment")
        if verdict.ignored:
            return verdict
    return verdict


def rules_above(root: str) -> Rules:
    """What git's ignore files above the root say, up to the repository's top."""
    files: list[RuleFile] = []
    current, inside = root, ""
    while True:
        if os.path.lexists(os.path.join(current, ".git")):
            exclude = _text(os.path.join(current, ".git", "info", "exclude"))
            if exclude is not None:
                files.append(RuleFile("", ".git/info/exclude", exclude, above=inside))
            return Rules(git=tuple(reversed(files)))
        above = os.path.dirname(current)
        if above == current:
            return Rules()
        inside = f"{os.path.basename(current)}/{inside}"
        current = above
        lines = _text(os.path.join(current, GITIGNORE))
        if lines is not None:
            files.append(RuleFile("", os.path.join(current, GITIGNORE), lines, above=inside))


def _visit(
    result: Walk,
    root: str,
    place: tuple[str, str, Rules],
    entries: list[os.DirEntry[str]],
) -> Iterator[tuple[str, str, Rules]]:
    """Notes what lies in one folder; yields its folders to walk, the last one first."""
    path, local, rules = place
    folders = []
    seen: dict[str, str] = {}
    for entry in entries:
        name = unicodedata.normalize("NFC", entry.name) if not entry.name.isascii() else entry.name
        inner = f"{path}/{name}" if path else name
        inner_local = f"{local}/{entry.name}" if local else entry.name
        is_directory = entry.is_dir(follow_symlinks=False)
        verdict = rules.verdict(inner, is_directory=is_directory)
        if verdict.ignored or (is_directory and _is_environment(entry.path)):
            if inner != ".rdev":
                result.ignored += 1
            if verdict.secret:
                result.secrets.append(inner)
            continue
        if not _is_new(result, seen, name, inner):
            continue
        found = _looked_at(result, root, entry, inner, inner_local)
        if found is not None:
            result.found.append(found)
            if found.kind is Kind.DIRECTORY:
                folders.append((inner, inner_local, rules))
    return reversed(folders)


def _is_new(result: Walk, seen: dict[str, str], name: str, path: str) -> bool:
    """False if another name in the folder is the same once composed; notes near collisions."""
    other = seen.setdefault(name.casefold(), name)
    if other == name and seen.setdefault(f"/{name}", path) is path:
        return True
    if other == name or f"/{name}" in seen:
        message = "not synced: another name here differs by its Unicode composition only"
        result.problems.append(Problem(path, ProblemKind.CASE_COLLISION.value, message))
        return False
    seen[f"/{name}"] = path
    message = f"differs from {other} by case only; a Mac cannot hold both"
    result.problems.append(Problem(path, ProblemKind.CASE_COLLISION.value, message))
    return True


def _looked_at(
    result: Walk, root: str, entry: os.DirEntry[str], path: str, local: str
) -> Found | None:
    """What an entry of a folder is, or None with a problem noted."""
    if fault := path_fault(path):
        shown = path.encode(errors="replace").decode()
        result.problems.append(Problem(shown, ProblemKind.BAD_NAME.value, f"not synced: {fault}"))
        return None
    try:
        status = entry.stat(follow_symlinks=False)
        if stat.S_ISLNK(status.st_mode):
            return _link(result, root, Found(path, local, Kind.SYMLINK, status), entry)
    except OSError as error:
        if not isinstance(error, FileNotFoundError):  # It vanished since the listing.
            result.problems.append(_unreadable(path, error))
        return None
    if stat.S_ISDIR(status.st_mode):
        return Found(path, local, Kind.DIRECTORY, status)
    if not stat.S_ISREG(status.st_mode):
        message = "not synced: a socket, FIFO or device"
        result.problems.append(Problem(path, ProblemKind.SPECIAL.value, message))
        return None
    if status.st_size > MAX_FILE:
        megabytes = f"{status.st_size / (1 << 20):.0f} MiB, over the limit of {MAX_FILE >> 20} MiB"
        message = f"not synced: {megabytes}; put data on the host by other means"
        result.problems.append(Problem(path, ProblemKind.TOO_LARGE.value, message))
        return None
    return Found(path, local, Kind.FILE, status)


def _link(result: Walk, root: str, found: Found, entry: os.DirEntry[str]) -> Found | None:
    target = os.readlink(entry.path)
    fault = target_fault(found.path, target)
    if fault is None:
        # Lexically inside, but a chain of links may still lead out.
        real = os.path.realpath(entry.path)
        if real != root and not real.startswith(root.rstrip("/") + "/"):
            fault = "it leads out of the workspace through another link"
    if fault is not None:
        message = f"link not synced: {fault}"
        result.problems.append(Problem(found.path, ProblemKind.LINK_OUTSIDE.value, message))
        return None
    return Found(found.path, found.local, Kind.SYMLINK, found.status, target)


def _entered(rules: Rules, path: str, root: str, local: str, names: set[str]) -> Rules:
    if GITIGNORE not in names and RDEVIGNORE not in names:
        return rules
    folder = os.path.join(root, local)
    git = _text(os.path.join(folder, GITIGNORE)) if GITIGNORE in names else None
    own = _text(os.path.join(folder, RDEVIGNORE)) if RDEVIGNORE in names else None
    return rules.entering(path, git, own)


def _is_environment(folder: str) -> bool:
    """True for a Python environment, whatever its name."""
    return os.path.lexists(os.path.join(folder, "pyvenv.cfg"))


def _text(path: str) -> list[str] | None:
    """Lines of an ignore file; None if there is none that can be read."""
    try:
        with open(path, encoding="utf-8", errors="surrogateescape", newline="") as file:
            return file.read().split("\n")
    except OSError:
        return None


def _unreadable(path: str, error: OSError) -> Problem:
    message = f"not synced: it cannot be read ({error.strerror})"
    return Problem(path, ProblemKind.UNREADABLE.value, message)
