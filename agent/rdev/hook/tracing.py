"""The program's own trace functions, on 3.11: kept from before an attach, and put back after it.

    remember --attach--> traced by pydevd --restore--> as before

There a debugger is a trace function, and a thread has one. What the program had set, as a measure
of coverage does, is read where it can be: `threading.settrace`'s by its name, the main thread's by
a pending call of the interpreter, those of frames in the frames. Another thread's cannot be read:
it is taken for `threading.settrace`'s, which a thread has that began after that was set.
"""

from __future__ import annotations

import sys
import threading
import time

TYPE_CHECKING = False  # not from `typing`, see rdev.hook
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import CodeType, FrameType
    from typing import Any

# A main thread inside a long call of C code (a collective, a synchronize) runs no pending call;
# nobody waits longer for it than this, and it is cleared as soon as it returns to Python.
MAIN_CLEARED = 1.0

# A thread that was parked is out of the debugger's code by then. Part of that is compiled, and has
# no frame that could be looked for.
AFTER_PARKING = 0.02

# At an attach it is only asked, so that a busy one is not waited for.
MAIN_ASKED = 0.25


class _InMain:
    """Executes in the main thread, between two of its instructions, unless an attach came first."""

    def __init__(self) -> None:
        import ctypes  # 5 ms that only a process with a debugger pays

        self._generation = 0
        self._asked: list[tuple[int, Callable[[], None], threading.Event]] = []
        # Kept for good: the interpreter may call it long after everybody stopped waiting.
        self._add_pending_call = ctypes.pythonapi.Py_AddPendingCall
        self._callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p)(self._run)

    def cancel(self) -> None:
        """A new session begins: calls that are still pending do nothing."""
        self._generation += 1

    def execute(self, action: Callable[[], None], seconds: float) -> bool:
        """Asks for it, and waits; False if it has not been done yet."""
        done = threading.Event()
        self._asked.append((self._generation, action, done))
        if self._add_pending_call(self._callback, None) != 0:
            self._asked.pop()
            return False
        return done.wait(seconds)

    def _run(self, _: object) -> int:
        if self._asked:
            generation, action, done = self._asked.pop(0)
            if generation == self._generation:
                action()
                done.set()
        return 0


class Former:
    """What the program had set before an attach."""

    def __init__(self) -> None:
        self.main: Any = None
        self.hook: Any = None
        # Not the frames, which would keep alive what is in them: one whose place another frame of
        # the same code has taken since was traced alike.
        self.frames: dict[tuple[int, CodeType], Any] = {}


_in_main: _InMain | None = None
_former = Former()
_is_main_cleared = True


def remember() -> None:
    """A debugger is about to come: what it will replace is kept.

    A clear that still waits for the main thread must not hit the new session.
    """
    global _former, _in_main
    if hasattr(sys, "monitoring"):
        return
    if _in_main is None:
        _in_main = _InMain()
    _in_main.cancel()
    former = Former()
    former.hook = _own(threading._trace_hook)  # type: ignore[attr-defined]  # noqa: SLF001 - nothing public tells before 3.10's gettrace, which 3.11's pydevd patches
    for _, frames in _stacks():
        traced = {(id(f), f.f_code): f.f_trace for f in frames if _own(f.f_trace) is not None}
        former.frames.update(traced)

    def read() -> None:
        former.main = _own(sys.gettrace())

    if not _in_main.execute(read, MAIN_ASKED) and not _is_main_cleared:
        former.main = _former.main  # it has been in C since the last session, which has it
    _in_main.cancel()
    _former = former


def restore() -> bool:
    """The debugger has gone: each thread has what it had.

    Returns:
        False if the main thread has not yet; it will when it next runs Python.
    """
    global _in_main, _is_main_cleared
    former = _former
    tracing = sys.modules["pydevd_tracing"]
    tracing.restore_sys_set_trace_func()
    _restore_hook(former)
    for _, frames in _stacks():
        for frame in frames:
            frame.f_trace = former.frames.get((id(frame), frame.f_code))
    if threading.current_thread() is threading.main_thread():
        sys.settrace(former.main)
        return True
    if _in_main is None:
        _in_main = _InMain()

    def put_back() -> None:
        global _is_main_cleared
        sys.settrace(former.main)
        _is_main_cleared = True

    _is_main_cleared = False
    cleared = _in_main.execute(put_back, MAIN_CLEARED)
    _restore_others(former, tracing)
    # One that was parked may trace itself once more on its last steps in the debugger's code.
    time.sleep(AFTER_PARKING)
    _restore_others(former, tracing)
    return cleared and _in_main.execute(lambda: _put_back_again(former), MAIN_CLEARED)


def _put_back_again(former: Former) -> None:
    if sys.gettrace() is not None and _own(sys.gettrace()) is None:
        sys.settrace(former.main)


def restore_child() -> None:
    """In a forked child, whose only thread this is."""
    global _former
    former, _former = _former, Former()
    if _in_main is not None:
        _in_main.cancel()  # calls that were pending are the parent's
    sys.modules["pydevd_tracing"].restore_sys_set_trace_func()
    _restore_hook(former)
    is_main = threading.current_thread() is threading.main_thread()
    sys.settrace(former.main if is_main else None)


def _restore_hook(former: Former) -> None:
    # One that the program has set meanwhile is its own wish.
    if _own(threading._trace_hook) is None:  # type: ignore[attr-defined]  # noqa: SLF001 - as above
        threading.settrace(former.hook)


def _restore_others(former: Former, tracing: Any) -> None:  # noqa: ANN401 - a module of pydevd's
    spared = {threading.main_thread().ident, threading.get_ident()}
    for ident in sys._current_frames():  # noqa: SLF001 - the only way to another thread's frames
        thread = _thread(ident)
        if ident in spared or thread is None or getattr(thread, "pydev_do_not_trace", False):
            continue
        tracing.set_trace_to_threads(
            _replaced_by(former.hook), thread_idents=[ident], create_dummy_thread=False
        )


def _replaced_by(wanted: Any) -> Callable[..., Any]:  # noqa: ANN401 - a trace function
    def replace_itself(frame: FrameType, event: str, arg: object) -> Any:  # noqa: ANN401 - a trace function
        sys.settrace(wanted)
        return wanted(frame, event, arg) if wanted is not None and event == "call" else None

    return replace_itself


def _stacks() -> Iterator[tuple[int, list[FrameType]]]:
    here = threading.get_ident()
    for ident, top in sys._current_frames().items():  # noqa: SLF001 - as above
        if ident == here:
            continue  # whoever keeps its own frame keeps it for ever, and all that is in it
        frames: list[FrameType] = []
        frame: FrameType | None = top
        while frame is not None:
            frames.append(frame)
            frame = frame.f_back
        yield ident, frames


def _thread(ident: int) -> threading.Thread | None:
    thread: threading.Thread | None = threading._active.get(ident)  # type: ignore[attr-defined]  # noqa: SLF001 - enumerate hides pydevd's
    return thread


def _own(function: Any) -> Any:  # noqa: ANN401 - a trace function
    """The program's trace function; None if it is the debugger's."""
    # pydevd's is a `functools.partial`; an object in C, as coverage's, has its type's module only.
    inner = getattr(function, "func", function)
    module = getattr(inner, "__module__", None) or type(inner).__module__
    is_debuggers = str(module).startswith(("pydevd", "_pydevd", "rdev.hook"))
    return None if is_debuggers else function
