"""The far end of a sync as the sender sees it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from rdev.protocol.exchange import Committed, ContentRun, Needs, Opened, Opening
from rdev.protocol.snapshot import Change


class Endpoint(Protocol):
    """One stream to the host's half of a workspace.

    Calls come one after another, in the order of `rdev.protocol.exchange`; `stage`, `send` and
    `commit` only put something on the way, and what went wrong with it is raised by the next call
    that waits for an answer (or by any later one). After an error, or a cancelled call, the only
    thing left to do is `close`, which never raises.

    Raises:
        SyncFailed: The tree on the host is no longer the one compared; open another stream.
        DiskFull, InvalidRequest, ConnectionLost: As they say.
    """

    async def open(self, opening: Opening) -> Opened:
        """Opens the workspace and returns the host's view of it."""
        ...

    async def stage(self, change: Change) -> None:
        """Announces a transaction; replaces one that was not committed."""
        ...

    async def send(self, runs: Sequence[ContentRun]) -> None:
        """Sends runs of contents, in order; no more than `MAX_RUN` bytes together, or one run."""
        ...

    async def needs(self) -> Needs:
        """What the host lacks for the staged transaction; call it once for each."""
        ...

    async def commit(self, snapshot: bytes) -> Committed:
        """Commits and waits for the answer."""
        ...

    async def close(self) -> None:
        """Ends the stream; what was not committed leaves no trace."""
        ...
