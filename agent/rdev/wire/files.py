"""The job's directory: where everything of one job lies, and in which format.

    <job>/spec.json        what was asked for and how it was resolved       agent, once
    <job>/launch.json      what the keeper executes                         agent, once
    <job>/state            block: the job's status                          supervisor (agent: LOST)
    <job>/started          block: written before the command may execute    keeper, once
    <job>/exit             block: the raw wait status                       keeper, once
    <job>/events           the events, one JSON object a line               supervisor
    <job>/job.sock         the control socket, see rdev.wire.channel        supervisor
    <job>/keeper.lock      held while a keeper lives; so supervisor.lock    keeper, supervisor
    <job>/supervisor.log   what keeper and supervisor have to complain of
    <job>/fifo/<rank>.<stream>        what the job writes into
    <job>/logs/<rank>.<stream>        raw bytes; the offset in the file is the offset in the stream
    <job>/logs/<rank>.<stream>.gaps   ranges of it that could not be kept
    <job>/logs/index                  what arrived when, over all ranks and streams

Blocks are what `rdev.wire.blocks` says, gaps and index what `rdev.wire.output` says.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from rdev.wire.blocks import read_block
from rdev.wire.job import CommandKind, DebugStop, Job, JobSpec, JobState, Reason, Stream
from rdev.wire.output import read_gaps

# The largest status, with a stop for each of many ranks, fits; the others are some hundred bytes.
STATE_SLOT = 64 << 10
SMALL_SLOT = 2 << 10


@dataclass(frozen=True, slots=True)
class JobFiles:
    """The paths in one job's directory."""

    directory: str

    def path(self, name: str) -> str:
        """The path of the file of that name in the directory."""
        return os.path.join(self.directory, name)

    @property
    def spec(self) -> str:
        """What was asked for, `Accepted`."""
        return self.path("spec.json")

    @property
    def launch(self) -> str:
        """What the keeper executes, `Launch`."""
        return self.path("launch.json")

    @property
    def state(self) -> str:
        """Block of the `Status`."""
        return self.path("state")

    @property
    def started(self) -> str:
        """Block of the `Started` marker."""
        return self.path("started")

    @property
    def exit(self) -> str:
        """Block of the `Exit`."""
        return self.path("exit")

    @property
    def events(self) -> str:
        """The events."""
        return self.path("events")

    @property
    def socket(self) -> str:
        """The control socket."""
        return self.path("job.sock")

    @property
    def keeper_lock(self) -> str:
        """Locked by the keeper for as long as it lives."""
        return self.path("keeper.lock")

    @property
    def supervisor_lock(self) -> str:
        """Locked by the supervisor for as long as it lives."""
        return self.path("supervisor.lock")

    @property
    def complaints(self) -> str:
        """What keeper and supervisor write to their stderr."""
        return self.path("supervisor.log")

    @property
    def index(self) -> str:
        """What arrived when."""
        return self.path("logs/index")

    def fifo(self, rank: int, stream: str) -> str:
        """What that output is written into."""
        return self.path(f"fifo/{rank}.{stream}")

    def log(self, rank: int, stream: str) -> str:
        """That output's bytes."""
        return self.path(f"logs/{rank}.{stream}")

    def gaps(self, rank: int, stream: str) -> str:
        """The gaps in that output."""
        return self.path(f"logs/{rank}.{stream}.gaps")

    def outputs(self) -> list[tuple[int, str]]:
        """The (rank, stream) pairs that have a log, in order."""
        found = []
        with contextlib.suppress(FileNotFoundError):
            for name in os.listdir(self.path("logs")):
                rank, dot, stream = name.partition(".")
                if dot and rank.isdecimal() and "." not in stream:
                    found.append((int(rank), stream))
        return sorted(found, key=lambda output: (output[0], output[1] != "stdout", output[1]))


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
    """

    id: str
    name: str
    request_id: str
    created: float
    boot_id: str
    spec: JobSpec
    argv: tuple[str, ...]
    directory: str

    def to_json(self) -> dict[str, Any]:
        """As the object in the file."""
        return {**_plain(self, "spec"), "spec": spec_to_json(self.spec)}

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
    """

    id: str
    argv: tuple[str, ...]
    environment: Mapping[str, str]
    directory: str
    umask: int
    grace: float
    timeout: float | None

    def to_json(self) -> dict[str, Any]:
        """As the object in the file."""
        return _plain(self)

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> Launch:
        """From the object in the file."""
        return cls(**{**_known(cls, body), "argv": tuple(body["argv"])})


@dataclass(frozen=True, slots=True)
class Started:
    """The command may have executed from here on; it will not be executed again.

    Attributes:
        pid: The main process.
        ticks: Its start time in clock ticks since boot, which tells it from a later process.
        time: Seconds since the epoch.
        monotonic: The same moment on CLOCK_MONOTONIC, for the timeout.
    """

    pid: int
    ticks: int
    time: float
    monotonic: float

    def to_json(self) -> dict[str, Any]:
        """As the record in the block."""
        return _plain(self)

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> Started:
        """From the record in the block."""
        return cls(**_known(cls, body))


@dataclass(frozen=True, slots=True)
class Exit:
    """How the main process ended.

    Attributes:
        status: The raw wait status.
        time: Seconds since the epoch.
        error: errno of the failed start; 0 if the command was executed.
        message: What failed in the start.
    """

    status: int
    time: float
    error: int = 0
    message: str = ""

    def to_json(self) -> dict[str, Any]:
        """As the record in the block."""
        return _plain(self)

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> Exit:
        """From the record in the block."""
        return cls(**_known(cls, body))


@dataclass(frozen=True, slots=True)
class Status:
    """What changes about a job; the attributes of `Job` of the same names, and how it is stopped.

    Attributes:
        stop_reason: Why it is being stopped: NONE, STOPPED or TIMEOUT.
        kill_at: When KILL follows, on CLOCK_MONOTONIC; 0 if it is not being stopped.
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
    revision: int = 1
    message: str = ""
    stop_reason: Reason = Reason.NONE
    kill_at: float = 0.0
    signals: tuple[int, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """As the record in the block and in the `state` message of the control socket."""
        enums = {name: getattr(self, name).value for name in ("state", "reason", "stop_reason")}
        return {**_plain(self, *enums), **enums, "stops": [asdict(stop) for stop in self.stops]}

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> Status:
        """From the record in the block or the `state` message."""
        return cls(
            **{
                **_known(cls, body),
                "state": JobState(body["state"]),
                "reason": Reason(body["reason"]),
                "stop_reason": Reason(body["stop_reason"]),
                "stops": tuple(DebugStop(**stop) for stop in body["stops"]),
                "signals": tuple(body["signals"]),
            }
        )


def spec_to_json(spec: JobSpec) -> dict[str, Any]:
    """A specification as an object of JSON."""
    return {**_plain(spec, "kind"), "kind": spec.kind.value}


def spec_from_json(body: Mapping[str, Any]) -> JobSpec:
    """A specification from its object; unknown keys of a later release are left out."""
    known = _known(JobSpec, body)
    return JobSpec(**{**known, "kind": CommandKind(body["kind"]), "args": tuple(body["args"])})


def job_of(accepted: Accepted, status: Status, streams: tuple[Stream, ...] = ()) -> Job:
    """The job that the two files and the sizes of its logs describe."""
    return Job(
        id=accepted.id,
        name=accepted.name,
        spec=accepted.spec,
        created=accepted.created,
        argv=accepted.argv,
        directory=accepted.directory,
        streams=streams,
        state=status.state,
        reason=status.reason,
        exit_code=status.exit_code,
        signal=status.signal,
        pid=status.pid,
        started=status.started,
        ended=status.ended,
        stops=status.stops,
        revision=status.revision,
        message=status.message,
    )


def read_status(files: JobFiles) -> Status:
    """The job's status as last recorded."""
    body = read_block(files.state)
    return Status.from_json(body) if body else Status()


def read_exit(files: JobFiles) -> Exit | None:
    """How the main process ended, if that is known."""
    body = read_block(files.exit)
    return Exit.from_json(body) if body else None


def read_started(files: JobFiles) -> Started | None:
    """The started marker, if it is there."""
    body = read_block(files.started)
    return Started.from_json(body) if body else None


def _plain(
    value: Accepted | Launch | Started | Exit | Status | JobSpec, *without: str
) -> dict[str, Any]:
    """The fields of a flat dataclass by name; JSON makes lists of its tuples."""
    names = (name for name in _slots(type(value)) if name not in without)
    return {name: getattr(value, name) for name in names}


def _known(cls: type, body: Mapping[str, Any]) -> dict[str, Any]:
    """What the class has a field for; a later release may have written more."""
    return {name: body[name] for name in _slots(cls) if name in body}


def _slots(cls: type) -> tuple[str, ...]:
    return tuple(field.name for field in fields(cls))


def output_size(files: JobFiles, rank: int, stream: str) -> int:
    """Bytes of that output so far, those in gaps included."""
    gaps = read_gaps(files.gaps(rank, stream))
    try:
        size = os.stat(files.log(rank, stream)).st_size
    except FileNotFoundError:
        size = 0
    return max(size, gaps[-1].end if gaps else 0)
