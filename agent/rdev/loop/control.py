"""Live control of a run: requests of any thread, served by the training thread at a boundary.

    request --> queued --boundary of steps or phases--> served --> outcome, event `controlled`
                  '--withdraw, end of the run--> refused

    running --pause, hold, condition, end of `step n`--> held --resume, step, stop--> running

A boundary where nobody wants anything costs nothing here: whoever wants something wakes the probe.
While a run is held the active clock stands still and requests are served at once.
`rdev.wire.control` has the verbs, and how the ranks of a job serve one after the same step.
"""

from __future__ import annotations

import threading
import time
from _thread import get_ident
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rdev.loop.condition import Condition, Unknown, compiled
from rdev.loop.request import Outcome, Request, fitting, local_id
from rdev.loop.setting import Refused, Setter, lr_setter, set_path
from rdev.wire import clock
from rdev.wire.control import RUN_OVER, Verb
from rdev.wire.events import CONTROLLED, LOOP_PAUSED, LOOP_RESUMED

if TYPE_CHECKING:
    from rdev.loop.probe import Probe
    from rdev.loop.state import State

# What was served is remembered for whoever asks again because an answer was lost on its way.
_REMEMBERED = 64

# What `call` is recorded as; it cannot be asked for from outside.
CALL = "call"


@dataclass
class _Meeting:
    id: str
    until: float


class Control:
    """Controls one run. Requests may be made on any thread, and wait for the run's own.

    Args:
        probe: The run's probe.

    Attributes:
        setters: How a value is set, by its path: a function of the new value that returns what it
            was and what it is. A library that keeps a learning rate of its own replaces `lr`.
        is_wanted: Whether the next boundary has something to do; what the hot path asks.
        thread: The training's own thread; 0 until it is known.
        condition: What the run is to pause at, and its words; judged after each step.
    """

    def __init__(self, probe: Probe) -> None:
        self._probe = probe
        self.setters: dict[str, Setter] = {"lr": lr_setter(probe.state)}
        self.is_wanted = False
        self.thread = 0
        self._lock = threading.Lock()
        self._bell = threading.Event()
        self._queue: deque[Request] = deque()
        self._taken: dict[str, Request] = {}  # Out of the queue, and nothing has come of them yet.
        self._reason: str | None = None  # Why it is held, or None.
        self._wish: str | None = None  # Why it is to be held at this boundary.
        self._until: int | None = None  # The step at whose end it is to be held.
        self._arriving: list[tuple[Request, int]] = []  # They wait for the hold, since that step.
        self._leaving: list[tuple[Request, Mapping[str, Any]]] = []  # They have ended the hold.
        self._meeting: _Meeting | None = None
        self.condition: tuple[Condition, str] | None = None
        self._is_over = False
        self._first = probe.state.step  # There is nothing to judge before a step is made.

    @property
    def is_paused(self) -> bool:
        """True while the training is held by a pause."""
        return self._reason is not None

    @property
    def reason(self) -> str:
        """Why it is held; empty if it is not."""
        return self._reason or ""

    def is_unmet(self, state: State) -> bool:
        """Whether the condition does not hold now; one that raises is judged by `attend`."""
        try:
            condition = self.condition
            return condition is None or not condition[0](state)
        except Exception:  # noqa: BLE001  # it is somebody's own expression
            return False

    def pause(self, when: str | Condition | None = None) -> Request:
        """Holds the training at the next boundary, or at the end of a step for which `when` holds.

        Args:
            when: An expression over `step`, `epoch`, `loss`, the metrics and the objects, or a
                function of the state. It is judged after each step on the training thread;
                comparing a loss that lies on a device waits for that device.
        """
        if callable(when):
            self.condition = (when, getattr(when, "__name__", "a condition"))
            self._wake()
            when = None
            return self.call(lambda _: None)
        return self._ask(Verb.PAUSE.value, {"when": when} if when else {})

    def break_when(self, condition: str | Condition) -> Request:
        """As `pause(when=condition)`."""
        return self.pause(when=condition)

    def resume(self) -> Request:
        """Lets the training go on; one that is not held forgets what it was to pause at."""
        return self._ask(Verb.RESUME.value)

    def step(self, n: int = 1) -> Request:
        """Makes `n` steps more than have been begun, and pauses; served when it has."""
        return self._ask(Verb.STEP.value, {"steps": n})

    def stop(self) -> Request:
        """Ends the run after this step."""
        return self._ask(Verb.STOP.value)

    def checkpoint(self, path: str | None = None) -> Request:
        """Writes a checkpoint, see `rdev.loop.checkpoint.save`."""
        return self._ask(Verb.CHECKPOINT.value, {"path": path} if path else {})

    def set(self, path: str, value: object) -> Request:
        """Sets `lr`, or a path under the objects such as `optimizer.param_groups.0.momentum`."""
        return self._ask(Verb.SET.value, {"path": path, "value": value})

    def reload(self, module: str) -> Request:
        """Takes the edited code of a module and keeps all objects, see `rdev.loop.reload`."""
        return self._ask(Verb.RELOAD.value, {"module": module})

    def read(self) -> Request:
        """Reads the state, see `rdev.loop.reading`."""
        return self._ask(Verb.STATE.value)

    def call(self, function: Callable[[State], object]) -> Request:
        """Calls `function(state)` on the training thread; the answer's `value` is its result."""
        name = getattr(function, "__qualname__", type(function).__name__)
        return self._ask(CALL, {"function": name}, work=function)

    def ask(
        self,
        verb: Verb,
        args: Mapping[str, Any],
        *,
        id: str,  # noqa: A002  # as the channel calls it
        by: str = "",
        at: int = 0,
        meeting: str = "",
    ) -> Mapping[str, Any] | None:
        """Asks on behalf of somebody outside.

        Args:
            verb: What is asked.
            args: Its arguments.
            id: The same again asks nothing anew.
            by: Who asks.
            at: Not before the end of this step, unless the run is held; 0 for the next boundary.
            meeting: The meeting that ends with this.

        Returns:
            The event of the request if it was served before.
        """
        request = Request(verb.value, args, id=id, by=by, at=at)
        with self._lock:
            if id in _served:
                return _served[id]
            is_over = self._is_over
            is_known = id in self._taken or any(one.id == id for one in self._queue)
            if not is_over and not is_known:
                self._queue.append(request)
            if self._meeting is not None and self._meeting.id == meeting:
                self._meeting = None
        if is_over:  # what its callbacks do at its end may take long
            self._refuse_late(request)
        self._wake()
        return None

    def withdraw(self, id: str) -> bool:  # noqa: A002  # as the channel calls it
        """Takes a request back; False if it has been served, or is being served."""
        with self._lock:
            for request in self._queue:
                if request.id == id:
                    self._queue.remove(request)
                    request.settle(None, "it was withdrawn")
                    return True
        return False

    def has_begun(self, id: str) -> bool:  # noqa: A002  # as the channel calls it
        """Whether a request has been served, or is being served."""
        with self._lock:
            return id in _served or id in self._taken

    def meet(self, id: str, seconds: float) -> bool:  # noqa: A002  # as the channel calls it
        """Holds the run at its next step's end for a request of this meeting, at most so long.

        Returns:
            False if another meeting is under way.
        """
        with self._lock:
            now, other = time.monotonic(), self._meeting
            if other is not None and other.id != id and now < other.until:
                return False
            self._meeting = _Meeting(id, now + seconds)
        self._wake()
        return True

    def part(self, id: str) -> None:  # noqa: A002  # as the channel calls it
        """Ends a meeting without a request."""
        with self._lock:
            if self._meeting is not None and self._meeting.id == id:
                self._meeting = None
        self._wake()

    def hold(self, reason: str) -> None:
        """Holds the training here and now, on its own thread, until somebody lets it go on.

        For callbacks. Requests are served meanwhile, but for those that need a step's end. Ranks
        that are not held wait in their next collective operation, at most for its timeout.

        Raises:
            RuntimeError: This is not the training's own thread; any other uses `pause`.
        """
        if self.thread not in (0, get_ident()):
            raise RuntimeError("only the training's own thread can be held here; use `pause`")
        if self._reason is not None:  # by a callback that is told of this very pause
            self._reason = reason
            return
        self._stay(reason, "")

    def attend(self, phase: str = "") -> None:
        """At a boundary, on the training thread: serves what is asked and holds if need be.

        Args:
            phase: The phase that has ended; empty at the end of a step.
        """
        self.is_wanted = False
        if self._queue:
            self._serve_all(phase)
        if not phase:
            if self._meeting is not None:
                self._meet()
            if self._until is not None and self._probe.state.step >= self._until:
                self._until = None
                self._wish = self._wish or "its steps are made"
            if self.condition is not None and self._probe.state.step > self._first:
                self._judge()
        if self._wish is not None:
            self._stay(self._wish, phase)
        self._look_on()

    def over(self) -> None:
        """The run has ended: whoever still waits is told."""
        with self._lock:
            self._is_over = True
            waiting = list(self._queue)
            self._queue.clear()
        arriving, self._arriving = self._arriving, []
        for request, _ in arriving:
            self._settle(request, answer={**_asked(request), "over": True})
        for request in waiting:
            self._refuse_late(request)
        for request in list(self._taken.values()):  # Serving them is what ended the run.
            self._settle(request, cause=RUN_OVER)

    def _refuse_late(self, request: Request) -> None:
        if request.verb == Verb.STOP.value:
            self._settle(request, answer={})
        else:
            self._settle(request, cause=RUN_OVER)

    def forget(self) -> None:
        """In a forked child: what was asked is asked of its parent."""
        self._lock, self._bell = threading.Lock(), threading.Event()
        self._queue, self._taken, self._arriving, self._leaving = deque(), {}, [], []
        self._reason = self._wish = self._until = self._meeting = self.condition = None
        self.is_wanted = False

    def _ask(
        self,
        verb: str,
        args: Mapping[str, Any] | None = None,
        *,
        work: Callable[[State], object] | None = None,
    ) -> Request:
        request = Request(verb, args or {}, id=local_id(), work=work, _control=self)
        with self._lock:
            if self._is_over:
                request.settle(None, RUN_OVER)
                return request
            self._queue.append(request)
        self._wake()
        return request

    def _wake(self) -> None:
        self.is_wanted = True
        self._probe.wake()
        self._bell.set()

    def _look_on(self) -> None:
        # Something is to be seen at the ends of further steps.
        if self._queue or self._meeting or self._until is not None:
            self.is_wanted = True
            self._probe.wake()
        elif self.condition is not None:
            self._probe.wake()

    def _serve_all(self, phase: str) -> None:
        for request in self._ready(phase):
            self._serve(request, phase)

    def _ready(self, phase: str) -> list[Request]:
        """Takes out what may be served here, in the order in which it was asked for."""
        step, is_held = self._probe.state.step, self._reason is not None
        with self._lock:
            if is_held:
                ready = list(self._queue)
            else:
                ready = [r for r in self._queue if (not r.at or (r.at <= step and not phase))]
                if phase:
                    ready = [r for r in ready if r.verb != Verb.CHECKPOINT.value]
            for request in ready:
                self._queue.remove(request)
                self._taken[request.id] = request
        return ready

    def _serve(self, request: Request, phase: str) -> None:
        was_held = self._reason is not None
        try:
            serve = getattr(self, f"_serve_{request.verb}", None)
            if serve is None:
                raise Refused(f"a run knows no {request.verb!r}")
            answer = serve(request)
        except Refused as refused:
            self._settle(request, phase, cause=str(refused))
        except Exception as error:  # noqa: BLE001  # whatever it is belongs to the one who asked
            self._settle(request, phase, cause=f"{type(error).__name__}: {error}")
        else:
            if answer is not None and was_held and self._reason is None:
                self._leaving.append((request, answer))  # Who is told that it goes on, sees it.
            elif answer is not None:
                self._settle(request, phase, answer=answer)

    def _settle(
        self,
        request: Request,
        phase: str = "",
        *,
        answer: Mapping[str, Any] | None = None,
        cause: str = "",
    ) -> None:
        state = self._probe.state
        told = {"answer": fitting(answer)} if answer is not None else {"cause": cause}
        fields = {
            "id": request.id,
            "verb": request.verb,
            "args": fitting(request.args),
            "by": request.by,
            "step": state.step,
            "epoch": state.epoch,
            "phase": phase,
            **told,
        }
        with self._lock:
            self._taken.pop(request.id, None)
            # What has come too late for this run may be asked of the next one.
            if not request.is_local and cause != RUN_OVER:
                _served[request.id] = fields
                while len(_served) > _REMEMBERED:
                    _served.popitem(last=False)
        self._probe.event(CONTROLLED, fields)
        outcome = None if answer is None else Outcome(state.step, state.epoch, phase, answer)
        request.settle(outcome, cause)

    # What each verb does. None: it is settled once the training is held.

    def _serve_pause(self, request: Request) -> Mapping[str, Any] | None:
        when = request.args.get("when")
        if when:
            condition = compiled(str(when))
            self.condition = (condition, str(when))
            return {"when": str(when), **_unknown(condition, self._probe.state)}
        if self._reason is not None:
            return {"was_paused": True}
        self._wish = f"paused by {request.by}" if request.by else "paused"
        self._arriving.append((request, self._probe.state.step))
        return None

    def _serve_resume(self, request: Request) -> Mapping[str, Any]:
        was_paused = self._reason is not None or self._wish is not None
        self._reason = self._wish = self._until = None
        arriving, self._arriving = self._arriving, []
        who = f" by {request.by}" if request.by else ""
        for other, _ in arriving:  # it will not be held for them any more
            self._settle(other, cause=f"it was let go on{who}")
        if not was_paused:  # what a held run was told to pause at next is still meant
            self.condition = None
        return {"was_paused": was_paused}

    def _serve_step(self, request: Request) -> None:
        steps = request.args.get("steps", 1)
        if not isinstance(steps, int) or isinstance(steps, bool) or steps < 1:
            raise Refused("the number of steps is a whole one from 1 on")
        # Of ranks of which only some are held, all count from the step that all can reach.
        begun = max(self._probe.state.step, request.at)
        self._until = begun + steps
        self._reason = self._wish = None
        self._arriving.append((request, begun))

    def _serve_stop(self, request: Request) -> Mapping[str, Any] | None:
        self._reason = self._wish = None
        if request.at > self._probe.state.step:  # held before that: the other ranks make it, too
            with self._lock:
                self._taken.pop(request.id, None)
                self._queue.appendleft(request)
            return None
        self._probe.state.stop = True
        return {}

    def _serve_checkpoint(self, request: Request) -> Mapping[str, Any]:
        from rdev.loop.checkpoint import save

        if self._probe.is_in_step:
            raise Refused("a checkpoint is of whole steps: make this one first, with `step`")
        return {"path": save(self._probe.state, request.args.get("path"))}

    def _serve_set(self, request: Request) -> Mapping[str, Any]:
        path, value = str(request.args.get("path", "")), request.args.get("value")
        setter = self.setters.get(path)
        if setter is not None:
            before, after = setter(value)
        else:
            before, after = set_path(self._probe.state, path, value)
        return {"path": path, "before": before, "after": after}

    def _serve_reload(self, request: Request) -> Mapping[str, Any]:
        from rdev.loop.reload import reload

        return reload(str(request.args.get("module", "")))

    def _serve_state(self, request: Request) -> Mapping[str, Any]:
        del request
        from rdev.loop.reading import read

        return {**read(self._probe.state), "paused": self.reason}

    def _serve_call(self, request: Request) -> Mapping[str, Any]:
        if request.work is None:
            raise Refused("nobody outside can have a function called")
        return {"value": request.work(self._probe.state)}

    def _judge(self) -> None:
        condition, text = self.condition or (_never, "")
        try:
            is_met = bool(condition(self._probe.state))
        except Unknown:  # it may be logged later, as what is measured once an epoch
            return
        except Exception as error:  # noqa: BLE001  # it is somebody's own expression
            self.condition = None
            cause = (
                f"the condition {text!r} is not judged any more: {type(error).__name__}: {error}"
            )
            self._settle(Request(Verb.PAUSE.value, {"when": text}, id=local_id()), cause=cause)
            return
        if is_met:
            self.condition = None
            self._wish = text

    def _meet(self) -> None:
        """Holds at a step's end until the meeting has said which step is meant, or gives it up."""
        while (meeting := self._meeting) is not None:
            left = meeting.until - time.monotonic()
            if left <= 0:
                self._meeting = None
                return
            self._bell.wait(left)
            self._bell.clear()
            self._serve_all("")

    def _stay(self, reason: str, phase: str) -> None:
        self._wish, self._reason = None, reason
        probe, state = self._probe, self._probe.state
        place = {"step": state.step, "epoch": state.epoch, "phase": phase}
        probe.report()
        probe.event(LOOP_PAUSED, {**place, "reason": reason})
        clock.hold()
        try:
            probe.tell_pause()
            arriving, self._arriving = self._arriving, []
            for request, begun in arriving:
                self._settle(request, phase, answer=_arrived(request, state.step - begun))
            while self._reason is not None:
                self._serve_all(phase)
                if self._reason is not None:
                    self._bell.wait()
                    self._bell.clear()
        finally:
            self._reason = None
            seconds = clock.release()
            probe.event(LOOP_RESUMED, {"step": state.step, "seconds": round(seconds, 3)})
            leaving, self._leaving = self._leaving, []
            for request, answer in leaving:
                self._settle(request, phase, answer=answer)
            probe.tell_resume(seconds)
        self._look_on()


# Of the whole process: who asks again may find another run than the one that served it.
_served: OrderedDict[str, dict[str, Any]] = OrderedDict()


def _asked(request: Request) -> dict[str, Any]:
    return {"steps": request.args.get("steps", 1)} if request.verb == Verb.STEP.value else {}


def _arrived(request: Request, made: int) -> dict[str, Any]:
    """The answer of one that waited for the hold; another may have held it before."""
    answer = _asked(request)
    return {**answer, "made": made} if made < answer.get("steps", 0) else answer


def _unknown(condition: Condition, state: State) -> dict[str, Any]:
    """Which name of a condition nobody has given yet; it may be misspelt."""
    try:
        condition(state)
    except Unknown as error:
        return {"unknown": error.name}
    except Exception:  # noqa: BLE001  # it is somebody's own expression, and judged after a step
        return {}
    return {}


def _never(state: State) -> object:
    del state
    return False
