"""What a job's files say: each record as a dataclass, and as the JSON that is written.

Records are read by every later release: a field may be added with a default and is never renamed;
keys that a reader does not know are left out. `rdev.wire.files` says where each lies.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any, TypeVar

from rdev.wire.job import (
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

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Accepted:
    """A job as the agent accepted it; `spec.json`.

    Attributes:
        id: The job's id.
        name: Its name.
        request_id: The request that made it; a repeated one finds it.
        created: Seconds since the epoch.
        boot_id: The kernel's boot id then; another one means that the job's processes are gone.
        spec: What was asked for.
        argv: The command line.
        directory: The folder it runs in.
        ranks: How many ranks it has.
        interpreter: Of its scripts and modules, as found on the host; empty for programs.
        env: The environment that it runs in, in words.
    """

    id: str
    name: str
    request_id: str
    created: float
    boot_id: str
    spec: JobSpec
    argv: tuple[str, ...]
    directory: str
    ranks: int = 1
    interpreter: str = ""
    env: str = ""

    def to_json(self) -> dict[str, Any]:
        """As the object in the file."""
        return _object(self)

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> Accepted:
        """From the object in the file."""
        known = _known(cls, body)
        return cls(**{**known, "spec": spec_from_json(body["spec"]), "argv": tuple(body["argv"])})


@dataclass(frozen=True, slots=True)
class Launch:
    """What the keeper executes; `launch.json`.

    Attributes:
        id: The job's id.
        argv: The command line; its first word is looked up on the environment's PATH.
        environment: The whole environment.
        directory: The folder it runs in.
        umask: Its file mode mask.
        grace: Seconds between TERM and KILL.
        timeout: Seconds it may run; None means for ever.
        terminal: The size of its terminal; None gives it pipes.
        stdin: Its input is what clients write; else there is none.
        ranks: How many ranks it has.
        launcher: The command starts the ranks, each of which opens its outputs by itself.
        retries: How often it is started again after a failure.
        keep_children: Spare what it leaves behind when it ends by itself.
        log_full: What happens when its output cannot be kept.
        log_most: Bytes that each of its outputs may take; None is no limit.
        limits: The login's resource limits, by name as in `nofile`: the soft and the hard one.
        nice: The login's niceness; None leaves it the agent's.
        cpus: The CPUs that the login may use; empty leaves it the agent's.
    """

    id: str
    argv: tuple[str, ...]
    environment: Mapping[str, str]
    directory: str
    umask: int
    grace: float
    timeout: float | None
    terminal: Window | None = None
    stdin: bool = False
    ranks: int = 1
    launcher: bool = False
    retries: int = 0
    keep_children: bool = False
    log_full: LogFull = LogFull.DROP
    log_most: int | None = None
    limits: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    nice: int | None = None
    cpus: tuple[int, ...] = ()

    @property
    def takes_input(self) -> bool:
        """True if what clients write reaches it."""
        return self.stdin or self.terminal is not None

    @property
    def main_outputs(self) -> tuple[tuple[int, str], tuple[int, str]]:
        """The (rank, stream) that the main process's fd 1 and fd 2 are."""
        if self.launcher:
            return (0, "launcher"), (0, "launcher")
        return (0, "stdout"), (0, "stdout" if self.terminal else "stderr")

    @property
    def outputs(self) -> tuple[tuple[int, str], ...]:
        """All its (rank, stream) pairs; a terminal has one, which is called stdout."""
        main = tuple(dict.fromkeys(self.main_outputs))
        if not self.launcher:
            return main
        ranks = ((rank, stream) for rank in range(self.ranks) for stream in ("stdout", "stderr"))
        return (*main, *ranks)

    def to_json(self) -> dict[str, Any]:
        """As the object in the file."""
        return _object(self)

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> Launch:
        """From the object in the file."""
        terminal = body.get("terminal")
        return cls(
            **{
                **_known(cls, body),
                "argv": tuple(body["argv"]),
                "terminal": _plainly(Window, terminal) if terminal else None,
                "log_full": LogFull(body.get("log_full", "drop")),
                "limits": {name: (s, h) for name, (s, h) in body.get("limits", {}).items()},
                "cpus": tuple(body.get("cpus", ())),
            }
        )


@dataclass(frozen=True, slots=True)
class Started:
    """The command may have executed from here on; that attempt will not be executed again.

    Attributes:
        pid: The main process.
        ticks: Its start time in clock ticks since boot, which tells it from a later process.
        time: Seconds since the epoch.
        monotonic: The same moment on CLOCK_MONOTONIC, for the timeout.
        attempt: Which attempt it is.
    """

    pid: int
    ticks: int
    time: float
    monotonic: float
    attempt: int = 1

    def to_json(self) -> dict[str, Any]:
        """As the record in the block."""
        return _object(self)

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> Started:
        """From the record in the block."""
        return _plainly(cls, body)


@dataclass(frozen=True, slots=True)
class Exit:
    """How the main process of an attempt ended.

    Attributes:
        status: The raw wait status.
        time: Seconds since the epoch.
        error: errno of the failed start; 0 if the command was executed.
        message: What failed in the start.
        attempt: Which attempt it was.
        usage: What the job has used, all attempts together; None if that is not known.
        oom_kills: How many processes the kernel had killed for want of memory in the job's
            control group, or on the machine, while it ran; 0 if that is not known.
    """

    status: int
    time: float
    error: int = 0
    message: str = ""
    attempt: int = 1
    usage: Usage | None = None
    oom_kills: int = 0

    def to_json(self) -> dict[str, Any]:
        """As the record in the block."""
        return _object(self)

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> Exit:
        """From the record in the block."""
        return cls(**{**_known(cls, body), "usage": _usage(body)})


@dataclass(frozen=True, slots=True)
class Status:
    """What changes about a job; the attributes of `Job` of the same names, and how it is stopped.

    Attributes:
        stop_reason: Why it is being stopped: NONE, STOPPED, TIMEOUT or QUOTA.
        kill_at: When KILL follows, on CLOCK_MONOTONIC; 0 if it is not being stopped.
        stop_all: The stop spares nothing that it spares otherwise.
        held: Seconds for which the debugger or a pause held a rank in this attempt, up to the last
            release.
        held_since: Since when one is held, in seconds since the epoch; 0 if none is.
        signals: The signals that were sent on request.
    """

    state: JobState = JobState.PENDING
    reason: Reason = Reason.NONE
    exit_code: int | None = None
    signal: int = 0
    pid: int = 0
    started: float = 0.0
    ended: float = 0.0
    stops: tuple[DebugStop, ...] = ()
    pauses: tuple[LoopPause, ...] = ()
    revision: int = 1
    message: str = ""
    stop_reason: Reason = Reason.NONE
    kill_at: float = 0.0
    signals: tuple[int, ...] = ()
    attempt: int = 1
    attempts: tuple[Attempt, ...] = ()
    usage: Usage | None = None
    gpus: tuple[Gpu, ...] = ()
    spared: tuple[str, ...] = ()
    stop_all: bool = False
    held: float = 0.0
    held_since: float = 0.0

    def to_json(self) -> dict[str, Any]:
        """As the record in the block and in the `state` message of the control socket."""
        return _object(self)

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> Status:
        """From the record in the block or the `state` message."""
        return cls(
            **{
                **_known(cls, body),
                "state": JobState(body["state"]),
                "reason": Reason(body["reason"]),
                "stop_reason": Reason(body["stop_reason"]),
                "stops": tuple(_plainly(DebugStop, stop) for stop in body["stops"]),
                "pauses": tuple(_plainly(LoopPause, one) for one in body.get("pauses", ())),
                "signals": tuple(body["signals"]),
                "attempts": tuple(map(_attempt, body.get("attempts", ()))),
                "usage": _usage(body),
                "gpus": tuple(_plainly(Gpu, gpu) for gpu in body.get("gpus", ())),
                "spared": tuple(body.get("spared", ())),
            }
        )


def spec_to_json(spec: JobSpec) -> dict[str, Any]:
    """A specification as an object of JSON."""
    return _object(spec)


def spec_from_json(body: Mapping[str, Any]) -> JobSpec:
    """A specification from its object; unknown keys of a later release are left out."""
    terminal, gpus = body.get("terminal"), body.get("gpus")
    return JobSpec(
        **{
            **_known(JobSpec, body),
            "kind": CommandKind(body["kind"]),
            "args": tuple(body["args"]),
            "terminal": _plainly(Window, terminal) if terminal else None,
            "gpus": GpuRequest(gpus["count"], tuple(gpus["devices"])) if gpus else None,
            "log_full": LogFull(body.get("log_full", "drop")),
            "env": _plainly(EnvironmentChoice, body.get("env", {})),
            "debug": _plainly(DebugStart, body.get("debug", {})),
        }
    )


def job_of(accepted: Accepted, status: Status, streams: tuple[Stream, ...] = ()) -> Job:
    """The job that the two files and the sizes of its logs describe."""
    shared = {"state", "reason", "exit_code", "signal", "pid", "started", "ended", "stops"}
    shared |= {"pauses", "revision", "message", "attempt", "attempts", "usage", "gpus", "spared"}
    return Job(
        id=accepted.id,
        name=accepted.name,
        spec=accepted.spec,
        created=accepted.created,
        argv=accepted.argv,
        directory=accepted.directory,
        ranks=accepted.ranks,
        interpreter=accepted.interpreter,
        env=accepted.env,
        streams=streams,
        **{name: getattr(status, name) for name in shared},
    )


def _attempt(body: Mapping[str, Any]) -> Attempt:
    ends = tuple(_plainly(Stream, end) for end in body["ends"])
    return Attempt(**{**_known(Attempt, body), "reason": Reason(body["reason"]), "ends": ends})


def _usage(body: Mapping[str, Any]) -> Usage | None:
    usage = body.get("usage")
    return _plainly(Usage, usage) if usage else None


def _object(record: Any) -> dict[str, Any]:  # noqa: ANN401  # any dataclass
    return {name: _plain(getattr(record, name)) for name in _slots(type(record))}


def _plain(value: Any) -> Any:  # noqa: ANN401  # whatever a record holds
    """A record as JSON has it: dataclasses as objects, enums as their values."""
    if is_dataclass(value):
        return _object(value)
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return dict(value) if isinstance(value, Mapping) else value


def _plainly(cls: type[_T], body: Mapping[str, Any]) -> _T:
    """A dataclass of numbers and texts from its object."""
    return cls(**_known(cls, body))


def _known(cls: type, body: Mapping[str, Any]) -> dict[str, Any]:
    """What the class has a field for; a later release may have written more."""
    return {name: body[name] for name in _slots(cls) if name in body}


def _slots(cls: Any) -> tuple[str, ...]:  # noqa: ANN401  # any dataclass
    return tuple(field.name for field in fields(cls))
