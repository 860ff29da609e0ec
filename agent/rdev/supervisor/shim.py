"""One rank between torchrun and its command: takes that rank's own output, then executes.

torchrun -> this, with RANK in the environment -> output and signals of its own, hook -> exec

It runs isolated (`-I -S`), so it imports nothing of ours.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import MutableMapping, Sequence
from typing import NoReturn

# What a shell exits with: the command was not found, or was found and cannot be executed.
NOT_FOUND = 127
CANNOT_EXECUTE = 126

# Put first on the rank's PYTHONPATH. Not on that of torchrun itself, which would pass for rank 0.
PLANT_VARIABLE = "RDEV_PLANT"

# The session that a rank was started in; a process elsewhere has made itself a daemon.
SESSION_VARIABLE = "RDEV_RANK_SESSION"

# In its folder the FIFOs are, see rdev.wire.channel and rdev.wire.files.
_SOCKET_VARIABLE = "RDEV_JOB_SOCKET"


def main(command: Sequence[str]) -> NoReturn:
    """Turns this process into a rank's; what goes wrong is said where the rank would say it.

    Args:
        command: What to execute; its first word is looked up on PATH.
    """
    environment = dict(os.environ)
    step = "open the output of"
    try:
        _take_output(environment[_SOCKET_VARIABLE], rank=int(environment["RANK"]))
        reset_signals()
        _plant(environment)
        environment[SESSION_VARIABLE] = str(os.getsid(0))
        step = "execute"
        os.execvpe(command[0], list(command), environment)
    except OSError as error:
        sys.stderr.write(f"rdev: unable to {step} {command[0]}: {error.strerror}\n")
        sys.stderr.flush()
        missing = step == "execute" and isinstance(error, (FileNotFoundError, NotADirectoryError))
        os._exit(NOT_FOUND if missing else CANNOT_EXECUTE)


def reset_signals() -> None:
    """A process started in the background hands SIGINT down ignored, and Python SIGPIPE."""
    for number in signal.valid_signals():
        if number not in (signal.SIGKILL, signal.SIGSTOP):
            # The real-time signals that libc keeps to itself refuse.
            with contextlib.suppress(OSError):
                signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def _take_output(socket: str, *, rank: int) -> None:
    """Opened for reading too, as the job's own: nobody's death breaks the pipe."""
    for number, stream in ((1, "stdout"), (2, "stderr")):
        path = os.path.join(os.path.dirname(socket), "fifo", f"{rank}.{stream}")
        opened = os.open(path, os.O_RDWR)
        os.dup2(opened, number, inheritable=True)
        os.close(opened)


def _plant(environment: MutableMapping[str, str]) -> None:
    plant = environment.pop(PLANT_VARIABLE, "")
    if plant:
        paths = [plant, environment.get("PYTHONPATH", "")]
        environment["PYTHONPATH"] = os.pathsep.join(path for path in paths if path)


if __name__ == "__main__":
    main(sys.argv[1:])
