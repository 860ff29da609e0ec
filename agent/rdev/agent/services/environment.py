"""EnvironmentService: finds, shows and makes the environments that jobs run in."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from rdev.agent.environment.found import Environment, Kind
from rdev.agent.environment.manager import EnvironmentManager
from rdev.agent.services import Context
from rdev.protocol.convert_job import choice_from_proto
from rdev.protocol.errors import RdevError
from rdev.v1 import environment_pb2, environment_pb2_grpc

_KINDS = {
    Kind.SYSTEM: environment_pb2.ENVIRONMENT_KIND_SYSTEM,
    Kind.VENV: environment_pb2.ENVIRONMENT_KIND_VENV,
    Kind.CONDA: environment_pb2.ENVIRONMENT_KIND_CONDA,
    Kind.MANAGED: environment_pb2.ENVIRONMENT_KIND_MANAGED,
}


class EnvironmentService(environment_pb2_grpc.EnvironmentServiceServicer):
    """Serves the environments of one manager."""

    def __init__(self, manager: EnvironmentManager) -> None:
        self._manager = manager

    async def ListEnvironments(
        self, request: environment_pb2.ListEnvironmentsRequest, context: Context
    ) -> environment_pb2.ListEnvironmentsResponse:
        """See environment.proto."""
        found = await self._manager.find(request.workspace_id, module=request.module)
        return environment_pb2.ListEnvironmentsResponse(environments=map(_to_proto, found))

    async def ShowEnvironment(
        self, request: environment_pb2.ShowEnvironmentRequest, context: Context
    ) -> environment_pb2.ShowEnvironmentResponse:
        """See environment.proto."""
        choice = choice_from_proto(request.env)
        prepared, difference = await self._manager.show(
            request.workspace_id, request.python, choice
        )
        changed = difference.values.keys() | difference.added.keys()
        return environment_pb2.ShowEnvironmentResponse(
            environment=_to_proto(prepared.environment) if prepared.environment else None,
            why=prepared.why,
            variables={_text(name): _text(prepared.variables[name]) for name in changed},
            removed=map(_text, sorted(difference.removed)),
        )

    async def SyncEnvironment(
        self, request: environment_pb2.SyncEnvironmentRequest, context: Context
    ) -> AsyncIterator[environment_pb2.SyncEnvironmentResponse]:
        """See environment.proto."""
        lines: asyncio.Queue[str | None] = asyncio.Queue()
        async with asyncio.TaskGroup() as group:
            work = group.create_task(self._sync(request, lines))
            while (line := await lines.get()) is not None:
                yield environment_pb2.SyncEnvironmentResponse(line=_text(line))
        outcome = work.result()
        if isinstance(outcome, RdevError):
            raise outcome
        made = _to_proto(outcome) if outcome is not None else None
        yield environment_pb2.SyncEnvironmentResponse(environment=made)

    async def _sync(
        self,
        request: environment_pb2.SyncEnvironmentRequest,
        lines: asyncio.Queue[str | None],
    ) -> Environment | RdevError | None:
        """Makes it; tells its lines, and None at the end. A group would wrap what it raises."""
        try:
            return await self._manager.sync(
                request.workspace_id,
                request.python,
                choice_from_proto(request.env),
                tell=lines.put_nowait,
                refresh=request.refresh,
            )
        except RdevError as error:
            return error
        finally:
            lines.put_nowait(None)


def _to_proto(environment: Environment) -> environment_pb2.Environment:
    return environment_pb2.Environment(
        name=_text(environment.name),
        kind=_KINDS[environment.kind],
        prefix=_text(environment.prefix),
        python=_text(environment.python),
        version=environment.version,
        torch=environment.torch,
    )


def _text(value: str) -> str:
    """Without the bytes of a variable or a path that are no text, which a message cannot carry."""
    return value.encode(errors="backslashreplace").decode()
