"""Every error that reaches a person, as one tree; the classes are the table.

    RdevError
      UsageError ............ the command line or the input is wrong
        WorkspaceRefused  AdoptionRefused  ScriptOutsideWorkspace
      ConfigError ........... a configuration file is wrong
      NotFound
        JobNotFound  WorkspaceNotFound  SnapshotNotFound  ScriptNotFound  CommandNotFound
      PermissionRefused ..... an owner or a mode is not what it must be
      HostUnreachable
        ConnectionLost  AgentStartFailed
      AgentBusy  VersionSkew  FeatureMissing
      InvalidRequest  JobConflict  JobNotRunning
      DebuggerUnavailable
        DebuggerBusy
        DebugSessionLost
      SyncFailed
        MassDeletion  WorkspaceGone
      DiskFull  LimitExceeded
      OutputFailed .......... our own output could not be written; jobs go on
      TimedOut  Interrupted
      InternalError

An error says `unable to ACTION: CAUSE` and `hint: ...`. Trouble with one file of a sync is a
problem (`rdev.protocol.snapshot.Problem`), not an error.
"""

from __future__ import annotations

import errno
import json
from collections.abc import Iterator
from typing import ClassVar

# No space left, or no quota left: to a person they are the same.
DISK_FULL_ERRNOS = frozenset({errno.ENOSPC, errno.EDQUOT})


class RdevError(Exception):
    """An error of rdev's that no class below describes.

    The root of the tree: everything that rdev raises on purpose is one.

    Attributes:
        status: Name of the gRPC status that carries the class over the wire.
        reason: Stable name of the class on the wire and in `--json`.
        exit_code: Exit code of the verbs that otherwise pass on a job's own code (`run`, `attach`,
            `wait`, `exec`, `debug`); outside the range that programs use.
        verb_exit_code: Exit code of all other verbs, after sysexits.h where it has one.
        default_hint: What a person can do about it, when the raiser knows nothing better.
        action: What was attempted, as the object of "unable to".
        cause: Why it failed.
        hint: What to do.
    """

    status: ClassVar[str] = "UNKNOWN"
    reason: ClassVar[str] = "UNKNOWN"
    exit_code: ClassVar[int] = 125
    verb_exit_code: ClassVar[int] = 1
    default_hint: ClassVar[str] = "run the command again with -v, which says more"

    def __init__(self, action: str, cause: str = "", *, hint: str | None = None) -> None:
        self.action = action
        self.cause = cause
        self.hint = hint if hint is not None else self.default_hint
        super().__init__(self.message)

    @property
    def message(self) -> str:
        """The one line that is shown after `error: `."""
        return (
            f"unable to {self.action}: {self.cause}" if self.cause else f"unable to {self.action}"
        )


class UsageError(RdevError):
    """The command line or an argument is wrong; nothing was started."""

    status = "INVALID_ARGUMENT"
    reason = "USAGE"
    exit_code = 2
    verb_exit_code = 2
    default_hint = "see `rdev VERB --help`"


class WorkspaceRefused(UsageError):
    """The folder may not be a workspace: a home, `/`, one like /tmp, or one far too large."""

    reason = "WORKSPACE_REFUSED"
    default_hint = (
        "run from your project's folder, or make one with `rdev init`; "
        "`rdev exec HOST -- COMMAND` needs none"
    )


class AdoptionRefused(WorkspaceRefused):
    """The folder to adopt has files that differ, or nothing in common, and nobody agreed to it."""

    reason = "ADOPTION_REFUSED"
    default_hint = "`rdev sync --yes` says yes to it; or choose another `[workspace] path`"


class ScriptOutsideWorkspace(UsageError):
    """The script lies outside the workspace, so it would not be synced."""

    reason = "SCRIPT_OUTSIDE_WORKSPACE"
    default_hint = "run from the folder that holds the script, or move it into the workspace"


class ConfigError(RdevError):
    """A configuration file cannot be read or says something that has no meaning."""

    status = "FAILED_PRECONDITION"
    reason = "CONFIG"
    verb_exit_code = 78
    default_hint = "mend the file at the place named; docs/configuration.md lists all keys"


class NotFound(RdevError):
    """Something that was named does not exist."""

    status = "NOT_FOUND"
    reason = "NOT_FOUND"
    default_hint = "check the name"


class JobNotFound(NotFound):
    """No job has that name or id."""

    reason = "JOB_NOT_FOUND"
    default_hint = "`rdev ps -a` lists all jobs"


class WorkspaceNotFound(NotFound):
    """The agent has no workspace of that id."""

    reason = "WORKSPACE_NOT_FOUND"
    default_hint = "run `rdev sync` in the workspace first"


class SnapshotNotFound(NotFound):
    """The host no longer knows the snapshot that a job was to start from."""

    reason = "SNAPSHOT_NOT_FOUND"
    default_hint = "run the command again; it syncs first"


class ScriptNotFound(NotFound):
    """The script to run does not exist."""

    reason = "SCRIPT_NOT_FOUND"
    exit_code = 127
    default_hint = "check the path; it is relative to the current folder"


class CommandNotFound(NotFound):
    """The command to run is not on the job's PATH."""

    reason = "COMMAND_NOT_FOUND"
    exit_code = 127
    verb_exit_code = 127
    default_hint = "check the name and the PATH of the host; `rdev doctor` shows it"


class EnvironmentNotFound(NotFound):
    """The host has no environment of that name, or it has no interpreter."""

    reason = "ENVIRONMENT_NOT_FOUND"
    default_hint = "`rdev env ls` lists those of the host"


class EnvironmentFailed(RdevError):
    """An environment could not be made or activated; nothing was started."""

    status = "FAILED_PRECONDITION"
    reason = "ENVIRONMENT"
    default_hint = "`rdev env show` says which environment is meant and why"


class OutputsLeft(RdevError):
    """Files that jobs made exist on the host alone, and what was asked for would remove them."""

    status = "FAILED_PRECONDITION"
    reason = "OUTPUTS_LEFT"
    default_hint = "fetch what you need with scp or rsync; --discard-outputs removes them too"


class NotOwner(RdevError):
    """The job or the workspace is somebody else's of the same login."""

    status = "FAILED_PRECONDITION"
    reason = "NOT_OWNER"
    default_hint = "say --yes if you mean it"


class PermissionRefused(RdevError):
    """A file, folder or socket has the wrong owner or mode, or access to it was refused."""

    status = "PERMISSION_DENIED"
    reason = "PERMISSION"
    verb_exit_code = 77
    default_hint = "check the owner and the mode of the path named"


class HostUnreachable(RdevError):
    """The host is unknown, or nothing there answers."""

    status = "UNAVAILABLE"
    reason = "HOST_UNREACHABLE"
    exit_code = 255
    verb_exit_code = 69
    default_hint = "check the host's name; `rdev doctor` says what can be reached"


class LoginRefused(HostUnreachable):
    """The host wants a login that was not given: no key, a wrong one, or nobody to ask."""

    status = "UNAUTHENTICATED"
    reason = "LOGIN_REFUSED"
    verb_exit_code = 77
    default_hint = "see that `ssh HOST` works without rdev; it is not tried again by itself"


class HostKeyRefused(HostUnreachable):
    """The host's key is unknown and nobody can be asked, or is not the one known."""

    status = "UNAUTHENTICATED"
    reason = "HOST_KEY"
    verb_exit_code = 77
    default_hint = "run `ssh HOST` once and compare the key with what the host's owner says"


class HostChanged(HostUnreachable):
    """Another agent than the one known answers under the host's name."""

    status = "UNAUTHENTICATED"
    reason = "HOST_CHANGED"
    verb_exit_code = 77
    default_hint = "if the machine was replaced, `rdev host rm HOST` forgets the old one"


class BootstrapFailed(HostUnreachable):
    """rdev could not be put on the host; what was begun there was removed."""

    reason = "BOOTSTRAP_FAILED"
    exit_code = 125
    verb_exit_code = 69
    default_hint = "`rdev doctor HOST` looks at all that it needs"


class NoPython(BootstrapFailed):
    """No Python that the agent can run by was found on the host."""

    reason = "NO_PYTHON"
    default_hint = "name one with `rdev up HOST --bootstrap-python PATH`, or install Python 3.11"


class ConnectionLost(HostUnreachable):
    """The connection broke and could not be made again; the job, if any, goes on."""

    reason = "CONNECTION_LOST"
    default_hint = "the job goes on; `rdev attach JOB` returns to it"


class AgentStartFailed(HostUnreachable):
    """The agent was started and did not begin to answer."""

    reason = "AGENT_START_FAILED"
    exit_code = 125
    default_hint = "run `rdev-agent serve` in a terminal to see why"


class AgentBusy(RdevError):
    """Another agent already serves this home on this machine."""

    status = "ALREADY_EXISTS"
    reason = "AGENT_BUSY"
    verb_exit_code = 75
    default_hint = "use it, or end it with `rdev-agent stop`"


class VersionSkew(RdevError):
    """Client and agent are too far apart to understand each other."""

    status = "FAILED_PRECONDITION"
    reason = "VERSION_SKEW"
    verb_exit_code = 69
    default_hint = "install the same release of rdev at both ends"


class FeatureMissing(RdevError):
    """The agent runs without an optional part that this call needs."""

    status = "UNIMPLEMENTED"
    reason = "FEATURE_MISSING"
    default_hint = "install `rdev[agent]` on the host"


class InvalidRequest(RdevError):
    """A request broke a rule of the wire; another client than rdev's may have sent it."""

    status = "INVALID_ARGUMENT"
    reason = "INVALID_REQUEST"
    default_hint = "use the same release of rdev at both ends"


class JobConflict(RdevError):
    """The request cannot be met because of what a job is at present."""

    status = "FAILED_PRECONDITION"
    reason = "JOB_CONFLICT"
    default_hint = "`rdev ps -a` shows the job; `rdev stop JOB` ends it"


class JobNotRunning(RdevError):
    """The job has ended or has not begun, and the call needs it to run."""

    status = "FAILED_PRECONDITION"
    reason = "JOB_NOT_RUNNING"
    default_hint = "`rdev ps -a` shows how it ended; `rdev logs JOB` what it printed"


class DebuggerUnavailable(RdevError):
    """No debugger can be put into that process."""

    status = "FAILED_PRECONDITION"
    reason = "DEBUGGER_UNAVAILABLE"
    default_hint = "docs/concepts.md says which processes carry the debug hook"


class DebuggerBusy(DebuggerUnavailable):
    """Somebody is already attached to that rank."""

    status = "ALREADY_EXISTS"
    reason = "DEBUGGER_BUSY"
    default_hint = "detach the other debugger first"


class DebugSessionLost(DebuggerUnavailable):
    """A debug session that was to be continued has ended, or its agent was restarted."""

    status = "FAILED_PRECONDITION"
    reason = "DEBUG_SESSION_LOST"
    default_hint = "the job goes on; attach again"


class SyncFailed(RdevError):
    """The workspace could not be brought up to date; what was committed before stands."""

    status = "ABORTED"
    reason = "SYNC_FAILED"
    default_hint = "run the command again; what has arrived is not sent twice"


class MassDeletion(SyncFailed):
    """Most files vanished from the laptop's folder, and nobody confirmed that it is meant."""

    reason = "MASS_DELETION"
    default_hint = "answer yes in a terminal, or give --yes, if it is meant"


class WorkspaceGone(SyncFailed):
    """The workspace's folder on the laptop was moved, or its file system was unmounted."""

    reason = "WORKSPACE_GONE"
    default_hint = "put the folder back, or run from where it is now"


class DiskFull(RdevError):
    """No space, or no quota, is left on the host; nothing half done was left behind."""

    status = "RESOURCE_EXHAUSTED"
    reason = "DISK_FULL"
    default_hint = "free space there: `rdev rm JOB` removes ended jobs with their logs"


class LimitExceeded(RdevError):
    """More was asked for, or sent, than fits into one message, or than the site allows."""

    status = "RESOURCE_EXHAUSTED"
    reason = "LIMIT_EXCEEDED"
    default_hint = "ask for less at once"


class OutputFailed(RdevError):
    """What rdev shows could not be written where its output goes; jobs go on."""

    status = "UNKNOWN"
    reason = "OUTPUT_FAILED"
    default_hint = "look where the output goes; `rdev logs JOB` shows again what a job printed"


class TimedOut(RdevError):
    """The time limit of the call, or of the job, ran out."""

    status = "DEADLINE_EXCEEDED"
    reason = "TIMEOUT"
    exit_code = 124
    verb_exit_code = 124
    default_hint = "give it more time"


class Interrupted(RdevError):
    """Ctrl-C ended rdev itself; no job was started, or those that run go on."""

    status = "CANCELLED"
    reason = "INTERRUPTED"
    exit_code = 130
    verb_exit_code = 130
    default_hint = "nothing was started"


class InternalError(RdevError):
    """A defect in rdev; the details are in the agent's log under the incident's id."""

    status = "INTERNAL"
    reason = "INTERNAL"
    default_hint = "please report it with the lines of the agent's log that carry this incident"


def error_as_json(error: RdevError) -> str:
    """The error as one line of JSON, for a process of ours to read back."""
    words = {"action": error.action, "cause": error.cause, "hint": error.hint}
    return json.dumps({"reason": error.reason, **words})


def error_from_json(line: str) -> RdevError:
    """The inverse of `error_as_json`.

    Raises:
        ValueError: The line is no such error.
    """
    body = json.loads(line)
    if not isinstance(body, dict) or not {"reason", "action", "cause", "hint"} <= body.keys():
        raise ValueError("not an error of rdev's")
    cls = error_class(body["reason"], "UNKNOWN")
    return cls(body["action"], body["cause"], hint=body["hint"])


def os_failure(action: str, error: OSError, *, otherwise: type[RdevError] = RdevError) -> RdevError:
    """The error for a failed system call, in the call's own words.

    Args:
        action: What was attempted.
        error: How it failed.
        otherwise: The class where it is neither a full disk nor a refused access.

    A note that was added to the error is the hint.
    """
    cause = f"{error.strerror or error}"
    if error.filename:
        cause = f"{error.filename}: {cause}"
    if error.errno in DISK_FULL_ERRNOS:
        return DiskFull(action, cause)
    hint = next(iter(getattr(error, "__notes__", ())), None)
    if isinstance(error, PermissionError) or error.errno == errno.EROFS:
        return PermissionRefused(action, cause, hint=hint)
    return otherwise(action, cause, hint=hint)


def all_errors(root: type[RdevError] = RdevError) -> Iterator[type[RdevError]]:
    """Yields `root` and every class below it, parents first."""
    yield root
    for child in root.__subclasses__():
        yield from all_errors(child)


def error_class(reason: str, status: str) -> type[RdevError]:
    """The class for a reason, or by category where this release does not know the reason.

    Args:
        reason: `RdevError.reason` as it came over the wire; may be empty.
        status: Name of the gRPC status.
    """
    by_reason = {cls.reason: cls for cls in all_errors()}
    return by_reason.get(reason) or _BY_STATUS.get(status, RdevError)


# A bare status, from grpc itself or from a newer agent, falls back to its category.
_BY_STATUS: dict[str, type[RdevError]] = {
    "CANCELLED": ConnectionLost,
    "INVALID_ARGUMENT": InvalidRequest,
    "DEADLINE_EXCEEDED": TimedOut,
    "NOT_FOUND": NotFound,
    "ALREADY_EXISTS": JobConflict,
    "PERMISSION_DENIED": PermissionRefused,
    "RESOURCE_EXHAUSTED": LimitExceeded,
    "FAILED_PRECONDITION": JobConflict,
    "ABORTED": SyncFailed,
    "OUT_OF_RANGE": InvalidRequest,
    "UNIMPLEMENTED": VersionSkew,
    "INTERNAL": InternalError,
    "UNAVAILABLE": ConnectionLost,
    "DATA_LOSS": InternalError,
    "UNAUTHENTICATED": PermissionRefused,
}
