"""The workspace sub-client: syncs a folder over a connection, once or for as long as it changes."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Sequence
from typing import Protocol, TypeAlias

import grpc

from rdev.client.connection import UNARY_DEADLINE, Backoff, Connection, translating
from rdev.client.sync.receipt import Receipt
from rdev.client.sync.root import Workspace
from rdev.client.sync.scan import Confirm
from rdev.client.sync.sender import WorkspaceSync
from rdev.client.sync.watch import watch
from rdev.client.sync.watcher import best_watcher
from rdev.protocol import convert_workspace as convert
from rdev.protocol.convert import AgentInfo
from rdev.protocol.errors import (
    ConnectionLost,
    HostUnreachable,
    InternalError,
    LimitExceeded,
    NotFound,
    VersionSkew,
)
from rdev.protocol.exchange import Committed, ContentRun, Needs, Opened, Opening
from rdev.protocol.snapshot import Change
from rdev.v1 import workspace_pb2 as pb
from rdev.v1 import workspace_pb2_grpc

_Call: TypeAlias = "grpc.aio.StreamStreamCall[pb.SyncWorkspaceRequest, pb.SyncWorkspaceResponse]"

_ACTION = "sync the workspace"

# What grpc.aio makes of a write that fails before it has heard why.
_BROKEN_WRITE = "Internal error from Core"


class Channelled(Protocol):
    """What a sync needs of a connection."""

    @property
    def agent(self) -> AgentInfo:
        """Who answers."""
        ...

    @property
    def channel(self) -> grpc.aio.Channel:
        """The channel to the agent."""
        ...

    async def recover(self) -> None:
        """Makes the agent reachable again after a break."""
        ...


async def sync_workspace(
    connection: Channelled, workspace: Workspace, *, confirm: Confirm | None = None
) -> Receipt:
    """Brings the host's folder to the state of the laptop's.

    Args:
        connection: To the host's agent.
        workspace: What to sync.
        confirm: Asks a person a question; None if there is nobody to ask.

    Raises:
        WorkspaceRefused: The tree is too large, or its folder on the host has files that differ,
            and nobody confirmed that it is meant; or that folder may not be a workspace's.
        VersionSkew: It names a folder or links, which the agent does not know of.
        SyncFailed: It kept changing, or most of it vanished.
        DiskFull: The host has no space; nothing of it is visible there.
        ConnectionLost: The connection broke again; what was not committed is not visible.
    """
    _require_folders(connection, workspace)
    try:
        return await _sync_once(connection, workspace, confirm)
    except ConnectionLost:
        # What has arrived is not sent twice.
        await connection.recover()
    return await _sync_once(connection, workspace, confirm)


async def _sync_once(
    connection: Channelled, workspace: Workspace, confirm: Confirm | None
) -> Receipt:
    async with WorkspaceSync(workspace, endpoints(connection), confirm=confirm) as syncing:
        return await syncing.sync()


async def watch_workspace(
    connection: Channelled,
    workspace: Workspace,
    *,
    confirm: Confirm | None = None,
    on_trouble: Callable[[str], None] = lambda _: None,
) -> AsyncGenerator[Receipt, None]:
    """Syncs, and syncs again on every save, until the caller stops; yields the receipts.

    The first receipt comes always, a later one when something was sent. A broken connection is
    made again.

    Args:
        connection: To the host's agent.
        workspace: What to sync.
        confirm: Asks a person a question; None if there is nobody to ask.
        on_trouble: Told, in one line, what holds changes back.

    Raises:
        WorkspaceRefused, VersionSkew: See `sync_workspace`.
        SyncFailed, DiskFull: Likewise, of the first sync; later ones hold until they are mended.
        ConnectionLost: The host has been away for a minute.
    """
    _require_folders(connection, workspace)
    delays = Backoff()
    begun = False
    while True:
        try:
            async with WorkspaceSync(workspace, endpoints(connection), confirm=confirm) as syncing:
                receipts = watch(
                    syncing, workspace.root, best_watcher, on_hold=on_trouble, resuming=begun
                )
                async with contextlib.aclosing(receipts):
                    async for receipt in receipts:
                        delays.reset()
                        begun = True
                        yield receipt
        except ConnectionLost as error:
            on_trouble(error.message)
        await delays.wait()
        with contextlib.suppress(HostUnreachable):
            await connection.recover()


def _require_folders(connection: Channelled, workspace: Workspace) -> None:
    """An agent without folders would put the workspace somewhere else than is meant."""
    if not workspace.folder and not workspace.links:
        return
    if "folders" not in connection.agent.capabilities:
        version = connection.agent.version
        cause = f"the agent runs rdev {version}, which knows no `[workspace] path` and `links`"
        raise VersionSkew(_ACTION, cause)


async def read_snapshot_file(connection: Connection, snapshot: str, path: str) -> bytes | None:
    """A file as it was in a snapshot that a job keeps; None if it has no such file.

    Args:
        connection: To the host's agent.
        snapshot: Hex digest of the snapshot; empty for a job that has none.
        path: Relative to the workspace's root.
    """
    if not snapshot:
        return None
    request = pb.ReadSnapshotFileRequest(snapshot=snapshot, path=path)
    stub = workspace_pb2_grpc.WorkspaceServiceStub(connection.channel)
    try:
        with translating(f"read {path} as the job has it"):
            response = await stub.ReadSnapshotFile(request, timeout=UNARY_DEADLINE)
    except (NotFound, LimitExceeded):
        return None
    return response.content


def endpoints(connection: Channelled) -> Callable[[], RemoteEndpoint]:
    """What makes the streams of a `WorkspaceSync` over a connection."""
    stub = workspace_pb2_grpc.WorkspaceServiceStub(connection.channel)
    return lambda: RemoteEndpoint(stub)


@contextlib.contextmanager
def _translating() -> Iterator[None]:
    """Translates, and knows grpc's words for a peer that went away under a write."""
    try:
        with translating(_ACTION):
            yield
    except InternalError as error:
        if error.cause != _BROKEN_WRITE:
            raise
        raise ConnectionLost(_ACTION, "the connection broke") from error


class RemoteEndpoint:
    """An `Endpoint` over SyncWorkspace; see there."""

    def __init__(self, stub: workspace_pb2_grpc.WorkspaceServiceAsyncStub) -> None:
        self._stub = stub
        self._call: _Call | None = None
        self._sequence = 0
        self._needs_due = False

    async def open(self, opening: Opening) -> Opened:
        """See `Endpoint`."""
        with _translating():
            self._call = self._stub.SyncWorkspace()
            await self._write(pb.SyncWorkspaceRequest(open=convert.opening_to_pb(opening)))
            parts = [part async for part in self._opened_parts()]
        return convert.opened_from_pb(parts)

    async def stage(self, change: Change) -> None:
        """See `Endpoint`."""
        if self._needs_due:
            await self.needs()
        with _translating():
            for part in convert.change_to_pb(change):
                await self._write(pb.SyncWorkspaceRequest(stage=part))
        self._needs_due = True

    async def send(self, runs: Sequence[ContentRun]) -> None:
        """See `Endpoint`."""
        contents = pb.SyncContents(contents=[convert.run_to_pb(run) for run in runs])
        with _translating():
            await self._write(pb.SyncWorkspaceRequest(contents=contents))

    async def needs(self) -> Needs:
        """See `Endpoint`."""
        self._needs_due = False
        with _translating():
            return convert.needs_from_pb((await self._read("needs")).needs)

    async def commit(self, snapshot: bytes) -> Committed:
        """See `Endpoint`."""
        with _translating():
            commit = pb.SyncCommit(snapshot=snapshot)
            await self._write(pb.SyncWorkspaceRequest(commit=commit))
            if self._needs_due:
                await self.needs()
            return convert.committed_from_pb((await self._read("committed")).committed)

    async def close(self) -> None:
        """See `Endpoint`."""
        call, self._call = self._call, None
        if call is not None:
            call.cancel()

    async def _write(self, request: pb.SyncWorkspaceRequest) -> None:
        call = self._started()
        self._sequence += 1
        request.sequence = self._sequence
        try:
            await call.write(request)
        except (grpc.aio.UsageError, asyncio.InvalidStateError):
            # The call is over; reading says why.
            await self._raise_end(call)

    async def _read(self, expected: str) -> pb.SyncWorkspaceResponse:
        call = self._started()
        response = await call.read()
        if not isinstance(response, pb.SyncWorkspaceResponse):
            await self._raise_end(call)
        elif response.WhichOneof("item") == expected:
            return response
        raise ConnectionLost(_ACTION, "the agent broke the protocol")

    async def _opened_parts(self) -> AsyncIterator[pb.SyncOpened]:
        while True:
            part = (await self._read("opened")).opened
            yield part
            if part.last:
                return

    async def _raise_end(self, call: _Call) -> None:
        """Raises what ended the call."""
        while isinstance(await call.read(), pb.SyncWorkspaceResponse):
            pass
        await call.code()
        raise ConnectionLost(_ACTION, "the agent ended the stream")

    def _started(self) -> _Call:
        if self._call is None:
            raise ConnectionLost(_ACTION, "the stream is closed")
        return self._call
