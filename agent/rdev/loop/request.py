"""What is asked of a run by one caller, and what came of it."""

from __future__ import annotations

import itertools
import threading
from _thread import get_ident
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from rdev.loop.setting import Refused
from rdev.wire.control import MAX_ANSWER
from rdev.wire.jsons import dump

if TYPE_CHECKING:
    from rdev.loop.control import Control
    from rdev.loop.state import State

ControlRefused = Refused


@dataclass(frozen=True)
class Outcome:
    """What came of a request.

    Attributes:
        step: The step after which it was served; 0 before the first.
        epoch: The epoch it belongs to.
        phase: The phase after which it was served, within the step; empty at a step's end.
        answer: What the verb answers, see `rdev.wire.control.Verb`.
    """

    step: int
    epoch: int
    phase: str
    answer: Mapping[str, Any]


@dataclass(eq=False)
class Request:
    """Something asked of a run; made by the methods of `Control`."""

    verb: str
    args: Mapping[str, Any] = field(default_factory=dict)
    id: str = ""
    by: str = ""
    at: int = 0
    work: Callable[[State], object] | None = None
    _done: threading.Event = field(default_factory=threading.Event, repr=False)
    _outcome: Outcome | None = None
    _cause: str = ""
    _control: Control | None = field(default=None, repr=False)

    @property
    def is_local(self) -> bool:
        """Whether a thread of this process asks."""
        return self.id.startswith(_LOCAL)

    def wait(self, timeout: float | None = None) -> Outcome:
        """What came of it.

        Args:
            timeout: Seconds to wait; None for as long as it takes.

        Raises:
            ControlRefused: It was refused; says why.
            TimeoutError: It has not been served yet.
            RuntimeError: This is the training's own thread, which serves it after this call.
        """
        own = self._control.thread if self._control is not None else 0
        if own == get_ident() and not self._done.is_set():
            raise RuntimeError("the training would wait for itself; it serves this later")
        if not self._done.wait(timeout):
            raise TimeoutError(f"the run has reached no boundary within {timeout:g} s")
        if self._outcome is None:
            raise ControlRefused(self._cause)
        return self._outcome

    def settle(self, outcome: Outcome | None, cause: str = "") -> None:
        """It has been served, or refused for a cause."""
        self._outcome, self._cause = outcome, cause
        self._done.set()


_LOCAL = "local-"
_ids = itertools.count(1)


def local_id() -> str:
    """An id for what a thread of this process asks."""
    return f"{_LOCAL}{next(_ids)}"


def fitting(answer: Mapping[str, Any]) -> dict[str, Any]:
    """An answer as JSON can say it, and no longer than an answer may be."""
    plain = {str(name): _plain(value) for name, value in answer.items()}
    if len(dump(plain)) <= MAX_ANSWER:
        return plain
    return {name: str(value)[:200] for name, value in itertools.islice(plain.items(), 100)}


def _plain(value: object, depth: int = 6) -> Any:  # noqa: ANN401  # what JSON has
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if depth and isinstance(value, Mapping):
        return {str(key): _plain(entry, depth - 1) for key, entry in value.items()}
    if depth and isinstance(value, (list, tuple)):
        return [_plain(entry, depth - 1) for entry in value]
    return repr(value)[:200]
