"""The full detach: afterwards the process runs exactly as fast as before the attach.

pydevd's own `stoptrace` clears the trace function of the calling thread only, so on 3.11 every
other thread goes on paying for a debugger that has gone. Here every thread is cleared, and has the
program's own trace function again if it had one: see `rdev.hook.tracing`.
On 3.12 and later the monitoring events are turned off, those on single code objects included, and
what 3.12 took apart for them is put together.
"""

from __future__ import annotations

import atexit
import sys
import threading
import time

from rdev.hook.fusing import fuse
from rdev.hook.tracing import restore, restore_child

TYPE_CHECKING = False  # not from `typing`, see rdev.hook
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

# How often a condition of pydevd's threads is looked at; they poll at 0.1 s themselves.
TICK = 0.01

# pydevd's threads end within two of their own polls of 0.1 to 0.2 s each once told to.
THREADS_GONE = 3.0

# pydevd's STATE_RUN.
_RUNNING = 1


def until(condition: Callable[[], bool], seconds: float) -> bool:
    """Waits for a condition; False if it did not come true in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(TICK)
    return True


def live_threads() -> list[threading.Thread]:
    """All threads, those that pydevd hides from `threading.enumerate` included."""
    return list(threading._active.values())  # type: ignore[attr-defined]  # noqa: SLF001 - enumerate is patched to hide pydevd's threads


def debugger_threads() -> list[threading.Thread]:
    """Pydevd's own threads that still run."""
    base = _module("_pydevd_bundle.pydevd_daemon_thread").PyDBDaemonThread
    here = threading.current_thread()
    return [t for t in live_threads() if isinstance(t, base) and t.is_alive() and t is not here]


def parked_threads() -> list[threading.Thread]:
    """Threads that the debugger holds at this moment."""
    return [t for t in live_threads() if getattr(_info(t), "is_in_wait_loop", False)]


def set_running(thread: threading.Thread) -> None:
    """Undoes that the debugger wants a thread parked, as its own `internal_run_thread` does.

    It only sets attributes, and waits for no lock that a parked thread may hold.
    """
    info = _info(thread)
    if info is not None:
        info.pydev_original_step_cmd = -1
        info.pydev_step_cmd = -1
        info.pydev_step_stop = None
        info.pydev_state = _RUNNING


def unpark() -> None:
    """Lets every parked thread go; each looks at its state five times a second."""
    for thread in live_threads():
        set_running(thread)


def untrace(pydevd: Any) -> bool:  # noqa: ANN401 - pydevd has no type information
    """Removes what an attach left in the interpreter; pydevd's threads must have ended.

    Returns:
        False if the main thread could not be cleared yet; it will be when it next runs Python.
    """
    if hasattr(sys, "monitoring"):
        _stop_monitoring()
        cleared = True
    else:
        cleared = restore()
    _module("_pydev_bundle.pydev_monkey").undo_patch_thread_modules()
    _forget_threads()
    atexit.unregister(pydevd.stoptrace)
    pydevd.SetupHolder.setup = None  # it holds the session's tokens
    return cleared


def untrace_child() -> None:
    """In a forked child: the debugger's threads are gone, so nothing may ever wait for them."""
    pydevd = sys.modules.get("pydevd")
    if pydevd is None:
        return
    _module("_pydevd_bundle.pydevd_constants").set_global_debugger(None)
    if hasattr(sys, "monitoring"):
        _stop_monitoring()
    else:
        restore_child()
    _module("_pydev_bundle.pydev_monkey").undo_patch_thread_modules()
    _forget_threads()
    atexit.unregister(pydevd.stoptrace)
    pydevd.SetupHolder.setup = None


def _module(name: str) -> Any:  # noqa: ANN401 - modules of pydevd have no type information
    return sys.modules[name]


def _info(thread: threading.Thread) -> Any:  # noqa: ANN401 - a class of pydevd's
    return getattr(thread, "additional_info", None)


def _forget_threads() -> None:
    # A step that was under way when the session ended would stop the next one at a line that
    # nobody asked for.
    infos = _module("_pydevd_bundle.pydevd_additional_thread_info")
    for thread in live_threads():
        info = _info(thread)
        if info is not None:
            infos.remove_additional_info(info)
            thread.additional_info = None  # type: ignore[attr-defined]  # pydevd's attribute


def _stop_monitoring() -> None:
    monitoring: Any = getattr(sys, "monitoring")  # noqa: B009 - not there before 3.12
    tool = monitoring.DEBUGGER_ID
    facade = _module("_pydevd_sys_monitoring.pydevd_sys_monitoring")
    for name in (
        "_pydevd_sys_monitoring._pydevd_sys_monitoring",
        "_pydevd_sys_monitoring_cython",
        "_pydevd_sys_monitoring._pydevd_sys_monitoring_cython",
    ):
        codes = getattr(sys.modules.get(name), "_code_to_func_code_info_cache", {})
        if monitoring.get_tool(tool) == "pydevd":
            monitoring.set_events(tool, 0)
            for code in list(codes):
                monitoring.set_local_events(tool, code, 0)
            fuse(list(codes), tool)
        # It is keyed by PyDB.mtime, which begins at 0 again in the next session.
        codes.clear()
    facade.stop_monitoring(all_threads=True)
    facade.reset_thread_local_info()
