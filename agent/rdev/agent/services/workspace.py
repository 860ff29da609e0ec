"""WorkspaceService on the wire: one stream is one `SyncSession`; nothing is decided here."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import grpc

from rdev.agent.services import Context
from rdev.agent.threads import to_its_end
from rdev.agent.workspace.manager import WorkspaceManager
from rdev.agent.workspace.session import SyncSession
from rdev.protocol import convert_workspace as convert
from rdev.protocol.errors import InvalidRequest
from rdev.protocol.snapshot import Change
from rdev.v1 import workspace_pb2 as pb
from rdev.v1 import workspace_pb2_grpc

_Context = grpc.aio.ServicerContext[pb.SyncWorkspaceRequest, pb.SyncWorkspaceResponse]


class WorkspaceService(workspace_pb2_grpc.WorkspaceServiceServicer):
    """Serves the workspaces of a manager."""

    def __init__(self, manager: WorkspaceManager) -> None:
        self._manager = manager

    async def SyncWorkspace(
        self, request_iterator: AsyncIterator[pb.SyncWorkspaceRequest], context: _Context
    ) -> AsyncIterator[pb.SyncWorkspaceResponse]:
        """See the proto."""
        del context
        session = self._manager.session()
        sequence = 0
        try:
            async for request in request_iterator:
                sequence += 1
                if request.sequence != sequence:
                    raise InvalidRequest("sync the workspace", "a message is missing or repeated")
                # The session is closed after the last step, so no step may still run by then.
                for response in await to_its_end(lambda r=request: _answers(session, r)):  # type: ignore[misc]  # a default binds the loop's value
                    response.acknowledged = sequence
                    yield response
        finally:
            session.close()

    async def ReadSnapshotFile(
        self, request: pb.ReadSnapshotFileRequest, context: Context
    ) -> pb.ReadSnapshotFileResponse:
        """See the proto."""
        content = await asyncio.to_thread(self._manager.read, request.snapshot, request.path)
        return pb.ReadSnapshotFileResponse(content=content)


def _answers(
    session: SyncSession, request: pb.SyncWorkspaceRequest
) -> list[pb.SyncWorkspaceResponse]:
    """What one request leads to."""
    match request.WhichOneof("item"):
        case "open":
            opened = session.open(convert.opening_from_pb(request.open))
            parts = convert.opened_to_pb(opened)
            return [pb.SyncWorkspaceResponse(opened=part) for part in parts]
        case "stage":
            upserts = tuple(convert.entry_from_pb(entry) for entry in request.stage.upserts)
            part = Change(upserts, tuple(request.stage.deletes))
            needs = session.stage(part, last=request.stage.last)
            if needs is None:
                return []
            return [pb.SyncWorkspaceResponse(needs=convert.needs_to_pb(needs))]
        case "content":
            session.content(convert.run_from_pb(request.content))
            return []
        case "contents":
            for content in request.contents.contents:
                session.content(convert.run_from_pb(content))
            return []
        case "commit":
            committed = convert.committed_to_pb(session.commit(request.commit.snapshot))
            return [pb.SyncWorkspaceResponse(committed=committed)]
        case _:
            raise InvalidRequest("sync the workspace", "the message is empty")
