"""A place for the agent outside the login that it was started from.

logind may kill what a session leaves behind (KillUserProcesses=yes), and a user's own manager ends
with the last session unless the user lingers; then it ends all that it has started. So a scope of
that manager is a refuge for users who linger, and for all others it would be a trap: those are left
in their session, which outlives the logout unless logind is told otherwise.
"""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
from collections.abc import Mapping, Sequence

# See loginctl(1), enable-linger.
_LINGERING = "/var/lib/systemd/linger"

# A manager answers within milliseconds; one that hangs must not hold up a start.
_PATIENCE = 5.0

_SCOPE = ("systemd-run", "--user", "--scope", "--quiet", "--collect", "--")


def scoped(
    command: Sequence[str], environment: Mapping[str, str], *, lingering: str = _LINGERING
) -> list[str]:
    """The command that runs `command` in a scope of its own, or that command where none is of use.

    Args:
        command: Keeps its process id, its session and its descriptors.
        environment: That it will have.
        lingering: Folder in which logind notes who lingers.
    """
    program = shutil.which(_SCOPE[0], path=environment.get("PATH"))
    if program is None or not environment.get("XDG_RUNTIME_DIR") or not _lingers(lingering):
        return list(command)
    wrapped = [program, *_SCOPE[1:]]
    return [*wrapped, *command] if _runs([*wrapped, "true"], environment) else list(command)


def _lingers(folder: str) -> bool:
    try:
        name = pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:  # a container whose user has no entry
        return False
    return os.path.exists(os.path.join(folder, name))


def _runs(command: Sequence[str], environment: Mapping[str, str]) -> bool:
    try:
        done = subprocess.run(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_PATIENCE,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0
