"""One command in a process forked for it, which becomes what the command's own process is.

It takes over descriptors, current folder, environment, umask, arguments and ignored signals. It
leads a process group of its own: only so is it stopped by SIGTSTP as any job of a shell.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import io
import os
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Sequence
from typing import NoReturn, TextIO

from rdev.client.session import frames
from rdev.client.session.foreground import HandedBack, become_worker
from rdev.client.session.standing import Standing

# prctl(2): a signal for us when our parent ends.
_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None, use_errno=True)

# What the interpreter itself exits with when it cannot write what is left.
_EXIT_UNFLUSHED = 120

# Higher ones are left alone: nobody sends or ignores them by habit.
_SIGNALS = [number for number in range(1, 32) if number not in (signal.SIGKILL, signal.SIGSTOP)]


def work(
    request: frames.Request,
    standing: Standing,
    descriptors: Sequence[int],
    *,
    connection: socket.socket,
    session: int,
) -> NoReturn:
    """Runs the command and ends this process.

    Args:
        request: What is to be run.
        standing: How the command's process stands.
        descriptors: stdin, stdout, stderr and current folder; closed.
        connection: To the command.
        session: Process id of our parent.
    """
    code = 1
    said: bytes | None = None
    try:
        try:
            _become(request, standing, descriptors)
            _end_with(session)
        except (OSError, ValueError) as error:
            raise HandedBack from error
        code = _exit_code(request)
    except HandedBack:
        said = frames.answer(frames.HANDED_BACK)
    except BaseException:  # noqa: BLE001  # the interpreter, too, prints what nobody has caught
        traceback.print_exc()
    finally:
        code = _leave(code)
        # By us, and not by the session: what is left of us takes a while to be cleared away.
        with contextlib.suppress(OSError):
            connection.send(said or frames.answer(frames.EXITED, code & 0xFF))
        os._exit(code & 0xFF)


def _become(request: frames.Request, standing: Standing, descriptors: Sequence[int]) -> None:
    os.setpgid(0, 0)
    *streams, here = descriptors
    for number, descriptor in enumerate(streams):
        os.dup2(descriptor, number)
    os.fchdir(here)
    for descriptor in descriptors:
        os.close(descriptor)
    os.umask(standing.umask)
    os.environ.clear()
    for item in request.environment:
        name, _, value = item.partition(b"=")
        os.environb[name] = value
    time.tzset()
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_IGN if number in standing.ignored else signal.SIG_DFL)
    if signal.SIGINT not in standing.ignored:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.argv = [os.fsdecode(word) for word in request.words]
    sys.stdin = _stream(0, sys.stdin)
    sys.stdout = _stream(1, sys.stdout)
    sys.stderr = _stream(2, sys.stderr)
    become_worker(is_foreground=request.is_foreground)


def _stream(number: int, model: TextIO) -> io.TextIOWrapper:
    """As the interpreter makes them at its start."""
    assert isinstance(model, io.TextIOWrapper)
    is_unbuffered = bool(number) and model.write_through
    mode = "wb" if number else "rb"
    binary = open(number, mode, buffering=0 if is_unbuffered else -1, closefd=False)  # noqa: SIM115  # for as long as we live
    return io.TextIOWrapper(
        binary,
        encoding=model.encoding,
        errors=model.errors,
        newline="\n",
        line_buffering=number == 2 or os.isatty(number),
        write_through=is_unbuffered,
    )


def _end_with(session: int) -> None:
    """Has us hang up when the session is gone: nobody would pass signals on to us."""
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGHUP, 0, 0, 0)
    if os.getppid() != session:
        os.kill(os.getpid(), signal.SIGHUP)


def _exit_code(request: frames.Request) -> int:
    from rdev.client.cli.main import interrupted, main

    words = [os.fsdecode(word) for word in request.words[1:]]
    try:
        signal.pthread_sigmask(signal.SIG_SETMASK, ())  # all were held back till now
        return main(words)
    except HandedBack:
        raise
    except SystemExit as error:
        if error.code is None or isinstance(error.code, int):
            return error.code or 0
        sys.stderr.write(f"{error.code}\n")
        return 1
    except KeyboardInterrupt:
        return interrupted(words[0])


def _leave(code: int) -> int:
    """Does what the interpreter does at its end, and what others could see of it."""
    for thread in threading.enumerate():
        if thread is not threading.current_thread() and not thread.daemon:
            thread.join()
    atexit._run_exitfuncs()  # noqa: SLF001  # os._exit, which is fast, leaves them out
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            code = _EXIT_UNFLUSHED
    for number in range(3):
        with contextlib.suppress(OSError):
            os.close(number)
    return code
