"""AgentService: who answers, and how to end it."""

from __future__ import annotations

import asyncio

from rdev.agent.services import Context
from rdev.protocol.convert import AgentInfo, agent_to_proto
from rdev.protocol.errors import FeatureMissing
from rdev.v1 import agent_pb2, agent_pb2_grpc


class AgentService(agent_pb2_grpc.AgentServiceServicer):
    """Serves the agent's own description.

    Args:
        info: The description.
        stopping: Set when a client asks the agent to end.
    """

    def __init__(self, info: AgentInfo, stopping: asyncio.Event) -> None:
        self._info = info
        self._stopping = stopping

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
        self, request: agent_pb2.CheckMachineRequest, context: Context
    ) -> agent_pb2.CheckMachineResponse:
        """Looks at all that a job may stumble over here."""
        raise FeatureMissing("check the machine", "this agent cannot")
