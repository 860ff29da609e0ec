"""Maps the wire's messages about jobs to dataclasses and back."""

from __future__ import annotations

from collections.abc import Iterable

from rdev.protocol.convert import duration, seconds_of, seconds_since_epoch, timestamp
from rdev.protocol.errors import InvalidRequest
from rdev.v1 import job_pb2
from rdev.wire.job import (
    DEFAULT_GRACE,
    Attempt,
    CommandKind,
    DebugStart,
    DebugStop,
    EnvironmentChoice,
    Gpu,
    GpuRequest,
    Job,
    JobSpec,
    JobState,
    LogFull,
    LoopPause,
    Reason,
    Stream,
    Usage,
    Window,
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
        timeout=None if spec.timeout is None else duration(spec.timeout),
        grace=duration(spec.grace),
        hook_disabled=not spec.hook,
        stdin=spec.stdin,
        processes=spec.processes,
        retries=spec.retries,
        keep_children=spec.keep_children,
        log_full=job_pb2.LogFull.Value(f"LOG_FULL_{spec.log_full.name}"),
        aside=spec.aside,
        env=choice_to_proto(spec.env),
        owner=spec.owner,
    )
    if spec.debug != DebugStart():
        message.debug.CopyFrom(start_to_proto(spec.debug))
    if spec.terminal is not None:
        message.terminal.CopyFrom(window_to_proto(spec.terminal))
    if spec.gpus is not None:
        gpus = job_pb2.GpuRequest(count=spec.gpus.count, devices=spec.gpus.devices)
        message.gpus.CopyFrom(gpus)
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
        timeout=seconds_of(message.timeout) if message.HasField("timeout") else None,
        grace=seconds_of(message.grace) if message.HasField("grace") else DEFAULT_GRACE,
        hook=not message.hook_disabled,
        terminal=window_from_proto(message.terminal) if message.HasField("terminal") else None,
        stdin=message.stdin,
        processes=message.processes,
        gpus=_gpu_request(message.gpus) if message.HasField("gpus") else None,
        retries=message.retries,
        keep_children=message.keep_children,
        log_full=_LOG_FULL.get(message.log_full, LogFull.DROP),
        aside=message.aside,
        env=choice_from_proto(message.env),
        owner=message.owner,
        debug=start_from_proto(message.debug),
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


def choice_to_proto(choice: EnvironmentChoice) -> job_pb2.EnvironmentChoice:
    """The message for `choice`."""
    return job_pb2.EnvironmentChoice(
        name=choice.name,
        active=choice.active,
        prelude=choice.prelude,
        managed=choice.managed,
        python=choice.python,
    )


def choice_from_proto(message: job_pb2.EnvironmentChoice) -> EnvironmentChoice:
    """The inverse of `choice_to_proto`."""
    return EnvironmentChoice(
        message.name, message.active, message.prelude, message.managed, message.python
    )


def _gpu_request(message: job_pb2.GpuRequest) -> GpuRequest:
    return GpuRequest(message.count, tuple(message.devices))


def window_to_proto(window: Window) -> job_pb2.Window:
    """The message for `window`."""
    return job_pb2.Window(rows=window.rows, columns=window.columns)


def window_from_proto(message: job_pb2.Window) -> Window:
    """The inverse of `window_to_proto`."""
    return Window(message.rows, message.columns)


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
        streams=_streams_to_proto(job.streams),
        stops=[_stop_to_proto(stop) for stop in job.stops],
        pauses=[_pause_to_proto(pause) for pause in job.pauses],
        revision=job.revision,
        message=job.message,
        ranks=job.ranks,
        attempt=job.attempt,
        attempts=[_attempt_to_proto(attempt) for attempt in job.attempts],
        usage=_usage_to_proto(job.usage) if job.usage is not None else None,
        gpus=[job_pb2.Gpu(index=g.index, uuid=g.uuid, name=g.name) for g in job.gpus],
        spared=job.spared,
        interpreter=job.interpreter,
        env=job.env,
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
        streams=_streams_from_proto(message.streams),
        stops=tuple(_stop_from_proto(stop) for stop in message.stops),
        pauses=tuple(_pause_from_proto(pause) for pause in message.pauses),
        revision=message.revision,
        message=message.message,
        ranks=message.ranks,
        attempt=message.attempt,
        attempts=tuple(_attempt_from_proto(attempt) for attempt in message.attempts),
        usage=_usage_from_proto(message.usage) if message.HasField("usage") else None,
        gpus=tuple(Gpu(g.index, g.uuid, g.name) for g in message.gpus),
        spared=tuple(message.spared),
        interpreter=message.interpreter,
        env=message.env,
    )


def _streams_to_proto(streams: Iterable[Stream]) -> list[job_pb2.Stream]:
    return [job_pb2.Stream(rank=s.rank, name=s.name, size=s.size) for s in streams]


def _streams_from_proto(messages: Iterable[job_pb2.Stream]) -> tuple[Stream, ...]:
    return tuple(Stream(s.rank, s.name, s.size) for s in messages)


def _attempt_to_proto(attempt: Attempt) -> job_pb2.Attempt:
    return job_pb2.Attempt(
        number=attempt.number,
        reason=job_pb2.TerminationReason.Value(_reason_name(attempt.reason)),
        exit_code=attempt.exit_code,
        signal=attempt.signal,
        started=timestamp(attempt.started),
        ended=timestamp(attempt.ended),
        message=attempt.message,
        ends=_streams_to_proto(attempt.ends),
    )


def _attempt_from_proto(message: job_pb2.Attempt) -> Attempt:
    return Attempt(
        number=message.number,
        reason=_REASONS.get(message.reason, Reason.NONE),
        exit_code=message.exit_code if message.HasField("exit_code") else None,
        signal=message.signal,
        started=seconds_since_epoch(message.started),
        ended=seconds_since_epoch(message.ended),
        message=message.message,
        ends=_streams_from_proto(message.ends),
    )


def _usage_to_proto(usage: Usage) -> job_pb2.Usage:
    return job_pb2.Usage(
        user_seconds=usage.user_seconds,
        system_seconds=usage.system_seconds,
        peak_memory=usage.peak_memory,
    )


def _usage_from_proto(message: job_pb2.Usage) -> Usage:
    return Usage(message.user_seconds, message.system_seconds, message.peak_memory)


def start_to_proto(start: DebugStart) -> job_pb2.DebugStart:
    """The message for `start`."""
    return job_pb2.DebugStart(
        at_start=start.at_start,
        on_exception=start.on_exception,
        step=start.step,
        on_nan=start.on_nan,
        from_step=start.from_step,
    )


def start_from_proto(message: job_pb2.DebugStart) -> DebugStart:
    """The inverse of `start_to_proto`."""
    return DebugStart(
        message.at_start, message.on_exception, message.step, message.on_nan, message.from_step
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
        until=timestamp(stop.until) if stop.until else None,
        unattended=stop.unattended,
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
        until=seconds_since_epoch(message.until) if message.HasField("until") else 0.0,
        unattended=message.unattended,
    )


def _pause_to_proto(pause: LoopPause) -> job_pb2.LoopPause:
    return job_pb2.LoopPause(
        rank=pause.rank,
        pid=pause.pid,
        step=pause.step,
        epoch=pause.epoch,
        phase=pause.phase,
        reason=pause.reason,
        since=timestamp(pause.since),
    )


def _pause_from_proto(message: job_pb2.LoopPause) -> LoopPause:
    return LoopPause(
        rank=message.rank,
        pid=message.pid,
        step=message.step,
        epoch=message.epoch,
        phase=message.phase,
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
_LOG_FULL: dict[int, LogFull] = {
    job_pb2.LogFull.Value(f"LOG_FULL_{choice.name}"): choice for choice in LogFull
}
