"""The job's main process between fork and exec.

fork -> waits at the gate -> (keeper ended: exits) -> own session, output, folder -> exec
"""

from __future__ import annotations

import contextlib
import json
import os
from typing import NoReturn

from rdev.supervisor.bounds import put_on
from rdev.supervisor.feed import open_input
from rdev.supervisor.shim import CANNOT_EXECUTE, NOT_FOUND, reset_signals
from rdev.supervisor.terminal import DEFAULT_TERM, Pty
from rdev.wire.files import JobFiles
from rdev.wire.records import Launch


def become(
    files: JobFiles, launch: Launch, *, gate: int, report: int, terminal: Pty | None = None
) -> NoReturn:
    """Turns this process into the job's main process.

    Args:
        files: The job's directory.
        launch: What to execute.
        gate: Read end of a pipe; a byte says go, its end says that nobody would notice our end.
        report: Write end of a pipe that closes on exec; what went wrong is written into it.
        terminal: Its terminal, if it has one.
    """
    step = "wait"
    try:
        if not os.read(gate, 1):
            os._exit(CANNOT_EXECUTE)
        step = "set up"
        _set_up(files, launch, terminal)
        os.umask(launch.umask)
        put_on(launch)
        step = "enter the folder"
        os.chdir(launch.directory)
        step = "execute"
        environment = {"TERM": DEFAULT_TERM} if terminal else {}
        os.execvpe(launch.argv[0], list(launch.argv), {**environment, **launch.environment})
    except OSError as error:
        _give_up(report, step=step, error=error)
    except ValueError as error:  # a NUL in an argument
        _give_up(report, step=step, error=OSError(22, str(error)))


def _set_up(files: JobFiles, launch: Launch, terminal: Pty | None) -> None:
    os.setsid()
    reset_signals()
    if terminal is not None:
        terminal.become()
        return
    # Each opens its FIFOs anew, for reading too: the output outlives every reader of ours, and
    # neither EPIPE nor SIGPIPE can come from it.
    opened = [
        open_input(files) if launch.stdin else os.open(os.devnull, os.O_RDONLY),
        *(os.open(files.fifo(*output), os.O_RDWR) for output in launch.main_outputs),
    ]
    for number, descriptor in enumerate(opened):
        os.dup2(descriptor, number, inheritable=True)


def _give_up(report: int, *, step: str, error: OSError) -> NoReturn:
    body = {"step": step, "errno": error.errno or 0, "cause": error.strerror or str(error)}
    with contextlib.suppress(OSError):
        os.write(report, json.dumps(body).encode())
    missing = step == "execute" and isinstance(error, (FileNotFoundError, NotADirectoryError))
    os._exit(NOT_FOUND if missing else CANNOT_EXECUTE)
