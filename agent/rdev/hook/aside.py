"""Threads of ours that call into the program's libraries: the process' end waits for them.

A daemon thread that comes back from C++ while the interpreter is being finalized is unwound
through frames that may not be, and `std::terminate` aborts the process: a training that ended well
would end with SIGABRT (torch's operations give the interpreter's lock away, and come back).
"""

from __future__ import annotations

import os
import threading
import time
from weakref import WeakSet


class Aside(threading.Thread):
    """A short-lived thread that debuggers neither trace nor stop: pydevd reads the two names."""

    pydev_do_not_trace = True
    is_pydev_daemon_thread = True

    def __init__(self, name: str) -> None:
        super().__init__(name=name, daemon=True)

    def start(self) -> None:
        """Starts it.

        Raises:
            RuntimeError: The process is about to end, or no thread can be started.
        """
        with _starting:
            if _is_over:
                raise RuntimeError("the process is about to end")
            super().start()
            _started.add(self)

    def interrupt(self) -> None:
        """Raises SystemExit in it, once it runs Python and not C; nothing if it has ended."""
        import ctypes  # 5 ms

        raises, ident = ctypes.pythonapi.PyThreadState_SetAsyncExc, ctypes.c_ulong(self.ident or 0)
        raises(ident, ctypes.py_object(SystemExit))


def finish(seconds: float) -> bool:
    """None is started any more, and those that run are waited for; False if that took longer."""
    global _is_over
    until = time.monotonic() + seconds
    is_told = _starting.acquire(timeout=seconds)  # one that is being started is none of these yet
    _is_over = True
    if is_told:
        _starting.release()
    running = [thread for thread in list(_started) if thread.is_alive()]
    for thread in running:
        if thread is not threading.current_thread():
            thread.join(max(0.0, until - time.monotonic()))
    return not any(thread.is_alive() for thread in running)


def _begin() -> None:
    # In a forked child: the one who held the lock is not in it, and it has an end of its own.
    global _starting, _is_over
    _starting, _is_over = threading.Lock(), False


_starting = threading.Lock()
_started: WeakSet[Aside] = WeakSet()  # `threading` lists one a moment after it has been started
_is_over = False
os.register_at_fork(after_in_child=_begin)
