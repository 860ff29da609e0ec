"""Where every thread of the process is, told without stopping any.

It runs on the channel's own thread and takes no lock, so it answers while the program runs, while
a debugger holds it, and while the main thread is inside C code that has let go of the interpreter.
"""

from __future__ import annotations

import os
import sys
import threading

from rdev.wire.jsons import dump

TYPE_CHECKING = False  # not from `typing`, see rdev.hook
if TYPE_CHECKING:
    from collections.abc import Container, Mapping
    from types import FrameType
    from typing import Any

# A recursion at its limit has a thousand frames; how it began and where it is say enough.
INNERMOST = 80
OUTERMOST = 20

# An answer is one line of the channel, at most 1 MiB; of threads beyond this the names are told.
MOST_BYTES = 800_000

# A thread's name may be anything.
LONGEST = 100

_HERE = os.path.dirname(os.path.abspath(__file__))
_OURS = (_HERE + os.sep, os.path.join(os.path.dirname(_HERE), "wire") + os.sep)
_DEBUGGER = f"{os.sep}debugpy{os.sep}_vendored{os.sep}"


def stack(parked: Container[int], evaluating: Mapping[int, str]) -> dict[str, Any]:
    """Serves the command `stack`.

    Args:
        parked: Identifiers of the threads that are held.
        evaluating: What those that evaluate something for the debugger evaluate.

    Returns:
        `threads`, the main one first, each with `name`, `ident`, `main`, `paused` and `frames` of
        [file, line, function], the innermost first; and `title`, the process's command line.
    """
    frames = sys._current_frames()  # noqa: SLF001 - the only way to another thread's frames
    try:
        return {"threads": _threads(frames, parked, evaluating), "title": _title()}
    finally:
        # This function's own frame is among them: a cycle that would keep them all, and tensors.
        frames.clear()


def _threads(
    frames: Mapping[int, FrameType], parked: Container[int], evaluating: Mapping[int, str]
) -> list[dict[str, Any]]:
    main = threading.main_thread().ident
    # Not `enumerate`, whose lock the program may hold; and of one that it did not make only the
    # frames are known.
    named: dict[int, Any] = dict(threading._active)  # type: ignore[attr-defined]  # noqa: SLF001 - as above
    found, size = [], 0
    for ident in sorted(frames, key=lambda ident: (ident != main, ident)):
        thread = named.get(ident)
        if getattr(thread, "is_pydev_daemon_thread", False):
            continue  # the debugger's, or ours
        told: dict[str, Any] = {
            "name": str(thread.name)[:LONGEST] if thread is not None else f"thread {ident}",
            "ident": ident,
            "main": ident == main,
            "paused": ident in parked,
            "frames": [],
        }
        calls = _calls(frames[ident], ident in parked) if size < MOST_BYTES else []
        if ident in evaluating:
            calls.insert(0, ["", 0, f"evaluating `{evaluating[ident]}`"])
        size += len(dump({"": calls}))
        if size < MOST_BYTES:
            told["frames"] = calls
        found.append(told)
    return found


def _calls(
    frame: FrameType | None,
    is_parked: bool,  # noqa: FBT001 - it has no other meaning
) -> list[list[Any]]:
    """The calls of one thread; what holds it is left out, with what that calls to wait."""
    calls: list[list[Any]] = []
    was_held = not is_parked
    while frame is not None:
        code = frame.f_code
        is_ours = _is_ours(code.co_filename)
        was_held = was_held or is_ours
        if calls or (was_held and not is_ours):
            name = getattr(code, "co_qualname", code.co_name)
            calls.append([code.co_filename, frame.f_lineno or 0, name])
        frame = frame.f_back
    left_out = len(calls) - INNERMOST - OUTERMOST
    if left_out > 0:
        calls[INNERMOST:-OUTERMOST] = [["", 0, f"... {left_out} more ..."]]
    return calls


def _is_ours(file: str) -> bool:
    return file.startswith(_OURS) or _DEBUGGER in file


def _title() -> str:
    try:
        with open("/proc/self/cmdline", "rb") as file:
            words = file.read(4096).split(b"\0")
    except OSError:
        return " ".join(getattr(sys, "argv", [])) or sys.executable
    return b" ".join(words).strip().decode(errors="replace")
