"""A thread inside a user's program that neither a debugger nor a fork should meet."""

from __future__ import annotations

import os
import threading
import time

TYPE_CHECKING = False  # not from `typing`, see rdev.hook
if TYPE_CHECKING:
    from collections.abc import Callable


class ChannelThread(threading.Thread):
    """A thread that debuggers neither trace nor stop: pydevd reads these two names."""

    pydev_do_not_trace = True
    is_pydev_daemon_thread = True

    def __init__(self, body: Callable[[], None], *, name: str = "rdev-channel") -> None:
        super().__init__(name=name, daemon=True)
        self._body = body

    def run(self) -> None:
        """Runs the channel."""
        self._body()

    def leave(self, seconds: float) -> bool:
        """Waits until the kernel has forgotten the thread; False if it is held up.

        Its body must have been told to return.
        """
        self.join(seconds)
        if self.is_alive():
            return False
        _wait_for_task_end(self.native_id)
        return True


def _wait_for_task_end(native_id: int | None) -> None:
    # A Python thread is over a moment before its kernel task, and a fork in that moment would
    # still be warned of: Python 3.12 counts the kernel's tasks.
    task = f"/proc/self/task/{native_id}"
    until = time.monotonic() + 0.1
    while os.path.exists(task) and time.monotonic() < until:
        time.sleep(0)
