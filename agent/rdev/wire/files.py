"""The job's directory: where everything of one job lies, and in which format.

    <job>/spec.json        what was asked for and how it was resolved       agent
    <job>/launch.json      what the keeper executes                         agent
                           (neither changes once there has been a keeper)
    <job>/state            block: the job's status                          supervisor (agent: while
                           it waits for GPUs, and when it is LOST)
    <job>/started          block: written before the command may execute    keeper, each attempt
    <job>/exit             block: the raw wait status                       keeper, each attempt
    <job>/events           the events, one JSON object a line               supervisor
    <job>/stdin            what clients wrote into the job's input      agent, see rdev.wire.input
                           (the supervisor removes it at the end)
    <job>/stdin.writes     who wrote which part of it                       agent
    <job>/job.sock         the control socket, see rdev.wire.channel        supervisor
    <job>/keeper.lock      held while a keeper lives; so supervisor.lock    keeper, supervisor
    <job>/supervisor.log   what keeper and supervisor have to complain of
    <job>/fifo/<rank>.<stream>        what the job, or its terminal, writes into
    <job>/fifo/0.stdin                what the job, or its terminal, is fed from
    <job>/logs/<rank>.<stream>        raw bytes; the offset in the file is the offset in the stream
    <job>/logs/<rank>.<stream>.gaps   ranges of it that could not be kept
    <job>/logs/index                  what arrived when, over all ranks and streams

Blocks are what `rdev.wire.blocks` says, gaps and index what `rdev.wire.output` says, and what each
record says is in `rdev.wire.records`. Attempts share one directory: an output goes on where the
attempt before left it, and the status says where that was.
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass

from rdev.wire.blocks import read_block
from rdev.wire.output import read_gaps
from rdev.wire.records import Exit, Started, Status

# The largest status, with a stop for each of many ranks, fits; the others are some hundred bytes.
STATE_SLOT = 64 << 10
SMALL_SLOT = 2 << 10

# An attempt takes this much of a status beside some 60 bytes for each of its outputs.
ATTEMPT_SLOT = 1 << 10
END_SLOT = 64


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

    @property
    def input(self) -> str:
        """The job's input, as far as it was written."""
        return self.path("stdin")

    @property
    def writes(self) -> str:
        """Who wrote which part of the input."""
        return self.path("stdin.writes")

    @property
    def input_fifo(self) -> str:
        """What the job reads its input from."""
        return self.path("fifo/0.stdin")

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


def read_status(files: JobFiles) -> Status:
    """The job's status as last recorded."""
    body = read_block(files.state)
    return Status.from_json(body) if body else Status()


def read_exit(files: JobFiles, *, attempt: int) -> Exit | None:
    """How the main process of that attempt ended, if that is known."""
    body = read_block(files.exit)
    ending = Exit.from_json(body) if body else None
    return ending if ending is not None and ending.attempt == attempt else None


def read_started(files: JobFiles, *, attempt: int) -> Started | None:
    """The started marker of that attempt, if it is there."""
    body = read_block(files.started)
    started = Started.from_json(body) if body else None
    return started if started is not None and started.attempt == attempt else None


def state_slot(*, retries: int, outputs: int) -> int:
    """Bytes that the largest status of such a job takes in its block."""
    return STATE_SLOT + retries * (ATTEMPT_SLOT + outputs * END_SLOT)


def output_size(files: JobFiles, rank: int, stream: str) -> int:
    """Bytes of that output so far, those in gaps included."""
    gaps = read_gaps(files.gaps(rank, stream))
    try:
        size = os.stat(files.log(rank, stream)).st_size
    except FileNotFoundError:
        size = 0
    return max(size, gaps[-1].end if gaps else 0)
