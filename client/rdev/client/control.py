"""Controls the loops of a running job: pause, step, set, and why it stands still."""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from google.protobuf.duration_pb2 import Duration

from rdev.client.connection import Connection, persisting, translating
from rdev.v1 import control_pb2 as pb
from rdev.v1 import control_pb2_grpc
from rdev.wire.control import Verb


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a request in one rank.

    Attributes:
        rank: The rank.
        pid: Its process.
        step: The step after which it was served.
        epoch: The epoch it belongs to.
        phase: The phase within the step; empty at a step's end.
        answer: What the verb answers, see `rdev.wire.control.Verb`.
        cause: Why it was refused; empty if it was not.
    """

    rank: int
    pid: int
    step: int
    epoch: int
    phase: str
    answer: Mapping[str, Any]
    cause: str


@dataclass(frozen=True, slots=True)
class Account:
    """What one rank does; `step` is None if nobody counts them, `line` 0 if it is not known."""

    rank: int
    pid: int
    step: int | None
    doing: str
    file: str
    line: int
    function: str


@dataclass(frozen=True, slots=True)
class Explanation:
    """What a job does or what holds it up: one line, and what it follows from."""

    verdict: str
    ranks: tuple[Account, ...]


class Control:
    """Controls jobs of one host.

    Args:
        connection: To the host's agent.
        by: Who asks, as `user@laptop`; recorded in the job's events.
    """

    def __init__(self, connection: Connection, *, by: str = "") -> None:
        self._connection = connection
        self._by = by
        self._stub = control_pb2_grpc.ControlServiceStub(connection.channel)

    async def ask(
        self,
        job_id: str,
        verb: Verb,
        args: Mapping[str, Any] | None = None,
        *,
        patience: float | None = None,
    ) -> Sequence[Outcome]:
        """Asks all ranks, which serve it after the same step, and waits until they have.

        An agent that is replaced meanwhile is asked again; the request is served once.

        Args:
            job_id: Full id.
            verb: What is asked.
            args: Its arguments.
            patience: Seconds until it is withdrawn; the agent's own if None.

        Raises:
            JobConflict: No run is under way, and none can be watched.
            JobNotRunning: The job has ended.
            TimedOut: A rank reached no boundary in time; nothing will be served later.
        """
        request = pb.ControlJobRequest(
            job_id=job_id,
            request_id=secrets.token_hex(8),
            verb=pb.ControlVerb.Value(f"CONTROL_VERB_{verb.name}"),
            arguments=json.dumps(dict(args or {})),
            asked_by=self._by,
        )
        if patience is not None:
            duration = Duration()
            duration.FromNanoseconds(round(patience * 1e9))
            request.patience.CopyFrom(duration)

        async def call() -> pb.ControlJobResponse:
            with translating(f"{verb.value} job {job_id}"):
                return await self._stub.ControlJob(request)

        response = await persisting(self._connection, call)
        return [_outcome(outcome) for outcome in response.outcomes]

    async def set_probe(self, job_id: str, *, armed: bool) -> Sequence[int]:
        """Arms or disarms the live probe; returns the ranks.

        Raises:
            JobConflict: It cannot be armed.
        """
        with translating(f"{'watch' if armed else 'unwatch'} job {job_id}"):
            request = pb.SetProbeRequest(job_id=job_id, armed=armed)
            return tuple((await self._stub.SetProbe(request)).ranks)

    async def explain(self, job_id: str) -> Explanation:
        """Says what a job does or what holds it up, within three seconds."""
        with translating(f"explain job {job_id}"):
            response = await self._stub.ExplainJob(pb.ExplainJobRequest(job_id=job_id))
        return Explanation(response.verdict, tuple(_account(rank) for rank in response.ranks))


def _outcome(outcome: pb.ControlOutcome) -> Outcome:
    return Outcome(
        rank=outcome.rank,
        pid=outcome.pid,
        step=outcome.step,
        epoch=outcome.epoch,
        phase=outcome.phase,
        answer=json.loads(outcome.answer or "{}"),
        cause=outcome.cause,
    )


def _account(account: pb.RankAccount) -> Account:
    return Account(
        rank=account.rank,
        pid=account.pid,
        step=account.step if account.HasField("step") else None,
        doing=account.doing,
        file=account.file,
        line=account.line,
        function=account.function,
    )
