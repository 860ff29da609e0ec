"""Where a process is: the user's own innermost frame, and what it waits in."""

from __future__ import annotations

import os
import sys
import threading

TYPE_CHECKING = False  # not from `typing`, see rdev.hook
if TYPE_CHECKING:
    from types import FrameType

_LIBRARIES = (
    os.path.dirname(os.path.abspath(os.__file__)) + os.sep,
    os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep,
)
# Wherever they lie: pip's folders, debugpy's own, and code without a file.
_FOREIGN = ("/site-packages/", "/dist-packages/", "/debugpy/", "<")

# Torch's wrappers, which say nothing of what is waited for.
_WRAPPERS = frozenset({"wrapper", "decorate_context", "_fn", "inner"})


def main_frame() -> FrameType | None:
    """The main thread's innermost frame."""
    return sys._current_frames().get(threading.main_thread().ident or 0)  # noqa: SLF001 - the only way to another thread's frames


def is_users(file: str) -> bool:
    """Whether a file is the user's, and no library's."""
    return not file.startswith((*_LIBRARIES, "<")) and not any(part in file for part in _FOREIGN)


def users_frame(frame: FrameType | None) -> FrameType | None:
    """The innermost frame of the user's own from `frame` outwards; None if there is none."""
    while frame is not None and not is_users(frame.f_code.co_filename):
        frame = frame.f_back
    return frame


def waiting_in(frame: FrameType | None) -> str:
    """The function of torch's that waits for other ranks, such as `all_reduce`; else empty.

    A backward pass may, for a wrapped model waits for its gradients in it.
    """
    while frame is not None and not is_users(frame.f_code.co_filename):
        file, name = frame.f_code.co_filename, frame.f_code.co_name
        if "/torch/distributed/" in file and name not in _WRAPPERS:
            return name
        if file.endswith("/torch/autograd/graph.py") and name == "_engine_run_backward":
            return "backward"
        frame = frame.f_back
    return ""


def fingerprint(frame: FrameType | None) -> tuple[tuple[int, int], ...]:
    """Two equal ones in a row: the thread has very likely executed nothing between."""
    found = []
    while frame is not None:
        found.append((id(frame.f_code), frame.f_lasti))
        frame = frame.f_back
    return tuple(found)


def describe(frame: FrameType | None) -> dict[str, object]:
    """`file`, `line` and `function` of the user's innermost frame; empty without one."""
    frame = users_frame(frame)
    if frame is None:
        return {"file": "", "line": 0, "function": ""}
    code = frame.f_code
    name = getattr(code, "co_qualname", code.co_name)
    return {"file": code.co_filename, "line": frame.f_lineno or 0, "function": name}


def spot(frame: FrameType) -> str:
    """A frame as FILE:LINE in FUNCTION; a file below the working folder as seen from there."""
    code = frame.f_code
    try:
        file = code.co_filename.removeprefix(os.getcwd() + os.sep)
    except OSError:  # the working folder has been removed
        file = code.co_filename
    name = getattr(code, "co_qualname", code.co_name)
    return f"{file}:{frame.f_lineno or 0} in {name}"
