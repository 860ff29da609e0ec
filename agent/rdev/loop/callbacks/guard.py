"""What guards have in common: they judge each update before it is made, and act as was asked.

update -> judge -> fine: it is made
                '-> not: it is withheld, told, and then pause | skip | stop | raise
"""

from __future__ import annotations

from typing import Any

from rdev.loop.callback import Callback
from rdev.loop.callbacks.notice import report
from rdev.loop.callbacks.updates import Losses, Watcher, unwatch, watch
from rdev.loop.state import State
from rdev.wire.dial import job_socket

# Of each guard so many are told one by one, and then the 16th, 32nd, 64th ...: a training that
# goes wrong at every step shall fill no record.
_TOLD = 10

PAUSE, SKIP, STOP, RAISE = "pause", "skip", "stop", "raise"


class GuardError(FloatingPointError):
    """A guard found what it looks for, and was asked to end the training by this error."""


class Guard(Callback, Watcher):
    """Judges each update of the training's thread before it is made.

    Without torch's optimizers, in a training by numpy for one, there is no such moment: the loss is
    judged at the end of its step or phase, when the update has been made.

    Args:
        action: What to do, one of `actions`. Nobody can resume what pauses outside a job of rdev:
            there `pause` is `raise`.
        actions: What this guard can do.
        order: See `Callback`; of several guards the first that withholds an update acts.

    Raises:
        ValueError: It can do no such thing.
    """

    def __init__(self, action: str, *, actions: tuple[str, ...], order: int) -> None:
        super().__init__(order)
        if action not in actions:
            raise ValueError(f"{type(self).__name__} can {', '.join(actions)}, and not {action!r}")
        self._action = RAISE if action == PAUSE and job_socket() is None else action
        self._state: State | None = None
        self._is_watching = False
        self._sees_updates = False
        self._found = 0

    def judge(self, state: State, losses: Losses, *, optimizer: Any = None) -> bool:  # noqa: ANN401  # torch's
        """Whether all is well; if not, it has been told and acted upon.

        Args:
            state: The run's.
            losses: Numbers or tensors of one element.
            optimizer: Whose update is to be made; None if it has been made.
        """
        raise NotImplementedError

    def run_begin(self, state: State) -> None:
        """Begins to watch."""
        self._state, self._sees_updates, self._found = state, False, 0
        self._is_watching = watch(self)

    def epoch_begin(self, state: State) -> None:  # noqa: ARG002  # as the event has it
        """Begins to watch if torch has been imported meanwhile."""
        if not self._is_watching:
            self._is_watching = watch(self)

    def phase_end(self, state: State) -> None:
        """Judges the loss where no updates can be seen."""
        self._judge_loss(state)

    def step_end(self, state: State) -> None:
        """As `phase_end`, of steps without phases."""
        if not state.phase:
            self._judge_loss(state)

    def run_end(self, state: State) -> None:  # noqa: ARG002  # as the event has it
        """Watches no more."""
        unwatch(self)
        self._state, self._is_watching = None, False

    def before_update(self, optimizer: Any, losses: Losses) -> bool:  # noqa: ANN401  # torch's
        """Judges an update."""
        self._sees_updates = True
        # Overflows of mixed precision are the scaler's, which passes such an update over itself.
        if self._state is None or getattr(optimizer, "found_inf", None) is not None:
            return True
        return self.judge(self._state, losses, optimizer=optimizer)

    def act(self, reason: str, *, action: str | None = None, **details: object) -> None:
        """Tells what was found and does what was asked for; an update is withheld by the caller.

        Args:
            reason: For a person.
            action: What is done, if it is not what was asked for.
            details: Further fields of the event.

        Raises:
            GuardError: That was asked for.
        """
        state, action = self._state, action or self._action
        if state is None:
            return
        self._found += 1
        if self._found <= _TOLD or self._found & (self._found - 1) == 0:
            report(type(self).__name__, state, reason, action=action, **details)
        if action == RAISE:
            raise GuardError(f"step {state.step}: {reason}")
        if action == STOP:
            state.stop = True
        elif action == PAUSE:
            state.control.hold(reason)

    def _judge_loss(self, state: State) -> None:
        if not self._sees_updates and state.loss is not None:
            self.judge(state, [state.loss])
