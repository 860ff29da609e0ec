"""A laptop's folder and a host's agent side, real, for tests of sync."""

from __future__ import annotations

import contextlib
import os
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc

from rdev.agent.identity import identify
from rdev.agent.interceptor import ErrorInterceptor
from rdev.agent.services.workspace import WorkspaceService
from rdev.agent.workspace.apply import Seam, no_seam
from rdev.agent.workspace.manager import WorkspaceManager
from rdev.agent.workspace.session import SyncSession
from rdev.client.sync.receipt import Receipt
from rdev.client.sync.root import Workspace
from rdev.client.workspaces import RemoteEndpoint, sync_workspace
from rdev.protocol.convert import AgentInfo
from rdev.protocol.exchange import Committed, ContentRun, Needs, Opened, Opening
from rdev.protocol.snapshot import Change
from rdev.v1 import workspace_pb2_grpc
from rdev.wire.home import Home
from rdev.wire.unix import short_socket_path

OPTIONS = [("grpc.max_receive_message_length", 4 << 20)]
ID = "0123456789abcdef"


@dataclass
class Host:
    """A served home, and a channel to it; looks like a connection."""

    home: Path
    manager: WorkspaceManager
    channel: grpc.aio.Channel
    agent: AgentInfo

    async def recover(self) -> None:
        """The server of a test stays where it is."""

    @property
    def folder(self) -> Path:
        found = self.manager.folder(ID)
        assert found is not None
        return Path(found)


@contextlib.asynccontextmanager
async def serving(home: Path, seam: Seam = no_seam) -> AsyncIterator[Host]:
    """Serves the workspaces of `home` on a unix socket."""
    home.mkdir(exist_ok=True)
    served = Home(str(home), "machine")
    os.makedirs(served.host, exist_ok=True)
    agent = identify(served)
    async with WorkspaceManager(str(home), seam=seam) as manager:
        server = grpc.aio.server(interceptors=[ErrorInterceptor()], options=OPTIONS)
        workspace_pb2_grpc.add_WorkspaceServiceServicer_to_server(WorkspaceService(manager), server)
        with short_socket_path(home / "s") as path:
            server.add_insecure_port(f"unix:{path}")
            await server.start()
            try:
                async with grpc.aio.insecure_channel(f"unix:{path}", options=OPTIONS) as channel:
                    yield Host(home, manager, channel, agent)
            finally:
                await server.stop(0)


class LocalEndpoint:
    """An `Endpoint` that speaks with the agent's side in this process, without a wire."""

    def __init__(self, manager: WorkspaceManager) -> None:
        self._session: SyncSession = manager.session()
        self._needs = Needs(frozenset())

    async def open(self, opening: Opening) -> Opened:
        return self._session.open(opening)

    async def stage(self, change: Change) -> None:
        needs = self._session.stage(change, last=True)
        assert needs is not None
        self._needs = needs

    async def send(self, runs: Sequence[ContentRun]) -> None:
        for run in runs:
            self._session.content(run)

    async def needs(self) -> Needs:
        return self._needs

    async def commit(self, snapshot: bytes) -> Committed:
        return self._session.commit(snapshot)

    async def close(self) -> None:
        self._session.close()


def workspace_at(root: Path) -> Workspace:
    """A workspace with a fixed id."""
    root.mkdir(exist_ok=True)
    return Workspace(ID, "project", os.path.realpath(root))


async def sync(host: Host, root: Path, **options: Any) -> Receipt:
    """Syncs a laptop's folder to the host."""
    return await sync_workspace(host, workspace_at(root), **options)


def remote_endpoint(host: Host) -> RemoteEndpoint:
    """The laptop's end of the wire."""
    return RemoteEndpoint(workspace_pb2_grpc.WorkspaceServiceStub(host.channel))


def content_of(folder: Path) -> dict[str, bytes | str | None]:
    """What lies in a folder: bytes of files, targets of links, None for folders; not `.rdev`."""
    found: dict[str, bytes | str | None] = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if name.split("/")[0] == ".rdev":
            continue
        if path.is_symlink():
            found[name] = os.readlink(path)
        else:
            found[name] = None if path.is_dir() else path.read_bytes()
    return found
