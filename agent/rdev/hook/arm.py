"""Arms a process: one dialer to the job's supervisor that waits for `attach`."""

from __future__ import annotations

import atexit
import os

from rdev.hook.session import Session
from rdev.wire.dial import Dialer, job_socket

TYPE_CHECKING = False  # not from `typing`, see rdev.hook
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

_session: Session | None = None
_dialer: Dialer | None = None


def arm() -> None:
    """Dials the job's socket; does nothing outside a job or when called again."""
    global _session, _dialer
    path = job_socket()
    if path is None or _dialer is not None:
        return
    session = _session = Session(_report)
    _dialer = Dialer("hook", path, on_command=session.command, redial_in_children=True)
    os.register_at_fork(after_in_child=session.after_fork_in_child)
    # First to be registered, so last to be called: what the program's own end says is said by then.
    atexit.register(_leave, session, _dialer)
    _dialer.start()
    session.arm()


def _report(kind: str, fields: Mapping[str, Any]) -> None:
    if _dialer is not None:
        _dialer.emit(kind, fields)


def _leave(session: Session, dialer: Dialer) -> None:
    session.leave()
    dialer.flush()  # returns at once unless something is owed
