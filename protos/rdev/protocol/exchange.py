"""What client and agent say to each other about a workspace, as values, and the limits on it.

    client  Opening                     agent  Opened
    client  Change (staged in parts)    agent  Needs, with an Adoption if the folder is not ours yet
    client  ContentRun...               a Change staged again replaces one that was not committed
    client  commit(snapshot)            agent  Committed

A client may send contents before it has heard the Needs, up to `UNASKED` bytes of decoded content
in a transaction, so that an edit is one one-way group of messages.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field

from rdev.protocol.snapshot import Entry, Problem

# Decoded bytes that may be sent in one transaction without waiting for the Needs.
UNASKED = 256 << 10

# Encoded bytes in one message.
MAX_RUN = 1 << 20

# Entries of one workspace, which bounds what a message stream can make the agent hold: a hundred
# thousand entries take some 50 MB.
MAX_ENTRIES = 100_000

# Bytes of entries in one message, which keeps it under the 1 MiB cap of control messages.
MESSAGE_WEIGHT = 768 << 10

# Links of one workspace that the agent makes; each is looked at whenever a stream opens.
MAX_LINKS = 1_000

# Differing paths of a folder to be adopted that are named; the rest is counted.
NAMED_DIFFERING = 20

# The agent's own limit for one file. The client's is lower, and a matter of configuration.
MAX_FILE = 1 << 30


class Encoding(enum.Enum):
    """How content travels."""

    IDENTITY = 1
    """As it is."""
    ZSTD = 2
    """One zstd frame."""


@dataclass(frozen=True, slots=True)
class Opening:
    """The client's first words.

    Attributes:
        workspace_id: Identity of the workspace.
        name: Name for people.
        client_id: Identity of the laptop.
        directories: Digest of every directory by path, the root ("") included.
        folder: Where on the host it is to lie; empty lets the agent choose.
        links: Links that the agent makes in the folder, path to absolute target.
        adopt: A person agreed that what differs in a folder to be adopted is overwritten.
        owner: Who syncs, as `user@laptop`.
    """

    workspace_id: str
    name: str
    client_id: str
    directories: Mapping[str, bytes]
    folder: str = ""
    links: Mapping[str, str] = field(default_factory=dict)
    adopt: bool = False
    owner: str = ""


@dataclass(frozen=True, slots=True)
class Opened:
    """The agent's answer to Opening.

    Attributes:
        folder: Folder of the workspace on the host.
        differing: Directories that differ, or that only one side has.
        entries: The agent's entries directly in those.
        adopting: The folder exists and is not the workspace's yet; nothing was written to it.
        problems: What a person should know of the folder and of its links.
    """

    folder: str
    differing: tuple[str, ...]
    entries: tuple[Entry, ...]
    adopting: bool = False
    problems: tuple[Problem, ...] = ()


@dataclass(frozen=True, slots=True)
class Adoption:
    """How a folder that is to be adopted compares with what was staged.

    Attributes:
        same: Files and links that are equal; they are taken as they are.
        differing: Paths that differ, at most `NAMED_DIFFERING`.
        differing_count: How many differ.
        host_only: Names in the workspace's directories that only the folder has.
    """

    same: int = 0
    differing: tuple[str, ...] = ()
    differing_count: int = 0
    host_only: int = 0

    @property
    def needs_yes(self) -> bool:
        """True if a person has to agree: something differs, or all of it is something else.

        A folder that has nothing in common with the workspace was hardly meant.
        """
        return self.differing_count > 0 or (self.same == 0 and self.host_only > 0)

    @property
    def words(self) -> str:
        """Why a person has to agree, in one line; the paths are as they are on the host."""
        count = self.differing_count
        if not count:
            return f"it has nothing in common with the workspace, but {self.host_only} other names"
        more = count - len(self.differing)
        rest = f" and {more} more" if more > 0 else ""
        verb = "file of it differs" if count == 1 else "files of it differ"
        return f"{count} {verb}: {', '.join(self.differing)}{rest}"


@dataclass(frozen=True, slots=True)
class Needs:
    """The agent's answer to a staged change.

    Attributes:
        digests: Contents that it lacks.
        adoption: Set when the folder is to be adopted.
    """

    digests: frozenset[bytes]
    adoption: Adoption | None = None


@dataclass(frozen=True, slots=True)
class ContentRun:
    """A run of encoded bytes of one content; runs of one content are contiguous.

    Attributes:
        digest: Of the decoded content.
        size: Of the decoded content.
        encoding: How `data` is encoded.
        data: At most `MAX_RUN` bytes.
        last: True on the last run of the content.
    """

    digest: bytes
    size: int
    encoding: Encoding
    data: bytes
    last: bool


@dataclass(frozen=True, slots=True)
class Committed:
    """The agent's answer to a commit.

    Attributes:
        snapshot: Digest of the tree as committed.
        written: Entries created or replaced.
        deleted: Entries deleted.
        problems: Trouble on the way.
    """

    snapshot: bytes
    written: int
    deleted: int
    problems: tuple[Problem, ...] = ()
