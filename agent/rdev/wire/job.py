"""What a job is: its specification as asked for, and its state as it stands now.

These are the words in which agent, supervisor and client speak of a job; `rdev.protocol.convert`
maps them to the protos and `rdev.wire.records` to what is written in the job's directory.

    PENDING -> STARTING -> RUNNING -> STOPPING -> SUCCEEDED | FAILED | CANCELLED | LOST
                  ^ failed, and may --' any of them may be skipped: a job can fail to start,
                    be tried again      be stopped while it waits, be lost at any time
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field


class JobState(enum.Enum):
    """Where a job stands in its life."""

    PENDING = "pending"
    """Accepted, not started."""
    STARTING = "starting"
    """Its supervisor is starting it."""
    RUNNING = "running"
    """Its main process runs."""
    STOPPING = "stopping"
    """A stop was asked for and has not finished."""
    SUCCEEDED = "succeeded"
    """Ended with exit code 0."""
    FAILED = "failed"
    """Ended with another exit code, by a signal, by its timeout, or could not start."""
    CANCELLED = "cancelled"
    """Ended because somebody stopped it."""
    LOST = "lost"
    """Its end is unknown: the machine rebooted or its keeper was killed."""

    @property
    def is_final(self) -> bool:
        """True once nothing about the job changes any more."""
        return self in _FINAL


_FINAL = frozenset({JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED, JobState.LOST})


class Reason(enum.Enum):
    """Why a job ended, apart from how."""

    NONE = ""
    """It has not ended."""
    EXITED = "exited"
    """The main process exited by itself."""
    SIGNALED = "signaled"
    """A signal that rdev did not send killed the main process."""
    STOPPED = "stopped"
    """Somebody asked for the stop."""
    TIMEOUT = "timeout"
    """The job's own timeout ran out."""
    START_FAILED = "start_failed"
    """The command could not be executed."""
    KEEPER_LOST = "keeper_lost"
    """The keeper that would know the exit status was killed."""
    REBOOTED = "rebooted"
    """The machine rebooted while the job ran."""
    OUT_OF_MEMORY = "out_of_memory"
    """The kernel killed the main process because memory ran out."""
    QUOTA = "quota"
    """Its output could not be kept any more and the job asked to be stopped then."""


class CommandKind(enum.Enum):
    """What kind of thing a job runs."""

    SCRIPT = "script"
    """A file of the workspace, by the job's Python."""
    MODULE = "module"
    """An importable module, by the job's Python, as `python -m` does."""
    PROGRAM = "program"
    """Any executable on the job's PATH; an empty name is the user's login shell."""


# Seconds between TERM and KILL: what container runtimes give, enough to write a checkpoint.
DEFAULT_GRACE = 10.0


# As a number of processes: one for each GPU that the job gets.
ONE_PER_GPU = -1


class LogFull(enum.Enum):
    """What happens when a job's output cannot be kept, on a full disk for one."""

    DROP = "drop"
    """It is dropped, counted exactly, and the job goes on."""
    BLOCK = "block"
    """The job waits in its write until there is room."""
    STOP = "stop"
    """The job is stopped."""


@dataclass(frozen=True, slots=True)
class Window:
    """The size of a terminal, in characters."""

    rows: int = 24
    columns: int = 80


@dataclass(frozen=True, slots=True)
class GpuRequest:
    """Which GPUs a job wants for itself; all that it may have if neither is given.

    Attributes:
        count: Any so many; 0 if they are named.
        devices: Exactly these, by index or UUID.
    """

    count: int = 0
    devices: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Gpu:
    """A GPU that a job has: its index on the machine, its UUID, its model."""

    index: int
    uuid: str
    name: str = ""


@dataclass(frozen=True, slots=True)
class EnvironmentChoice:
    """By which interpreter, and in which environment of the host, a job runs.

    Attributes:
        name: A conda or virtual environment, its name or folder; empty lets the agent choose.
        active: Name of the environment that is active on the laptop; its namesake is preferred.
        prelude: Shell commands that come before it, such as `module load cuda/12.4`.
        managed: The agent makes it from the workspace's lock file and keeps it up to date.
        python: An interpreter on the host, its path or its name on the PATH; of a managed
            environment that from which it is made, which may be a version such as `3.12`.
    """

    name: str = ""
    active: str = ""
    prelude: str = ""
    managed: bool = False
    python: str = ""


@dataclass(frozen=True, slots=True)
class DebugStart:
    """When a job's processes stop by themselves and wait for a debugger.

    A stop that nobody attends goes on after a while, see `rdev.hook`.

    Attributes:
        at_start: Before the first line of the script.
        on_exception: At an exception that nothing catches, with its frames.
        step: When the loop or the live probe begins that step; 0 means none.
        on_nan: At a loss or a gradient that is not finite, before it reaches the weights.
        from_step: That step waits for a debugger and then begins without a stop; 0 means none.
    """

    at_start: bool = False
    on_exception: bool = False
    step: int = 0
    on_nan: bool = False
    from_step: int = 0


@dataclass(frozen=True, slots=True)
class JobSpec:
    """What to run and how; it never changes once the job exists.

    Attributes:
        kind: What `target` is.
        target: Script path relative to the workspace root, module name, or program.
        args: Arguments after it.
        name: Chosen name; empty lets the agent make one.
        python: Interpreter for scripts and modules; empty lets the agent choose.
        workspace_id: Workspace that is the working directory; empty runs in the user's home.
        snapshot: Hex digest of the snapshot the job starts from; empty without a workspace.
        directory: Working directory relative to the workspace folder.
        environment: Variables added to the login environment.
        timeout: Seconds that an attempt may take, without those in which the debugger holds a rank;
            then the job is stopped. None means for ever.
        grace: Seconds between TERM and KILL when it is stopped.
        hook: Plant the debug hook in the job's Python processes.
        terminal: Run it in a terminal of that size; None gives it two pipes.
        stdin: It reads what clients write; else its input is empty. A terminal implies it.
        processes: Ranks to start by torchrun; 0 runs the command itself, see also `ONE_PER_GPU`.
        gpus: GPUs it wants; None leaves what the login sees.
        retries: How often it is started again after a failure.
        keep_children: Spare what the main process leaves behind when it ends by itself.
        log_full: What happens when its output cannot be kept.
        aside: It was started beside the work, such as a shell: whoever names no job, or says how
            long ago it was, does not mean it.
        env: By which interpreter and in which environment; `python` beats it.
        owner: Who asked, as `user@laptop`: several people may share one login.
        debug: When its processes stop by themselves.
    """

    kind: CommandKind
    target: str
    args: tuple[str, ...] = ()
    name: str = ""
    python: str = ""
    workspace_id: str = ""
    snapshot: str = ""
    directory: str = ""
    environment: Mapping[str, str] = field(default_factory=dict)
    timeout: float | None = None
    grace: float = DEFAULT_GRACE
    hook: bool = True
    terminal: Window | None = None
    stdin: bool = False
    processes: int = 0
    gpus: GpuRequest | None = None
    retries: int = 0
    keep_children: bool = False
    log_full: LogFull = LogFull.DROP
    aside: bool = False
    env: EnvironmentChoice = EnvironmentChoice()
    owner: str = ""
    debug: DebugStart = DebugStart()

    @property
    def takes_input(self) -> bool:
        """True if what clients write reaches it."""
        return self.stdin or self.terminal is not None


@dataclass(frozen=True, slots=True)
class DebugStop:
    """A rank is held by the debugger.

    Attributes:
        rank: The rank.
        pid: Its process.
        file: Source file on the host.
        line: Line, from 1.
        function: Name of the function.
        reason: DAP's reason, such as `breakpoint` or `step`.
        since: Seconds since the epoch.
        until: When its lease ends and it goes on by itself, in seconds since the epoch; 0 if it
            has none.
        unattended: Nobody is attached: it waits for a debugger.
    """

    rank: int
    pid: int
    file: str
    line: int
    function: str
    reason: str
    since: float
    until: float = 0.0
    unattended: bool = False


@dataclass(frozen=True, slots=True)
class LoopPause:
    """A rank's training is held between two steps, or between two phases of one.

    Attributes:
        rank: The rank.
        pid: Its process.
        step: The step after which it is held, or in which if it has a phase.
        epoch: The epoch it belongs to; 0 if nobody counts them.
        phase: The phase after which it is held; empty at a step's end.
        reason: Why, such as `paused by ada@laptop`.
        since: Seconds since the epoch.
    """

    rank: int
    pid: int
    step: int
    epoch: int
    phase: str
    reason: str
    since: float


@dataclass(frozen=True, slots=True)
class Stream:
    """One output of one rank, `size` bytes long so far."""

    rank: int
    name: str
    size: int


@dataclass(frozen=True, slots=True)
class Usage:
    """What a job has used, all its processes together.

    Attributes:
        user_seconds: CPU time in its own code.
        system_seconds: CPU time in the kernel.
        peak_memory: Bytes that its largest process held at most.
    """

    user_seconds: float = 0.0
    system_seconds: float = 0.0
    peak_memory: int = 0


@dataclass(frozen=True, slots=True)
class Attempt:
    """An attempt that failed and was followed by another.

    Attributes:
        number: From 1.
        reason: Why it ended.
        exit_code: Of its main process; None if that is not known.
        signal: Signal that killed the main process; 0 if none did.
        started: Seconds since the epoch.
        ended: Seconds since the epoch.
        message: One line for a person.
        ends: Where each output stood at its end: the next attempt's begins there.
    """

    number: int
    reason: Reason
    exit_code: int | None = None
    signal: int = 0
    started: float = 0.0
    ended: float = 0.0
    message: str = ""
    ends: tuple[Stream, ...] = ()


@dataclass(frozen=True, slots=True)
class Job:
    """One job as it stands now.

    Attributes:
        id: 12 lower-case hexadecimal digits.
        name: Chosen or made name.
        spec: What was asked for.
        state: Where it stands.
        reason: Why it ended.
        exit_code: Of the main process, 128 + N when signal N killed it; None until it ended.
        signal: Signal that killed the main process; 0 if none did.
        pid: Main process; 0 until it runs.
        created: Seconds since the epoch, as all times here.
        started: When the main process was executed; 0 until then.
        ended: When the job ended and its logs were drained; 0 until then.
        argv: The command line as executed.
        directory: The folder it runs in.
        streams: Its outputs.
        stops: Ranks held by the debugger.
        pauses: Ranks whose training is held.
        revision: Grows with every change.
        message: One line for a person: why it waits, failed to start, or is lost.
        ranks: How many ranks it has.
        attempt: Which attempt this is, from 1.
        attempts: Those before it.
        usage: What it has used; None until that is known.
        gpus: The GPUs it has.
        spared: Processes that its stop left alone, such as a tmux; one phrase each.
        interpreter: Of its scripts and modules, as found on the host; empty for programs.
        env: The environment that it runs in, in words, such as `conda env vision`.
    """

    id: str
    name: str
    spec: JobSpec
    state: JobState
    reason: Reason = Reason.NONE
    exit_code: int | None = None
    signal: int = 0
    pid: int = 0
    created: float = 0.0
    started: float = 0.0
    ended: float = 0.0
    argv: tuple[str, ...] = ()
    directory: str = ""
    streams: tuple[Stream, ...] = ()
    stops: tuple[DebugStop, ...] = ()
    pauses: tuple[LoopPause, ...] = ()
    revision: int = 0
    message: str = ""
    ranks: int = 1
    attempt: int = 1
    attempts: tuple[Attempt, ...] = ()
    usage: Usage | None = None
    gpus: tuple[Gpu, ...] = ()
    spared: tuple[str, ...] = ()
    interpreter: str = ""
    env: str = ""

    @property
    def workspace_folder(self) -> str:
        """The workspace's folder on the host; the job may run in a folder below it."""
        below = self.spec.directory.strip("/")
        return self.directory.removesuffix("/" + below) if below else self.directory
