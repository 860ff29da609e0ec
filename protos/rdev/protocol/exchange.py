"""What client and agent say to each other about a workspace, as values, and the limits on it.

    client  Opening                     agent  Opened
    client  Change (staged in parts)    agent  Needs
    client  ContentRun...               a Change staged again replaces one that was not committed
    client  commit(snapshot)            agent  Committed

A client may send contents before it has heard the Needs, up to `UNASKED` bytes of decoded content
in a transaction, so that an edit is one one-way group of messages.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass

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
    """

    workspace_id: str
    name: str
    client_id: str
    directories: Mapping[str, bytes]


@dataclass(frozen=True, slots=True)
class Opened:
    """The agent's answer to Opening.

    Attributes:
        folder: Folder of the workspace on the host.
        differing: Directories that differ, or that only one side has.
        entries: The agent's entries directly in those.
    """

    folder: str
    differing: tuple[str, ...]
    entries: tuple[Entry, ...]


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
