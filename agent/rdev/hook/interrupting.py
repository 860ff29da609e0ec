"""Interrupts what is evaluated at a stop, and never the program's own code.

    idle --run--> evaluating --returned, raised, interrupted--> idle
                   | `interrupt`, on another thread: `Interrupted` is raised in the expression

A thread that is parked evaluates for the debugger, and an expression may never return. It is
interrupted where it runs Python: at once. C code is interrupted as far as Ctrl-C would do it: the
main thread in a sleep, a lock or a read at once, any other when it comes back.

The main thread is woken by a signal that nobody has a handler for, and which has ours only while
an expression runs: no handler of the program's is reached. Another thread gets an asynchronous
exception. Both are sent under the lock under which an evaluation begins and ends, and what has
not arrived by then is taken back.
"""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
import time

from rdev.hook.release import TICK, until

TYPE_CHECKING = False  # not from `typing`, see rdev.hook
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

# Code that catches everything, or has a `finally`, is given so long before the next one.
AGAIN_SECONDS = 0.5

# A thread that runs Python has what is raised in it by then, even on a busy machine; on 3.11.
ARRIVAL_SECONDS = 0.2

# An expression as it is told; who typed it knows the rest.
LONGEST = 60


class Interrupted(KeyboardInterrupt):
    """The evaluation was interrupted; no `except Exception` of the program's keeps it."""


# As a traceback names it.
Interrupted.__module__ = "builtins"


class _Evaluation:
    __slots__ = ("is_interrupted", "number", "text")

    def __init__(self, text: str) -> None:
        self.text = text
        self.number = 0  # of the signal that wakes it, if one does
        self.is_interrupted = False


class Evaluations:
    """What is evaluated for the debugger, by the threads that do it."""

    def __init__(self) -> None:
        self._texts: dict[int, str] = {}
        self._running: dict[int, _Evaluation] = {}
        # An asynchronous exception may come between taking a lock and whoever releases it.
        self._lock = threading.RLock()

    def texts(self) -> dict[int, str]:
        """What each thread evaluates now, on a line, by its identifier."""
        return {ident: short(one.text) for ident, one in list(self._running.items())}

    def is_here(self) -> bool:
        """Whether the calling thread evaluates something."""
        return threading.get_ident() in self._running

    def forget(self) -> None:
        """In a forked child: only the thread that forked is there, with its own."""
        self._lock = threading.RLock()

    def asked(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Remembers the expression, the third argument, for as long as the function runs."""

        def remembered(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - as pydevd calls it
            ident = threading.get_ident()
            self._texts[ident] = str(args[2])
            try:
                return function(*args, **kwargs)
            finally:
                self._texts.pop(ident, None)

        return remembered

    def running(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function may be interrupted, as it runs what a person typed."""

        def run(*args: Any) -> Any:  # noqa: ANN401 - as pydevd calls it
            ident = threading.get_ident()
            if ident in self._running:  # within another one
                return function(*args)
            one = _Evaluation(self._texts.get(ident, ""))
            try:
                try:
                    self._begin(ident, one)
                    return function(*args)
                finally:
                    self._end(ident, one)
            except BaseException:
                # It may have come before the first line of the other one.
                self._end(ident, one)
                raise

        return run

    def interrupt(self) -> None:
        """Interrupts whatever is evaluated, once."""
        others: list[tuple[int, _Evaluation]] = []
        with self._lock:
            for ident, one in self._running.items():
                if one.number:
                    with contextlib.suppress(ProcessLookupError):
                        signal.pthread_kill(ident, one.number)
                elif ident != threading.get_ident():
                    others.append((ident, one))
        for ident, one in others:
            self._raise_in(ident, one)

    def _raise_in(self, ident: int, one: _Evaluation) -> None:
        import ctypes  # 5 ms

        raises, error = ctypes.pythonapi.PyThreadState_SetAsyncExc, ctypes.py_object(Interrupted)
        thread, here = ctypes.c_ulong(ident), ctypes.c_ulong(threading.get_ident())
        # While one is on its way to a thread that is in C code, threads that are traced wait in
        # their next call for it, on 3.11: so nothing of Python's is called until it is taken back.
        deadline = time.monotonic() + ARRIVAL_SECONDS
        with self._lock:
            if self._running.get(ident) is not one:
                return
            one.is_interrupted = True
            raises(thread, error)
        if sys.version_info >= (3, 12):
            return
        while self._running.get(ident) is one and time.monotonic() < deadline:
            time.sleep(TICK)
        with self._lock:
            if self._running.get(ident) is one:
                raises(thread, None)
                # That leaves the sign that one is on its way, which its arrival takes away.
                try:
                    raises(here, error)
                    while True:
                        pass
                except Interrupted:
                    return

    def stop(self, seconds: float) -> bool:
        """Interrupts until nothing is evaluated any more; False if something still is."""
        for _ in range(max(1, round(seconds / AGAIN_SECONDS))):
            self.interrupt()
            if until(lambda: not self._running, AGAIN_SECONDS):
                return True
        return False

    def _begin(self, ident: int, one: _Evaluation) -> None:
        if ident == threading.main_thread().ident:
            one.number = _take_signal(self._on_signal)
        with self._lock:
            self._running[ident] = one

    def _end(self, ident: int, one: _Evaluation) -> None:
        while True:
            # The last one may come at any place in here, until it has been taken back.
            try:
                with self._lock:
                    self._running.pop(ident, None)
                self._unlock()
                if one.number:
                    _give_back(one.number, self._on_signal)
                elif one.is_interrupted:
                    _await_the_last(ident)
                return
            except Interrupted:  # noqa: PERF203 - that is what the loop is for
                continue

    def _unlock(self) -> None:
        lock: Any = self._lock
        while lock._is_owned():  # noqa: SLF001 - `threading.Condition` asks it, too
            lock.release()

    def _on_signal(self, _number: int, _frame: object) -> None:
        if self.is_here():
            raise Interrupted


def interruptible() -> Evaluations:
    """Makes what pydevd evaluates interruptible; it must be imported."""
    evaluations = Evaluations()
    names: Any = sys.modules["_pydevd_bundle.pydevd_vars"]
    names.evaluate_expression = evaluations.asked(names.evaluate_expression)
    names.eval = evaluations.running(eval)
    names.Exec = evaluations.running(names.Exec)
    _interruptible_texts(evaluations)
    return evaluations


def short(text: str) -> str:
    """An expression on a line."""
    line = " ".join(text.split())
    return line if len(line) <= LONGEST else f"{line[:LONGEST]}..."


def _interruptible_texts(evaluations: Evaluations) -> None:
    # A `__repr__` of the program's may never return, either.
    class_ = sys.modules["_pydevd_bundle.pydevd_safe_repr"].SafeRepr
    run = evaluations.running(class_.__call__)

    def text_of(self: Any, value: Any) -> Any:  # noqa: ANN401 - as pydevd calls it
        try:
            return run(self, value)
        except Interrupted:
            return "<interrupted>"

    class_.__call__ = text_of


def _take_signal(handler: Callable[[int, Any], None]) -> int:
    """Handles a signal that nobody else does, and returns its number; 0 if there is none.

    It is for the main thread, whose signals Python's handlers are.
    """
    taken = _taken_signals()
    for number in range(signal.SIGRTMAX - 1, signal.SIGRTMIN, -1):
        if not taken >> (number - 1) & 1 and signal.getsignal(number) is signal.SIG_DFL:
            try:
                signal.signal(number, handler)
            except (ValueError, OSError):  # no main thread of Python's, or a system without it
                return 0
            return number
    return 0


def _give_back(number: int, handler: Callable[[int, Any], None]) -> None:
    if signal.getsignal(number) == handler:
        # One that is on its way is dropped by the first, and would end the process by the second.
        signal.signal(number, signal.SIG_IGN)
        signal.signal(number, signal.SIG_DFL)


def _taken_signals() -> int:
    """Bits of the signals that are handled, ignored or blocked, by C code as well; see proc(5)."""
    taken = 0
    try:
        with open("/proc/thread-self/status", "rb") as file:
            for line in file:
                if line.startswith((b"SigBlk:", b"SigIgn:", b"SigCgt:")):
                    taken |= int(line.split()[1], 16)
    except OSError:
        return -1
    return taken


def _await_the_last(ident: int) -> None:
    # Whether it has arrived nobody knows, so one takes its place that does.
    import ctypes

    raises, thread = ctypes.pythonapi.PyThreadState_SetAsyncExc, ctypes.c_ulong(ident)
    with contextlib.suppress(Interrupted):
        raises(thread, ctypes.py_object(Interrupted))
        while True:
            pass
