"""ControlService on the wire; nothing is decided here."""

from __future__ import annotations

import json
from typing import Any

import grpc

from rdev.agent.control.manager import PATIENCE, ControlManager, Order, Outcome
from rdev.agent.control.why import Account
from rdev.protocol.errors import InvalidRequest
from rdev.protocol.ids import JOB_ID, require
from rdev.v1 import control_pb2 as pb
from rdev.v1 import control_pb2_grpc
from rdev.wire.control import MAX_ANSWER, Verb

_CONTROL = "control the job"


class ControlService(control_pb2_grpc.ControlServiceServicer):
    """Serves one manager."""

    def __init__(self, manager: ControlManager) -> None:
        self._manager = manager

    async def ControlJob(
        self,
        request: pb.ControlJobRequest,
        context: grpc.aio.ServicerContext[pb.ControlJobRequest, pb.ControlJobResponse],
    ) -> pb.ControlJobResponse:
        """See the proto."""
        del context
        outcomes = await self._manager.control(_order(request))
        return pb.ControlJobResponse(outcomes=[_outcome(outcome) for outcome in outcomes])

    async def SetProbe(
        self,
        request: pb.SetProbeRequest,
        context: grpc.aio.ServicerContext[pb.SetProbeRequest, pb.SetProbeResponse],
    ) -> pb.SetProbeResponse:
        """See the proto."""
        del context
        job_id = require(JOB_ID, request.job_id, "job id")
        return pb.SetProbeResponse(ranks=await self._manager.set_probe(job_id, armed=request.armed))

    async def ExplainJob(
        self,
        request: pb.ExplainJobRequest,
        context: grpc.aio.ServicerContext[pb.ExplainJobRequest, pb.ExplainJobResponse],
    ) -> pb.ExplainJobResponse:
        """See the proto."""
        del context
        line, accounts = await self._manager.explain(require(JOB_ID, request.job_id, "job id"))
        return pb.ExplainJobResponse(
            verdict=line, ranks=[_account(account) for account in accounts]
        )


def _order(request: pb.ControlJobRequest) -> Order:
    patience = request.patience.ToTimedelta().total_seconds()
    return Order(
        job_id=require(JOB_ID, request.job_id, "job id"),
        request_id=request.request_id or _missing("it has no request id"),
        verb=_verb(request.verb),
        args=_arguments(request.arguments),
        by=request.asked_by,
        patience=patience if request.HasField("patience") and patience > 0 else PATIENCE,
    )


_VERBS: dict[int, Verb] = {pb.ControlVerb.Value(f"CONTROL_VERB_{verb.name}"): verb for verb in Verb}


def _verb(number: int) -> Verb:
    if number not in _VERBS:
        raise InvalidRequest(_CONTROL, f"this agent knows no verb {number}")
    return _VERBS[number]


def _arguments(text: str) -> dict[str, Any]:
    if len(text) > MAX_ANSWER:
        raise InvalidRequest(_CONTROL, "the arguments are longer than 64 KiB")
    try:
        arguments = json.loads(text or "{}")
    except ValueError as error:
        raise InvalidRequest(_CONTROL, f"the arguments are no JSON: {error}") from error
    if not isinstance(arguments, dict):
        raise InvalidRequest(_CONTROL, "the arguments are no object")
    return arguments


def _missing(cause: str) -> str:
    raise InvalidRequest(_CONTROL, cause)


def _outcome(outcome: Outcome) -> pb.ControlOutcome:
    return pb.ControlOutcome(
        rank=outcome.rank,
        pid=outcome.pid,
        step=outcome.step,
        epoch=outcome.epoch,
        phase=outcome.phase,
        answer=json.dumps(dict(outcome.answer)),
        cause=outcome.cause,
    )


def _account(account: Account) -> pb.RankAccount:
    frame = account.frame
    return pb.RankAccount(
        rank=account.rank,
        pid=account.pid,
        step=account.step,
        doing=account.stage if account.doing == "is" else account.doing,
        file=frame.file if frame else "",
        line=frame.line if frame else 0,
        function=frame.function if frame else "",
    )
