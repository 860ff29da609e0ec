"""Arms a process: one dialer to the job's supervisor, behind which the session is made when asked.

armed --first command, `breakpoint()`, or what the job is to stop at--> session made
"""

from __future__ import annotations

import _thread
import atexit
import os
import sys

from rdev.wire.dial import Dialer, job_socket

TYPE_CHECKING = False  # not from `typing`, see rdev.hook
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from rdev.hook.session import Session

STOPS_VARIABLE = "RDEV_JOB_DEBUG"
"""What a job is to stop at: `start`, `exception`, `step=N`, with commas between."""


class Hook:
    """What a process is armed with.

    Attributes:
        path: The socket that it dials.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self._lock = _thread.allocate_lock()
        self._session: Session | None = None
        self._release: object = None
        self._dialer = Dialer("hook", path, on_command=self._command, redial_in_children=True)

    def start(self, *, is_stranger: bool) -> None:
        """Dials; waits for a debugger where the job is to stop at once.

        Args:
            is_stranger: rdev did not start the process: nothing of it changes besides.
        """
        # The last to be registered are the first to be called before a fork: a session that is
        # busy is waited for, then the dialer's thread leaves.
        os.register_at_fork(
            before=self._before_fork,
            after_in_parent=self._after_fork,
            after_in_child=self._after_fork_in_child,
        )
        # First to be registered, so last to be called: the program's own end has its say before.
        atexit.register(self._leave)
        self._dialer.start()
        if is_stranger:
            self._release = _mapped()
            return
        # Who set the variable chose another; who sits at the job's terminal is served by pdb.
        if "PYTHONBREAKPOINT" not in os.environ and not _is_terminal():
            sys.breakpointhook = self._breakpoint
        if os.environ.get(STOPS_VARIABLE):
            self._serve().arm()

    def _serve(self) -> Session:
        with self._lock:
            if self._session is None:
                from rdev.hook.session import Session

                self._session = Session(self._dialer.emit)
            return self._session

    def _command(self, name: str, args: dict[str, Any]) -> Mapping[str, Any]:
        return self._serve().command(name, args)

    def _breakpoint(self, *args: object, **options: object) -> None:
        del args, options  # those of another debugger
        self._serve().breakpoint(sys._getframe(1))  # noqa: SLF001 - as `pdb.set_trace` does

    def _before_fork(self) -> None:
        if self._session is not None:
            self._session.before_fork()

    def _after_fork(self) -> None:
        if self._session is not None:
            self._session.after_fork()

    def _after_fork_in_child(self) -> None:
        self._lock = _thread.allocate_lock()
        if self._session is not None:
            self._session.after_fork_in_child()

    def _leave(self) -> None:
        if self._session is not None:
            self._session.leave()
        self._dialer.flush()  # returns at once unless something is owed


_hook: Hook | None = None


def arm(stranger: str = "") -> None:
    """Dials the job's socket; does nothing outside a job or when called again.

    Args:
        stranger: The socket to dial in a process that rdev did not start; empty in a job's.
    """
    global _hook
    path = stranger or job_socket()
    if path is None or _hook is not None:
        return
    _hook = Hook(path)
    _hook.start(is_stranger=bool(stranger))


def armed_with() -> str:
    """The socket that this process dials; empty if it has no hook."""
    return _hook.path if _hook is not None else ""


def _mapped() -> object:
    """A file of ours in the process's memory map, for as long as the answer is kept.

    Whoever removes releases that are not used any more looks there; what is imported later is to be
    found. A job's environment names its release.
    """
    import mmap

    with open(os.path.abspath(__file__), "rb") as file:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


def _is_terminal() -> bool:
    try:
        return os.isatty(0)
    except OSError:
        return False
