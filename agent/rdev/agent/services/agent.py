"""AgentService: who answers, and how to end it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from rdev.agent.services import Context
from rdev.protocol.convert import AgentInfo, agent_to_proto, seconds_since_epoch
from rdev.protocol.finding import Finding, finding_to_proto
from rdev.v1 import agent_pb2, agent_pb2_grpc


class AgentService(agent_pb2_grpc.AgentServiceServicer):
    """Serves the agent's own description.

    Args:
        info: The description.
        stopping: Set when a client asks the agent to end.
        check: Looks at the machine; given the seconds that the caller's clock is ahead, if it said.
            It blocks.
    """

    def __init__(
        self,
        info: AgentInfo,
        stopping: asyncio.Event,
        *,
        check: Callable[[float | None], list[Finding]],
    ) -> None:
        self._info = info
        self._stopping = stopping
        self._check = check

    async def GetAgent(
        self,
        request: agent_pb2.GetAgentRequest,
        context: Context,
    ) -> agent_pb2.GetAgentResponse:
        """See agent.proto."""
        return agent_pb2.GetAgentResponse(agent=agent_to_proto(self._info))

    async def StopAgent(
        self,
        request: agent_pb2.StopAgentRequest,
        context: Context,
    ) -> agent_pb2.StopAgentResponse:
        """See agent.proto."""
        self._stopping.set()
        return agent_pb2.StopAgentResponse()

    async def CheckMachine(
        self,
        request: agent_pb2.CheckMachineRequest,
        context: Context,
    ) -> agent_pb2.CheckMachineResponse:
        """See agent.proto."""
        said = request.HasField("now")
        skew = seconds_since_epoch(request.now) - time.time() if said else None
        findings = await asyncio.to_thread(self._check, skew)
        return agent_pb2.CheckMachineResponse(
            findings=[finding_to_proto(finding) for finding in findings]
        )
