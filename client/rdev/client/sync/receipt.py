"""The receipt: what a sync did and what it left out, in words for a person."""

from __future__ import annotations

from dataclasses import dataclass

from rdev.client.sync.root import Workspace
from rdev.client.sync.scan import Scan
from rdev.client.ui.escapes import one_line
from rdev.client.ui.sizes import human_size
from rdev.protocol.exchange import Adoption
from rdev.protocol.snapshot import Problem

# Names listed before the rest is only counted.
LISTED = 5


@dataclass(frozen=True, slots=True)
class Receipt:
    """What one sync did.

    Attributes:
        snapshot: Digest of the tree that laptop and host now have, 32 bytes.
        folder: Folder of the workspace on the host.
        files: Files and links created or replaced on the host.
        written: The same with folders.
        deleted: Entries deleted on the host.
        bytes: Content sent, as it was before compression.
        seconds: From the call to the commit.
        ignored: Files and folders left out by ignore rules.
        secrets: Paths left out because they may hold a secret.
        problems: Trouble with single paths.
        entries: Files, folders and links in the workspace.
        adoption: How the folder compared, if this sync made it the workspace's.
    """

    snapshot: bytes
    folder: str = ""
    files: int = 0
    written: int = 0
    deleted: int = 0
    bytes: int = 0
    seconds: float = 0.0
    ignored: int = 0
    secrets: tuple[str, ...] = ()
    problems: tuple[Problem, ...] = ()
    entries: int = 0
    adoption: Adoption | None = None

    @property
    def summary(self) -> str:
        """The one line that every sync ends with."""
        files = "1 file" if self.files == 1 else f"{self.files} files"
        removed = f"removed {self.deleted}, " if self.deleted else ""
        took = f"{self.seconds * 1000:.0f} ms" if self.seconds < 1 else f"{self.seconds:.1f} s"
        done = f"synced {files}, {removed}{human_size(self.bytes)} in {took}"
        if self.ignored:
            done += f"; {self.ignored} ignored (rdev sync why PATH)"
        return f"{done}; snapshot {self.snapshot.hex()[:4]}"

    @property
    def lines(self) -> tuple[str, ...]:
        """The summary, then what a person should know of."""
        lines = [self.summary]
        if self.adoption is not None:
            lines.append(_adopted_line(self.folder, self.adoption))
        if self.secrets:
            names = ", ".join(self.secrets[:LISTED])
            more = len(self.secrets) - LISTED
            names += f" and {more} more" if more > 0 else ""
            lines.append(f"not sent, may hold secrets: {names}")
        lines += [f"{each.path}: {each.message}" for each in self.problems[:LISTED]]
        more = len(self.problems) - LISTED
        if more > 0:
            lines.append(f"and {more} more; `rdev sync status` names them all")
        return tuple(lines)

    def __str__(self) -> str:
        return "\n".join(self.lines)

    def as_json(self) -> dict[str, object]:
        """The receipt for `--json`."""
        return {
            "snapshot": self.snapshot.hex(),
            "folder": self.folder,
            "files": self.files,
            "written": self.written,
            "deleted": self.deleted,
            "bytes": self.bytes,
            "seconds": round(self.seconds, 6),
            "ignored": self.ignored,
            "secrets": list(self.secrets),
            "problems": [_problem_json(each) for each in self.problems],
            "entries": self.entries,
            "adopted": _adoption_json(self.adoption),
        }


def adoption_question(folder: str, adoption: Adoption) -> str:
    """What a person is asked before a folder on the host is adopted."""
    shown = f"{one_line(folder)} exists on the host"
    if not adoption.differing_count:
        count = f"{adoption.host_only} other names"
        return (
            f"{shown} and has nothing in common with the workspace, but {count};\n"
            "put the workspace's files beside them?"
        )
    paths = "\n".join(f"  {one_line(path)}" for path in adoption.differing)
    more = adoption.differing_count - len(adoption.differing)
    rest = f"\n  and {more} more" if more > 0 else ""
    return (
        f"{shown}, and these differ there:\n{paths}{rest}\n"
        f"overwrite {_counted(adoption.differing_count)}, keeping the old below .rdev/conflicts?"
    )


def _adopted_line(folder: str, adoption: Adoption) -> str:
    line = f"adopted {folder}: {_counted(adoption.same)} equal"
    if adoption.differing_count:
        line += f", {adoption.differing_count} overwritten"
    if adoption.host_only:
        line += f"; {adoption.host_only} only there, left as they are"
    return line


def _adoption_json(adoption: Adoption | None) -> dict[str, int] | None:
    if adoption is None:
        return None
    return {
        "same": adoption.same,
        "overwritten": adoption.differing_count,
        "host_only": adoption.host_only,
    }


def _counted(count: int) -> str:
    return "1 file" if count == 1 else f"{count} files"


def status_lines(workspace: Workspace, scan: Scan) -> list[str]:
    """What a sync would send and leave out, for a person."""
    short = scan.snapshot.digest.hex()[:4]
    count = f"{len(scan.snapshot)} entries travel, {scan.ignored} are ignored"
    lines = [f"{workspace.root} is workspace {workspace.id}", f"{count}; snapshot {short}"]
    lines += [f"not sent, may hold a secret: {path}" for path in scan.secrets]
    return lines + [f"{each.path}: {each.message}" for each in scan.problems]


def status_json(workspace: Workspace, scan: Scan) -> dict[str, object]:
    """What a sync would send and leave out, for `--json`."""
    return {
        "workspace": workspace.id,
        "root": workspace.root,
        "snapshot": scan.snapshot.digest.hex(),
        "entries": len(scan.snapshot),
        "ignored": scan.ignored,
        "secrets": list(scan.secrets),
        "problems": [_problem_json(each) for each in scan.problems],
    }


def _problem_json(problem: Problem) -> dict[str, str]:
    return {"path": problem.path, "kind": problem.kind, "message": problem.message}
