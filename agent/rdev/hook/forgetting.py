"""What pydevd would keep of a stop in reference cycles is let go, with the tensors in it.

A frame that was stopped in, or in which an expression has raised, would live until somebody
collects cycles, with all that is in it; a training may have turned that off, and a tensor has
gigabytes. A contract test guards each name.
"""

from __future__ import annotations

import contextlib
import sys
import threading

from rdev.hook.interrupting import interruptible

TYPE_CHECKING = False  # not from `typing`, see rdev.hook
if TYPE_CHECKING:
    from types import FrameType, TracebackType
    from typing import Any

_PYDEVD = "debugpy/_vendored/pydevd/"
_INTERRUPTING = interruptible.__code__.co_filename


class Raised:
    """The exceptions of evaluations, each of which is in a frame that is in its traceback."""

    def __init__(self) -> None:
        self._of: dict[int, list[Any]] = {}
        class_ = sys.modules["_pydevd_bundle.pydevd_xml"].ExceptionOnEvaluate
        original = class_.__init__

        def remembered(raised: Any, result: Any, etype: Any, tb: Any) -> None:  # noqa: ANN401 - as pydevd calls it
            original(raised, result, etype, tb)
            self._of.setdefault(threading.get_ident(), []).append(raised)

        class_.__init__ = remembered

    def forget(self) -> None:
        """This thread's command is over, and what it raised was told."""
        for raised in self._of.pop(threading.get_ident(), ()):
            _clear(raised.tb)
            raised.result = raised.tb = None


def forget_frames(py_db: Any) -> None:  # noqa: ANN401 - the class PyDB
    """Two functions of pydevd's keep all threads' frames, in a frame that is one of them."""
    py_db.set_tracing_for_untraced_contexts = _set_tracing_for_untraced_contexts
    bundle = sys.modules["_pydevd_bundle.pydevd_additional_thread_info"]

    def get_topmost_frame(_info: Any, thread: Any) -> FrameType | None:  # noqa: ANN401 - as pydevd calls it
        # The dictionary is gone before anybody looks at this frame.
        return sys._current_frames().get(thread.ident)  # noqa: SLF001 - the only way to another thread's frames

    # At a stop, on 3.12 and later: on 3.11 the class is compiled, whose frames nobody sees, and
    # cannot be changed.
    with contextlib.suppress(TypeError):
        bundle.PyDBAdditionalThreadInfo.get_topmost_frame = get_topmost_frame


def _set_tracing_for_untraced_contexts(
    debugger: Any,  # noqa: ANN401 - a PyDB
    breakpoints_changed: bool = False,  # noqa: FBT001, FBT002 - as pydevd calls it
) -> None:
    # When breakpoints are set; as pydevd's own does it.
    monitoring = sys.modules["_pydevd_sys_monitoring.pydevd_sys_monitoring"]
    is_monitoring = sys.modules["_pydevd_bundle.pydevd_constants"].PYDEVD_USE_SYS_MONITORING
    if is_monitoring and breakpoints_changed:
        monitoring.update_monitor_events()
    spared = {
        thread.ident
        for thread in list(threading._active.values())  # type: ignore[attr-defined]  # noqa: SLF001 - enumerate hides pydevd's
        if getattr(thread, "is_pydev_daemon_thread", False)
        or getattr(thread, "pydev_do_not_trace", False)
    }
    frames = sys._current_frames()  # noqa: SLF001 - the only way to another thread's frames
    try:
        for ident in frames.keys() - spared:
            debugger.set_trace_for_frame_and_parents(ident, frames[ident])
    finally:
        frames.clear()
    if is_monitoring:
        monitoring.restart_events()


def _clear(traceback: TracebackType | None) -> None:
    # pydevd's frames only, and ours: one of the program's may be in an exception that it keeps.
    while traceback is not None:
        file = traceback.tb_frame.f_code.co_filename
        if _PYDEVD in file or file == _INTERRUPTING:
            with contextlib.suppress(RuntimeError):  # it runs
                traceback.tb_frame.clear()
        traceback = traceback.tb_next
