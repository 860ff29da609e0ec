"""Maps the wire's messages about agents and jobs to dataclasses and back."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from rdev.protocol.errors import InvalidRequest
from rdev.v1 import agent_pb2, job_pb2
from rdev.wire.job import (
    DEFAULT_GRACE,
    CommandKind,
    DebugStop,
    Job,
    JobSpec,
    JobState,
    Reason,
    Stream,
)


@dataclass(frozen=True, slots=True)
class AgentInfo:
    """Who answers at a host.

    Attributes:
        agent_id: Random id made at the agent's first start.
        version: Release of rdev.
        protocol: Revision of the wire.
        capabilities: Features it offers.
        boot_id: Kernel boot id of its machine.
        machine_id: Id of its machine.
        pid: Its process.
        uid: User that it and its jobs run as.
        started: Seconds since the epoch.
        home: Its state folder.
        python_version: Of the Python that runs it.
    """

    agent_id: str
    version: str
    protocol: int
    capabilities: frozenset[str]
    boot_id: str
    machine_id: str
    pid: int
    uid: int
    started: float
    home: str
    python_version: str


def timestamp(seconds: float) -> Timestamp | None:
    """Seconds since the epoch as a Timestamp; 0, which means "not yet", as none."""
    if not seconds:
        return None
    value = Timestamp()
    value.FromDatetime(datetime.fromtimestamp(seconds, UTC))
    return value


def seconds_since_epoch(value: Timestamp) -> float:
    """The inverse of `timestamp`; an unset one is 0."""
    return value.seconds + value.nanos / 1e9


def _duration(seconds: float) -> Duration:
    value = Duration()
    value.FromTimedelta(timedelta(seconds=seconds))
    return value


def _seconds(value: Duration) -> float:
    return value.seconds + value.nanos / 1e9


def agent_to_proto(info: AgentInfo) -> agent_pb2.Agent:
    """The message for `info`."""
    return agent_pb2.Agent(
        agent_id=info.agent_id,
        version=info.version,
        protocol=info.protocol,
        capabilities=sorted(info.capabilities),
        boot_id=info.boot_id,
        machine_id=info.machine_id,
        pid=info.pid,
        uid=info.uid,
        started=timestamp(info.started),
        home=info.home,
        python_version=info.python_version,
    )


def agent_from_proto(message: agent_pb2.Agent) -> AgentInfo:
    """The inverse of `agent_to_proto`."""
    return AgentInfo(
        agent_id=message.agent_id,
        version=message.version,
        protocol=message.protocol,
        capabilities=frozenset(message.capabilities),
        boot_id=message.boot_id,
        machine_id=message.machine_id,
        pid=message.pid,
        uid=message.uid,
        started=seconds_since_epoch(message.started),
        home=message.home,
        python_version=message.python_version,
    )


def spec_to_proto(spec: JobSpec) -> job_pb2.JobSpec:
    """The message for `spec`."""
    message = job_pb2.JobSpec(
        name=spec.name,
        args=spec.args,
        python=spec.python,
        workspace_id=spec.workspace_id,
        snapshot=spec.snapshot,
        directory=spec.directory,
        environment=dict(spec.environment),
        timeout=None if spec.timeout is None else _duration(spec.timeout),
        grace=_duration(spec.grace),
        hook_disabled=not spec.hook,
    )
    if spec.kind is CommandKind.SCRIPT:
        message.script.path = spec.target
    elif spec.kind is CommandKind.MODULE:
        message.module.name = spec.target
    else:
        message.program.name = spec.target
    return message


def spec_from_proto(message: job_pb2.JobSpec) -> JobSpec:
    """The inverse of `spec_to_proto`.

    Raises:
        InvalidRequest: The message names no command.
    """
    kind, target = _command(message)
    return JobSpec(
        kind=kind,
        target=target,
        args=tuple(message.args),
        name=message.name,
        python=message.python,
        workspace_id=message.workspace_id,
        snapshot=message.snapshot,
        directory=message.directory,
        environment=dict(message.environment),
        timeout=_seconds(message.timeout) if message.HasField("timeout") else None,
        grace=_seconds(message.grace) if message.HasField("grace") else DEFAULT_GRACE,
        hook=not message.hook_disabled,
    )


def _command(message: job_pb2.JobSpec) -> tuple[CommandKind, str]:
    which = message.WhichOneof("command")
    if which == "script":
        return CommandKind.SCRIPT, message.script.path
    if which == "module":
        return CommandKind.MODULE, message.module.name
    if which == "program":
        return CommandKind.PROGRAM, message.program.name
    raise InvalidRequest("accept the job", "it names no command")


def job_to_proto(job: Job) -> job_pb2.Job:
    """The message for `job`."""
    return job_pb2.Job(
        id=job.id,
        name=job.name,
        spec=spec_to_proto(job.spec),
        state=job_pb2.JobState.Value(f"JOB_STATE_{job.state.name}"),
        reason=job_pb2.TerminationReason.Value(_reason_name(job.reason)),
        exit_code=job.exit_code,
        signal=job.signal,
        pid=job.pid,
        created=timestamp(job.created),
        started=timestamp(job.started),
        ended=timestamp(job.ended),
        argv=job.argv,
        directory=job.directory,
        streams=[job_pb2.Stream(rank=s.rank, name=s.name, size=s.size) for s in job.streams],
        stops=[_stop_to_proto(stop) for stop in job.stops],
        revision=job.revision,
        message=job.message,
    )


def job_from_proto(message: job_pb2.Job) -> Job:
    """The inverse of `job_to_proto`; an unknown state becomes LOST, an unknown reason NONE."""
    return Job(
        id=message.id,
        name=message.name,
        spec=spec_from_proto(message.spec),
        state=_STATES.get(message.state, JobState.LOST),
        reason=_REASONS.get(message.reason, Reason.NONE),
        exit_code=message.exit_code if message.HasField("exit_code") else None,
        signal=message.signal,
        pid=message.pid,
        created=seconds_since_epoch(message.created),
        started=seconds_since_epoch(message.started),
        ended=seconds_since_epoch(message.ended),
        argv=tuple(message.argv),
        directory=message.directory,
        streams=tuple(Stream(s.rank, s.name, s.size) for s in message.streams),
        stops=tuple(_stop_from_proto(stop) for stop in message.stops),
        revision=message.revision,
        message=message.message,
    )


def _stop_to_proto(stop: DebugStop) -> job_pb2.DebugStop:
    return job_pb2.DebugStop(
        rank=stop.rank,
        pid=stop.pid,
        file=stop.file,
        line=stop.line,
        function=stop.function,
        reason=stop.reason,
        since=timestamp(stop.since),
    )


def _stop_from_proto(message: job_pb2.DebugStop) -> DebugStop:
    return DebugStop(
        rank=message.rank,
        pid=message.pid,
        file=message.file,
        line=message.line,
        function=message.function,
        reason=message.reason,
        since=seconds_since_epoch(message.since),
    )


def _reason_name(reason: Reason) -> str:
    return f"TERMINATION_REASON_{'UNSPECIFIED' if reason is Reason.NONE else reason.name}"


_STATES: dict[int, JobState] = {
    job_pb2.JobState.Value(f"JOB_STATE_{state.name}"): state for state in JobState
}
_REASONS: dict[int, Reason] = {
    job_pb2.TerminationReason.Value(_reason_name(reason)): reason for reason in Reason
}
