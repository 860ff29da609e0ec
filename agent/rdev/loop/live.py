"""The live probe: watches and controls a training that nobody prepared, from when somebody asks.

    dormant --arm--> armed --first optimizer step--> counting --disarm, or a run of ours--> dormant

While it is armed two functions of torch's are wrapped, so that the loss is known, and a hook is
registered that torch calls after every optimizer step. Nothing else of the process changes, and
nothing at all before it is armed or after it is disarmed.

The optimizer that steps first is the *anchor*: its step ends a step of the run, and the steps of
any other are phases within one. The loss is that of the last `backward` before a step.
"""

from __future__ import annotations

import atexit
import os
import sys
import threading
import time
import weakref
from _thread import get_ident
from collections.abc import Callable, Iterator, Mapping
from types import FrameType
from typing import Any

from rdev.loop.marks import Marks
from rdev.loop.objects import found_around
from rdev.loop.patches import Patches, detached
from rdev.loop.probe import Probe, current, error_at_exit
from rdev.loop.sink import Sink, sink_of_process
from rdev.loop.state import State
from rdev.wire import gate
from rdev.wire.events import PROBE_ARMED, PROBE_DISARMED

_clock = time.monotonic

# An anchor that is silent while others step so often has been left by the script, which still
# holds it. A WGAN makes 5 critic steps for one of the generator, and 100 in its first rounds.
_SILENCE = 256

# Of more optimizers than these the phases are not told apart: some scripts make one for each task.
_NAMED = 8

# How long a disarming waits for the training to go on from where it is held or served.
LEAVE_SECONDS = 5.0
_TICK = 0.002


class LiveState(State):
    """A state whose objects are looked for when they are read, and held by the script alone.

    They are no attributes of it: what would look them up makes reading `step` three times as dear.
    """

    __slots__ = ("_found", "_look")

    def __init__(self, look: Callable[[], dict[str, Any]]) -> None:
        super().__init__()
        self._look = weakref.WeakMethod(look)  # so that the probe is gone when it is dropped
        self._found: dict[str, Any] = {}

    @property
    def objects(self) -> dict[str, Any]:
        """The named objects; what is put into this mapping replaces nothing in the script."""
        held = {name: reference() for name, reference in self._found.items()}
        if not held or any(value is None for value in held.values()):
            look = self._look()
            self._found = look() if look is not None else {}
            held = {name: reference() for name, reference in self._found.items()}
        return {name: value for name, value in held.items() if value is not None}

    def forget(self) -> None:
        """The next reading looks again."""
        self._found = {}


class LiveProbe(Probe):
    """The probe of a training that is watched from outside; see the module.

    Args:
        sink: Where reports go.

    Attributes:
        marks: What ranks are aligned by.
    """

    __slots__ = ("_anchor", "_busy", "_others", "_patches", "_seen", "_silent", "marks")

    state: LiveState

    def __init__(self, sink: Sink) -> None:
        super().__init__(LiveState(self._look), sink=sink, kind="probe")
        self.marks = Marks()
        self._patches = Patches()
        self._anchor: Callable[[], Any] = _nothing
        self._seen: weakref.WeakKeyDictionary[Any, int] = weakref.WeakKeyDictionary()
        # In the step of this number so many steps of others have been since the anchor's.
        self._silent = (0, 0)
        self._busy = False

    @property
    def stage(self) -> str:
        """As of any probe; between the steps of a foreign loop there is nothing to be seen."""
        stage = super().stage
        return stage if stage in ("paused", "over") else "step"

    def arm(self) -> None:
        """Begins to listen; step 1 is the one that the training is in.

        Raises:
            RuntimeError: This torch cannot be listened to.
        """
        self._patches.put(self._stepped)
        self.state.step = 1
        self._sink.event(PROBE_ARMED, {"kind": "probe"})
        self.run_begin()

    def disarm(self, error: BaseException | None = None) -> None:
        """Restores everything; a training that is paused goes on.

        Args:
            error: What has ended the training, if it has.
        """
        self._patches.restore()
        if self.control.is_paused:
            self.control.resume()
        patience = _clock() + LEAVE_SECONDS
        while self._busy and get_ident() != self._patches.thread and _clock() < patience:
            time.sleep(_TICK)
        if error is not None:
            self.fail(error)
        self.run_end()
        gate.leave(self)
        self._sink.event(PROBE_DISARMED, {})

    def forget(self) -> None:
        """In a forked child: it is not the training, and nothing is reported."""
        self._patches.restore()
        self.abandon()

    def _stepped(self, optimizer: Any, _args: Any, _options: Any) -> None:  # noqa: ANN401  # as torch calls it
        # After every optimizer step of the process; what most of them need comes first.
        self.ended = now = _clock()
        if now < self._due and self._anchor() is optimizer:
            self._patches.loss = None
            self.state.step += 1
            return
        if self._is_training_thread():
            self._busy = True
            try:
                self._attend(optimizer)
            finally:
                self._busy = False

    def _is_training_thread(self) -> bool:
        ident, known = get_ident(), self._patches.thread
        if ident == known:
            return True
        # The main thread was only a guess, and a thread may have ended.
        if self._anchor() is None or all(one.ident != known for one in threading.enumerate()):
            self._patches.thread = ident
            return True
        return False

    def _attend(self, optimizer: Any) -> None:  # noqa: ANN401  # an optimizer of torch's
        if current() is not self:
            give_way(self)
            return
        if optimizer not in self._seen:
            self._seen[optimizer] = len(self._seen) + 1
            self.state.forget()
        if self._is_anchor(optimizer):
            self._end_step()
        else:
            self._end_phase(optimizer)

    def _is_anchor(self, optimizer: object) -> bool:
        anchor = self._anchor()
        if anchor is optimizer:
            return True
        step, silent = self._silent
        silent = silent + 1 if step == self.state.step else 1
        self._silent = (self.state.step, silent)
        if anchor is None or silent > _SILENCE:
            self._anchor = weakref.ref(optimizer)
            return True
        return False

    def _end_step(self) -> None:
        state, loss = self.state, self._patches.take()
        if self.marks.since is not None:
            state.step = self.marks.ended(state.step)
        try:
            # For this moment only: it may hold the step's graph, with what else is in there.
            self.step_end(loss)
        finally:
            state.loss = None
            self._fresh.pop("loss", None)
            state.step += 1
            if self.marks.is_needed:
                self._due = 0.0
        if state.stop:
            raise SystemExit(0)

    def _end_phase(self, optimizer: Any) -> None:  # noqa: ANN401  # an optimizer of torch's
        number = self._seen[optimizer]
        name = f"{type(optimizer).__name__} {number}" if number <= _NAMED else "others"
        self.phase_end(name, detached(self._patches.take()))

    def _look(self) -> dict[str, Any]:
        """Weak references to the objects, as the training's own frames name them."""
        frame: FrameType | None = sys._getframe()  # noqa: SLF001  # the variables of our callers
        while frame is not None and frame.f_code is not LiveProbe._stepped.__code__:
            frame = frame.f_back
        known = sorted(self._seen.items(), key=lambda entry: entry[1])
        return found_around([one for one, _ in known], frame and frame.f_back)


_lock = threading.Lock()
_live: LiveProbe | None = None


def arm(*, mark: int | None = None, step: int | None = None) -> Mapping[str, Any]:
    """Arms the probe of this process, or aligns the one that is armed.

    Args:
        mark: A mark that another rank has told.
        step: The number of the step that ended there.

    Returns:
        `armed`, `kind`; if it is not armed `refused`, the cause for a person; else `step` and
        `mark` of the latest step end (or None), and `numbers`, see `Marks.state`.
    """
    global _live
    with _lock:
        if _live is None:
            refused = _refusal()
            if refused:
                return {"armed": False, "kind": "probe", "refused": refused}
            probe = LiveProbe(sink_of_process())
            try:
                probe.arm()
            except RuntimeError as error:
                return {"armed": False, "kind": "probe", "refused": str(error)}
            _live = probe
            atexit.register(_leave)
        live, marks = _live, _live.marks
    if marks.since is not None:
        if mark is not None and step is not None and marks.is_needed:
            marks.aim(mark, step)
        live.wake()  # The end of the step at hand is the latest that all who are armed can know.
    last = marks.last or (None, None)
    told = {"step": last[0], "mark": last[1], "numbers": marks.state}
    return {"armed": True, "kind": "probe", **told}


def disarm(error: BaseException | None = None) -> Mapping[str, Any]:
    """Disarms the probe of this process, if it is armed; torch is as it was.

    Args:
        error: What has ended the training, if it has.
    """
    global _live
    with _lock:
        probe, _live = _live, None
    if probe is not None:
        atexit.unregister(_leave)
        probe.disarm(error)
    return {"armed": False, "kind": "probe"}


def give_way(probe: LiveProbe) -> None:
    """A run of rdev.loop has begun, which counts the steps itself."""
    if _live is probe:
        disarm()


def _refusal() -> str:
    """Why this process cannot be watched; empty if it can."""
    running = current()
    if running is not None:
        return f"its steps are counted already, by {running.kind!r} of rdev.loop"
    torch: Any = sys.modules.get("torch")
    if not hasattr(torch, "optim"):
        return "no torch optimizer steps in it: torch is not loaded there"
    worker = sys.modules.get("torch.utils.data._utils.worker")
    if getattr(worker, "_worker_info", None) is not None:
        return "it is a worker of a data loader"
    if not any(_is_used(kind) for kind in _kinds_of(torch.optim.Optimizer)):
        return "no torch optimizer steps in it: none has been made there yet"
    return ""


def _is_used(kind: type) -> bool:
    # Making the first optimizer of a class has torch wrap its `step`, for hooks such as ours.
    return bool(getattr(vars(kind).get("step"), "hooked", False))


def _kinds_of(kind: type) -> Iterator[type]:
    derived: type
    for derived in kind.__subclasses__():
        yield derived
        yield from _kinds_of(derived)


def _nothing() -> None:
    """Stands for the anchor until an optimizer has stepped."""


def _leave() -> None:
    # In the process's own thread, when all of it has been said but how it ended.
    disarm(error_at_exit())


def _forget() -> None:
    global _live, _lock
    _lock = threading.Lock()
    probe, _live = _live, None
    if probe is not None:
        atexit.unregister(_leave)
        probe.forget()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
