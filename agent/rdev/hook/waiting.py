"""Stops that wait for a debugger: at `breakpoint()`, the start, an exception, a step, a NaN.

    running --hold--> waiting --a debugger is attached and ready--> stopped by the debugger
                         '--- nobody came in time ---> running; that `breakpoint()` is off

A step that breakpoints are set from waits in the same way, and begins without a stop.

No debugger is in the process before somebody comes, so none of these costs anything until then.
The thread that waits does so in Python, and takes no lock that the program can hold.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time

from rdev.hook.arm import STOPS_VARIABLE
from rdev.hook.asks import JOB, Ask, Asks, asked_at_start
from rdev.hook.nonfinite import NonFinite
from rdev.hook.stops import Stop
from rdev.hook.timeouts import patience
from rdev.wire.gate import close, counted, reached

TYPE_CHECKING = False  # not from `typing`, see rdev.hook
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import FrameType, TracebackType
    from typing import Any, Protocol

    from rdev.hook.stops import Report, Stops

    class Debugger(Protocol):
        """The debugger of this process, which may not be there."""

        def is_ready(self) -> bool:
            """True once one is attached and its client has set its breakpoints."""
            ...

        def stop_here(self, frame: FrameType) -> None:
            """Stops the calling thread at the next line of the frame."""
            ...

        def stop_at_exception(self, error: BaseException) -> None:
            """Stops the calling thread with the frames of an exception; returns when it goes on."""
            ...


# Long enough to see the line in the log and to type a command; a training that nobody looks at
# loses a minute once.
ATTENDANCE_SECONDS = 60.0

# An exception is the end anyway, and its frames cannot be had again; then the GPU is wanted back.
POST_MORTEM_SECONDS = 120.0

# Somebody who waits for a step attaches as soon as it is held: an attach takes a second or two, and
# several on a busy machine. Nobody comes whose laptop has gone, and the training goes on.
GATE_SECONDS = 30.0

# How often a thread that waits looks whether somebody came.
TICK = 0.02

# What counts steps, once the program has loaded it.
_LOOP = "rdev.loop.probe"

# What is told of an exception: the innermost frames, and of each so many names.
_FRAMES = 10
_NAMES = 20


class _Term:
    """Of a thread that waits: until when it does, and until when its process groups let it."""

    __slots__ = ("end", "latest")

    def __init__(self, end: float, latest: float) -> None:
        self.end = end
        self.latest = latest


class Waiting:
    """The stops of one process.

    Args:
        stops: Where a stop is reported, and the active clock held.
        report: Called with the kind and the fields of an event.
        debugger: The debugger of this process.
        attendance: How long a stop waits for somebody, in seconds.
        post_mortem: How long the one at an exception does.
        gate: How long a step does from which breakpoints are to be set.
    """

    def __init__(
        self,
        stops: Stops,
        report: Report,
        debugger: Debugger,
        *,
        attendance: float = ATTENDANCE_SECONDS,
        post_mortem: float = POST_MORTEM_SECONDS,
        gate: float = GATE_SECONDS,
    ) -> None:
        self._stops = stops
        self._report = report
        self._debugger = debugger
        self._attendance = attendance
        self._post_mortem_seconds = post_mortem
        self._gate = gate
        self._off: set[tuple[str, int]] = set()
        self._audits = False
        self._asks = Asks()
        self._held_for: set[str] = set()  # who is about to come
        self._non_finite = NonFinite(self._hold_nan, self._is_nan_wanted)
        # One for each thread that waits, the first first.
        self._terms: list[_Term] = []

    def arm(self, environment: Any) -> None:  # noqa: ANN401 - os.environ, or like it
        """Does what the job's variable asks for.

        Args:
            environment: The process's; what one process does, its children do not do again.
        """
        words = [word for word in environment.get(STOPS_VARIABLE, "").split(",") if word]
        if "start" in words:
            environment[STOPS_VARIABLE] = ",".join(word for word in words if word != "start")
            sys.setprofile(self._until_main)
        self._ask(JOB, asked_at_start(words))

    def stop_at(self, args: Mapping[str, Any]) -> Mapping[str, Any]:
        """The command `stops`: all that `token` waits for, see `Ask`; what others do stays.

        Args:
            args: Besides, `kept`: for how many seconds, unless it is asked again.

        Returns:
            `counted`: whether somebody in this process counts steps, `loop`: whether somebody may
            begin to, `reached`: the step that has begun last, `blind`: why no number that is not
            finite can be seen yet.
        """
        blind = self._ask(str(args.get("token") or ""), Ask(args), float(args.get("kept") or 0))
        answer = {"counted": counted(), "loop": _LOOP in sys.modules, "reached": reached()}
        return {**answer, "blind": blind}

    def _ask(self, who: str, ask: Ask, seconds: float = 0.0) -> str:
        self._asks.put(who, ask, seconds)
        if ask.is_empty and who:  # an earlier release takes its own back before it attaches
            self._held_for.discard(who)
        if ask.exception or ask.nan:
            self._audit_events()
        self._close_gate()
        return self._non_finite.watch() if self._asks.nan else self._non_finite.leave()

    def _drop_overdue(self) -> None:
        """Whoever asked may be gone: looked at before anybody is waited for."""
        if self._asks.drop_overdue():
            self._close_gate()
            if not self._asks.nan:
                self._non_finite.leave()

    def _is_nan_wanted(self) -> bool:
        self._drop_overdue()
        return self._asks.nan

    def prolong(self, seconds: float) -> float | None:
        """Somebody is on the way: a stop that waits does so from now, as long as it may.

        Returns:
            The seconds that it has; None if none waits. It is never shortened.
        """
        terms = list(self._terms)
        now = time.monotonic()
        for term in terms:
            term.end = max(term.end, min(now + seconds, term.latest))
        return terms[0].end - now if terms else None

    # Each way in.

    def breakpoint(self, frame: FrameType) -> None:
        """The program calls `breakpoint()` in that frame."""
        place = (frame.f_code.co_filename, frame.f_lineno)
        if self._debugger.is_ready():
            self._debugger.stop_here(frame)
        elif place not in self._off:
            if self._await_debugger(_stop(frame, "breakpoint"), self._attendance):
                self._debugger.stop_here(frame)
            else:
                self._off.add(place)

    def _until_main(self, frame: FrameType, event: str, _arg: object) -> None:
        # The main module's own frame is the first of the user's; `-m` and `-c` have one as well.
        if event != "call" or frame.f_code.co_name != "<module>":
            return
        if frame.f_globals.get("__name__") != "__main__":
            return
        sys.setprofile(None)
        if self._await_debugger(_stop(frame, "entry"), self._attendance):
            self._debugger.stop_here(frame)

    def _close_gate(self) -> None:
        step = self._asks.step
        close(step, lambda: self._hold_step(step))

    def _hold_step(self, step: int) -> None:
        self._drop_overdue()
        is_stop, self._held_for = self._asks.reach(step)
        self._close_gate()
        if not self._held_for:
            return
        frame = _users_frame(sys._getframe(1))  # noqa: SLF001 - the training's thread is here
        stop = _stop(frame, f"step {step}")
        if not is_stop:
            if not self._debugger.is_ready():
                self._await_debugger(stop, self._gate, is_wanted=self._is_held_for)
            return
        if not self._await_debugger(stop, self._attendance, is_wanted=self._is_held_for):
            return
        if sys.getprofile() is None:
            sys.setprofile(self._until_users)
        else:
            self._debugger.stop_here(frame)  # the program is profiled, and goes on being so

    def _hold_nan(self, what: str) -> None:
        """A number is not finite, on the training's thread: once, or each step would wait anew."""
        self._held_for = self._asks.found()
        self._non_finite.leave()
        frame = _users_frame(sys._getframe(1))  # noqa: SLF001 - the training's thread is here
        if self._debugger.is_ready() or self._await_debugger(
            _stop(frame, "nan"), self._attendance, is_wanted=self._is_held_for
        ):
            error = FloatingPointError(what).with_traceback(_traceback_to(frame))
            try:
                self._debugger.stop_at_exception(error)
            finally:
                error.__traceback__ = None  # it refers to this frame, and that to it

    def _is_held_for(self) -> bool:
        return bool(self._held_for)

    def _until_users(self, frame: FrameType, event: str, _arg: object) -> None:
        # A loop of ours calls the user's step; a plain loop is returned to.
        found = frame.f_back if event == "return" else frame if event == "call" else None
        if found is not None and _is_users(found):
            sys.setprofile(None)
            self._debugger.stop_here(found)

    def _audit_events(self) -> None:
        if not self._audits:
            # Whatever hook the program has or will have: the interpreter says that it is about to
            # call it. Nobody can take an audit hook away; one costs 0.4 us an audited event, of
            # which a step of torch's has a handful.
            sys.addaudithook(self._audit)
            self._audits = True

    def _audit(self, event: str, args: tuple[Any, ...]) -> None:
        if event == "import":
            self._non_finite.importing()
        elif event == "sys.excepthook":
            self._drop_overdue()
            if not self._asks.exception:
                return
            # What is raised here takes the place of the program's traceback, or, if it is a
            # RuntimeError, swallows that; and the user's own `__str__` is called, for one.
            with contextlib.suppress(Exception):
                self._post_mortem(args[2])

    def _post_mortem(self, error: BaseException) -> None:
        if isinstance(error, KeyboardInterrupt | SystemExit):
            return
        frames = _frames_of(error)
        if not frames:
            return
        frame, line = next((f for f in reversed(frames) if _is_users(f[0])), frames[-1])
        self._report("exception_raised", _described(error, frames))
        stop = _stop(frame, "exception")
        stop.line = line
        if self._debugger.is_ready() or self._await_debugger(stop, self._post_mortem_seconds):
            self._debugger.stop_at_exception(error)

    def _await_debugger(
        self, stop: Stop, seconds: float, *, is_wanted: Callable[[], bool] = lambda: True
    ) -> bool:
        """Reports the stop and waits for as long as it is wanted; False if nobody came."""
        patient = patience()
        seconds = min(seconds, patient)
        began = time.monotonic()
        term = _Term(began + seconds, began + patient)
        self._terms.append(term)
        stop.lease, stop.unattended = seconds, True
        self._stops.enter(stop)
        is_ready = False
        try:
            while not is_ready and is_wanted() and time.monotonic() < term.end:
                time.sleep(TICK)
                is_ready = self._debugger.is_ready()
        finally:
            self._terms.remove(term)
            self._stops.leave("client" if is_ready else "unattended")
        return is_ready


def _stop(frame: FrameType, reason: str) -> Stop:
    code = frame.f_code
    name = getattr(code, "co_qualname", code.co_name)
    # Before its first line a module has none; the debugger will stop at 1.
    return Stop(code.co_filename, max(1, frame.f_lineno or 1), name, reason)


def _users_frame(frame: FrameType) -> FrameType:
    """The innermost frame that is not ours: whoever drives the loop."""
    found: FrameType | None = frame
    while found is not None and not _is_users(found):
        found = found.f_back
    return found or frame


_OURS = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep
_LIBRARY = os.path.dirname(os.path.abspath(os.__file__)) + os.sep


def _is_users(frame: FrameType) -> bool:
    path = frame.f_code.co_filename
    return not path.startswith(("<", _OURS, _LIBRARY)) and "-packages" + os.sep not in path


def _traceback_to(frame: FrameType) -> TracebackType:
    """The traceback that an exception would have that was raised in the frame and caught nowhere.

    Of what is shown at an exception it is what makes the frame the one that is stopped in, though
    it is at a call.
    """
    from types import TracebackType

    found: TracebackType | None = None
    outer: FrameType | None = frame
    while outer is not None:
        found = TracebackType(found, outer, outer.f_lasti, outer.f_lineno or 1)
        outer = outer.f_back
    return found  # type: ignore[return-value]  # there is at least the frame itself


def _frames_of(error: BaseException) -> list[tuple[FrameType, int]]:
    """The frames that the exception passed, with the lines, the innermost last."""
    frames, traceback = [], error.__traceback__
    while traceback is not None:
        frames.append((traceback.tb_frame, traceback.tb_lineno))
        traceback = traceback.tb_next
    return frames


def _described(error: BaseException, frames: list[tuple[FrameType, int]]) -> dict[str, Any]:
    from rdev.hook.summary import message_of, short_text

    def described(frame: FrameType, line: int) -> dict[str, Any]:
        names = [name for name in frame.f_locals if not name.startswith("__")][:_NAMES]
        code = frame.f_code
        return {
            "file": code.co_filename,
            "line": line,
            "function": getattr(code, "co_qualname", code.co_name),
            "locals": {name: short_text(frame.f_locals[name]) for name in names},
        }

    return {
        "exception": type(error).__name__,
        "message": message_of(error),
        "frames": [described(frame, line) for frame, line in reversed(frames[-_FRAMES:])],
    }
