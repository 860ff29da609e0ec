"""Walking a workspace: every path that travels with its stat, and a word on each that does not."""

from __future__ import annotations

import os
import stat
import unicodedata
from collections.abc import Collection
from dataclasses import dataclass, field

from rdev.protocol.ignore import GITIGNORE, RDEVIGNORE, RuleFile, Rules
from rdev.protocol.paths import RESERVED, path_fault, target_fault
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


@dataclass(frozen=True, slots=True)
class Visit:
    """What lies directly in one folder.

    Attributes:
        path: The folder, as it travels.
        local: The folder, as it lies here.
        rules: The ignore rules that hold in it.
        inode: Tells the folder from another that took its place.
        found: What travels.
        problems: Trouble with single paths.
        ignored: Paths that a rule leaves out; an ignored folder is one.
        secrets: Those of them that may hold a secret.
    """

    path: str
    local: str
    rules: Rules
    inode: int
    found: list[Found] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    ignored: list[str] = field(default_factory=list)
    secrets: list[str] = field(default_factory=list)


class Tree:
    """The folders of a workspace as they were last visited."""

    def __init__(self, root: str, links: Collection[str] = ()) -> None:
        self._root = root
        self._links = links
        self.visits: dict[str, Visit] = {}

    @property
    def size(self) -> int:
        """Bytes of all files that travel."""
        return sum(
            found.status.st_size
            for visit in self.visits.values()
            for found in visit.found
            if found.kind is Kind.FILE
        )

    @property
    def count(self) -> int:
        """Paths that travel."""
        return sum(len(visit.found) for visit in self.visits.values())

    def walk(self, dirty: Collection[str] | None = None) -> set[str]:
        """Visits all folders, or only those named, the new ones below them, and theirs.

        Args:
            dirty: Folders, as they travel, in which something may have changed; None is all.

        Returns:
            The folders that were visited, and those that are gone.

        Raises:
            OSError: The root itself cannot be read.
        """
        touched: set[str] = set()
        # A root that was moved away, or that another file system covers, is looked at anew.
        inode = os.stat(self._root).st_ino
        if "" not in self.visits or self.visits[""].inode != inode:
            dirty = None
        if dirty is None:
            touched.update(self.visits)
            self.visits.clear()
            pending = [("", "", rules_above(self._root))]
        else:
            known = (self.visits[path] for path in sorted(dirty) if path in self.visits)
            pending = [(visit.path, visit.local, visit.rules) for visit in known]
        while pending:
            path, local, rules = pending.pop()
            old = self.visits.get(path)
            visit, entered = visit_folder(self._root, path, local, rules, links=self._links)
            touched.add(path)
            self.visits[path] = visit
            pending += [
                (found.path, found.local, entered)
                for found in visit.found
                if found.kind is Kind.DIRECTORY and self._is_news(found, old, dirty)
            ]
            touched |= self._drop_gone(old, visit)
        return touched

    def _is_news(self, found: Found, old: Visit | None, dirty: Collection[str] | None) -> bool:
        """True if a folder in a visited one has to be visited too."""
        if dirty is None or old is None:
            return True
        known = self.visits.get(found.path)
        return known is None or known.inode != found.status.st_ino

    def _drop_gone(self, old: Visit | None, visit: Visit) -> set[str]:
        """Forgets the folders that a visited folder no longer holds, and all below them."""
        if old is None:
            return set()
        now = {found.path for found in visit.found if found.kind is Kind.DIRECTORY}
        before = {found.path for found in old.found if found.kind is Kind.DIRECTORY}
        dropped: set[str] = set()
        for path in before - now:
            dropped |= {each for each in self.visits if each == path or each.startswith(path + "/")}
        for path in dropped:
            del self.visits[path]
        return dropped


def visit_folder(
    root: str, path: str, local: str, rules: Rules, *, links: Collection[str] = ()
) -> tuple[Visit, Rules]:
    """Looks at what lies directly in a folder.

    Args:
        root: The workspace's root.
        path: The folder as it travels; "" is the root.
        local: The folder as it lies here.
        rules: Those that hold where the folder lies.
        links: Paths at which the host has links of the configuration, so that nothing travels.

    Returns:
        The visit, and the rules that hold within the folder.

    Raises:
        OSError: It is the root and cannot be read.
    """
    whole = os.path.join(root, local) if local else root
    try:
        inode = os.stat(whole).st_ino
        with os.scandir(whole) as scan:
            entries = sorted(scan, key=lambda entry: entry.name)
    except OSError as error:
        if not path:
            raise
        visit = Visit(path, local, rules, 0)
        if not isinstance(error, FileNotFoundError):
            visit.problems.append(unreadable(path, error))
        return visit, rules
    visit = Visit(path, local, rules, inode)
    entered = _entered(rules, path, root, local, {entry.name for entry in entries})
    seen: dict[str, str] = {}
    for entry in entries:
        if links and _is_link_of_the_host(visit, entry, links):
            continue
        _visit_entry(visit, root, entry, entered, seen)
    return visit, entered


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


def _is_link_of_the_host(visit: Visit, entry: os.DirEntry[str], links: Collection[str]) -> bool:
    """True if the configuration puts a link at the entry's path; a link here is its counterpart."""
    name = unicodedata.normalize("NFC", entry.name)
    path = f"{visit.path}/{name}" if visit.path else name
    if path not in links:
        return False
    if not entry.is_symlink():
        message = "not synced: on the host `[workspace] links` makes a link of that name"
        visit.problems.append(Problem(path, ProblemKind.LINKED.value, message))
    return True


def _visit_entry(
    visit: Visit, root: str, entry: os.DirEntry[str], rules: Rules, seen: dict[str, str]
) -> None:
    """Notes one entry of a folder."""
    name = entry.name
    if not name.isascii():
        name = unicodedata.normalize("NFC", name)
    path = f"{visit.path}/{name}" if visit.path else name
    local = f"{visit.local}/{entry.name}" if visit.local else entry.name
    is_directory = entry.is_dir(follow_symlinks=False)
    verdict = rules.verdict(path, is_directory=is_directory)
    if verdict.ignored or (is_directory and is_environment(entry.path)):
        if path != RESERVED:
            visit.ignored.append(path)
        if verdict.secret:
            visit.secrets.append(path)
    elif _has_no_twin(visit, seen, name, path):
        found = _looked_at(visit, root, entry, path, local)
        if found is not None:
            visit.found.append(found)


def _has_no_twin(visit: Visit, seen: dict[str, str], name: str, path: str) -> bool:
    """False if another name in the folder is the same once composed; notes what a Mac confuses.

    `seen` maps the names so far, and their case-folded forms (marked by a slash), to a name.
    """
    if name in seen:
        message = "not synced: another name here differs by its Unicode composition only"
        visit.problems.append(Problem(path, ProblemKind.CASE_COLLISION.value, message))
        return False
    seen[name] = name
    other = seen.setdefault(f"/{name.casefold()}", name)
    if other != name:
        message = f"differs from {other} by case only; a Mac cannot hold both"
        visit.problems.append(Problem(path, ProblemKind.CASE_COLLISION.value, message))
    return True


def _looked_at(
    visit: Visit, root: str, entry: os.DirEntry[str], path: str, local: str
) -> Found | None:
    """What an entry of a folder is, or None with a problem noted."""
    if fault := path_fault(path):
        visit.problems.append(
            Problem(shown(path), ProblemKind.BAD_NAME.value, f"not synced: {fault}")
        )
        return None
    try:
        status = entry.stat(follow_symlinks=False)
        if stat.S_ISLNK(status.st_mode):
            return _link(visit, root, Found(path, local, Kind.SYMLINK, status), entry)
    except OSError as error:
        if not isinstance(error, FileNotFoundError):  # It vanished since the listing.
            visit.problems.append(unreadable(path, error))
        return None
    if stat.S_ISDIR(status.st_mode):
        return Found(path, local, Kind.DIRECTORY, status)
    if not stat.S_ISREG(status.st_mode):
        message = "not synced: a socket, FIFO or device"
        visit.problems.append(Problem(path, ProblemKind.SPECIAL.value, message))
        return None
    if status.st_size > MAX_FILE:
        megabytes = f"{status.st_size / (1 << 20):.0f} MiB, over the limit of {MAX_FILE >> 20} MiB"
        message = f"not synced: {megabytes}; put data on the host by other means"
        visit.problems.append(Problem(path, ProblemKind.TOO_LARGE.value, message))
        return None
    return Found(path, local, Kind.FILE, status)


def _link(visit: Visit, root: str, found: Found, entry: os.DirEntry[str]) -> Found | None:
    target = os.readlink(entry.path)
    fault = target_fault(found.path, target)
    if fault is None:
        # Lexically inside, but a chain of links may still lead out.
        real = os.path.realpath(entry.path)
        if real != root and not real.startswith(root.rstrip("/") + "/"):
            fault = "it leads out of the workspace through another link"
    if fault is not None:
        message = f"link not synced: {fault}"
        visit.problems.append(Problem(found.path, ProblemKind.LINK_OUTSIDE.value, message))
        return None
    return Found(found.path, found.local, Kind.SYMLINK, found.status, target)


def _entered(rules: Rules, path: str, root: str, local: str, names: set[str]) -> Rules:
    if GITIGNORE not in names and RDEVIGNORE not in names:
        return rules
    folder = os.path.join(root, local)
    git = _text(os.path.join(folder, GITIGNORE)) if GITIGNORE in names else None
    own = _text(os.path.join(folder, RDEVIGNORE)) if RDEVIGNORE in names else None
    return rules.entering(path, git, own)


def is_environment(folder: str) -> bool:
    """True for a Python environment, whatever its name."""
    return os.path.lexists(os.path.join(folder, "pyvenv.cfg"))


def _text(path: str) -> list[str] | None:
    """Lines of an ignore file; None if there is none that can be read."""
    try:
        with open(path, encoding="utf-8", errors="surrogateescape", newline="") as file:
            return file.read().split("\n")
    except OSError:
        return None


def shown(path: str) -> str:
    """A path in characters that can be printed and sent, whatever its bytes are."""
    return path.encode(errors="replace").decode()


def unreadable(path: str, error: OSError) -> Problem:
    """The problem of a file or folder that the person may not read."""
    message = f"not synced: it cannot be read ({error.strerror})"
    return Problem(path, ProblemKind.UNREADABLE.value, message)
