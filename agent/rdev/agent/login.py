"""What a login of this machine has, and jobs get: environment, umask, limits, nice, CPUs.

    reached over the network (`--login`): captured by the login's shell --> login.json, read by
       '                                   later agents until one is asked to capture it anew
       '--the shell fails, hangs or says nothing: the agent's own; its log and `doctor` say so
    started by a person here: the agent's own is the person's, so jobs get that

Nothing else starts a login shell: rc files cost from 0.5 s up to a minute, and a job must not wait
for them. For whoever prepares a job, `Login.environment` is the base: it is whole (HOME, USER,
SHELL and PATH are always there) and has nothing in it of the connection, the display, the service
manager or the agent that it was captured by.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import pwd
import secrets
import select
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from rdev.agent import login_report
from rdev.agent.jobs.resolve import scrubbed
from rdev.wire.blocks import FilesError, read_file, write_file
from rdev.wire.home import Home

_log = logging.getLogger(__name__)

# Rc files of a loaded file server take seconds; one that needs longer asks for something.
PATIENCE = 10.0

# An environment is at most some MiB, execve(2); what a noisy rc file says comes before it.
_MOST_SAID = 16 << 20

# Quoted so that sh, bash, zsh, csh and fish all read it alike, whatever the paths have in them.
_PYTHON_VARIABLE = "RDEV_LOGIN_PYTHON"
_REPORT_VARIABLE = "RDEV_LOGIN_REPORT"
_COMMAND = f'exec "${_PYTHON_VARIABLE}" -I -S "${_REPORT_VARIABLE}"'

_PLAIN_SHELL = "/bin/sh"
_PLAIN_PATH = "/usr/local/bin:/usr/bin:/bin"

# Of a shell that is in the way: where it was, and how deep.
_THE_SHELLS = frozenset({"PWD", "OLDPWD", "SHLVL", "_"})


class LoginUnknownError(Exception):
    """The login's shell does not say what a login has; says why."""


@dataclass(frozen=True, slots=True)
class Login:
    """What jobs get.

    Attributes:
        environment: The variables, whole and scrubbed.
        umask: The file mode mask.
        limits: By name as in `ulimit`'s calls, such as `nofile`: the soft and the hard one.
        nice: The niceness.
        cpus: The CPUs that it may use; empty if the platform does not say.
        groups: The groups it is in. A process cannot give them to itself: jobs have the agent's.
        fault: Why its shell could not say, so that all this is an agent's; empty if it could.
    """

    environment: Mapping[str, str]
    umask: int
    limits: Mapping[str, tuple[int, int]]
    nice: int
    cpus: tuple[int, ...]
    groups: tuple[int, ...]
    fault: str = ""

    @property
    def descriptors(self) -> int:
        """How many descriptors a process may have, the soft limit."""
        return self.limits["nofile"][0]

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> Login:
        """From the object in the file, or in the shell's report.

        Raises:
            KeyError, TypeError, ValueError, AttributeError: It is none.
        """
        environment = {str(name): str(value) for name, value in body["environment"].items()}
        return cls(
            environment=whole(environment),
            umask=int(body["umask"]),
            limits={name: (int(s), int(h)) for name, (s, h) in body["limits"].items()},
            nice=int(body["nice"]),
            cpus=tuple(map(int, body["cpus"])),
            groups=tuple(map(int, body["groups"])),
            fault=str(body.get("fault", "")),
        )


def whole(environment: Mapping[str, str]) -> dict[str, str]:
    """An environment of a login: what is not its own taken out, what every login has put in."""
    kept = {k: v for k, v in scrubbed(environment).items() if k not in _THE_SHELLS}
    try:
        known = pwd.getpwuid(os.geteuid())
        name, home, shell = known.pw_name, known.pw_dir, known.pw_shell
    except KeyError:  # a container may run under a user id that has no name
        name, home, shell = str(os.geteuid()), "", ""
    home = home if os.path.isdir(home) else "/"
    shell = shell or _PLAIN_SHELL
    must = {"HOME": home, "USER": name, "LOGNAME": name, "SHELL": shell, "PATH": _PLAIN_PATH}
    return {**kept, **{name: value for name, value in must.items() if not kept.get(name)}}


def own() -> Login:
    """What this process has, if it has not changed it yet."""
    return Login.from_json(login_report.report())


def login_of(home: Home, mine: Login, *, asks_shell: bool, anew: bool) -> Login:
    """What jobs of this home get.

    Blocks for as long as rc files take when the login has to be captured.

    Args:
        home: Where it is kept; nothing is written.
        mine: What this process was started with.
        asks_shell: False if that is already what a person has.
        anew: What was captured before does not count.
    """
    if not asks_shell:
        return mine
    if not anew and (known := read(home.login)) is not None:
        return known
    try:
        return capture()
    except LoginUnknownError as error:
        _log.warning("jobs get the agent's own environment, for %s", error)
        return replace(mine, fault=str(error))


def read(path: str) -> Login | None:
    """The login that was captured last; None if there is none that can be understood."""
    try:
        return Login.from_json(read_file(path))
    except (FilesError, OSError, KeyError, TypeError, ValueError, AttributeError):
        return None


def write(path: str, login: Login) -> None:
    """Keeps a login for later agents; without it they capture it again."""
    try:
        write_file(path, asdict(login))
    except OSError as error:  # a full disk is no reason not to serve
        _log.warning("unable to keep the login's environment: %s", error)


def capture(*, patience: float = PATIENCE) -> Login:
    """Asks the login's shell, once: its rc files run.

    Args:
        patience: Seconds that they may take.

    Raises:
        LoginUnknownError: The shell cannot be started, or says nothing that can be understood.
    """
    environment = whole(os.environ)
    shell, marker = environment["SHELL"], f"<{secrets.token_hex(16)}>"
    environment |= {
        _PYTHON_VARIABLE: sys.executable,
        _REPORT_VARIABLE: os.path.abspath(login_report.__file__),
        login_report.MARKER_VARIABLE: marker,
    }
    try:
        process = subprocess.Popen(
            # The dash makes it a login shell, which `-l` does not in csh beside another option.
            [f"-{os.path.basename(shell)}", "-c", _COMMAND],
            executable=shell,
            env=environment,
            cwd=environment["HOME"] if os.path.isdir(environment["HOME"]) else "/",
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
    except OSError as error:
        raise LoginUnknownError(f"the shell {shell} cannot be started: {error}") from error
    _tell(process)
    return _understood(_said(process, marker.encode(), shell=shell, patience=patience))


def _tell(process: subprocess.Popen[bytes]) -> None:
    """Gives the command as input, too: where rc files say `exec fish`, that shell knows of no -c.

    It is short enough that no pipe makes us wait for a reader.
    """
    assert process.stdin is not None
    with contextlib.suppress(BrokenPipeError), process.stdin as pipe:
        pipe.write(f"{_COMMAND}\n".encode())


def _said(process: subprocess.Popen[bytes], marker: bytes, *, shell: str, patience: float) -> bytes:
    """What stands between two markers; the shell and what it started in its way is ended."""
    deadline = time.monotonic() + patience
    said = b""
    with contextlib.ExitStack() as stack:
        stack.callback(_end, process)
        assert process.stdout is not None
        pipe = stack.enter_context(process.stdout)
        # Not up to its end: a daemon that an rc file started may hold the pipe open for ever.
        while said.count(marker) < 2:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([pipe], [], [], left)[0]:
                raise LoginUnknownError(f"the rc files of {shell} took over {patience:.0f} s")
            more = os.read(pipe.fileno(), 1 << 16)
            said += more
            if not more:
                raise LoginUnknownError(f"{shell} did not run a command")
            if len(said) > _MOST_SAID:
                raise LoginUnknownError(f"the rc files of {shell} print without end")
    return said.split(marker)[1]


def _end(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(timeout=0.5)  # it has said all, and is about to end
        return
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _understood(said: bytes) -> Login:
    try:
        return Login.from_json(json.loads(said))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise LoginUnknownError(f"its shell said {said[:80]!r}") from error
