"""Has `rdev.loop` look for a number that is not finite, in whatever training the process makes.

    off --watch--> waiting for torch --it is imported--> on --found, leave--> off

The runs of `rdev.loop` are looked at where they pass the gate, and torch's optimizers before they
update anything, whoever calls them. As the live probe, the part of the loop is loaded by its name.
"""

from __future__ import annotations

import sys

from rdev.hook.probing import loop_module
from rdev.wire.gate import counted, watch

TYPE_CHECKING = False  # not from `typing`, see rdev.hook
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

_WATCH = "rdev.loop.nonfinite"
_OPTIMIZER = "torch.optim.optimizer"
_REGISTER = "register_optimizer_step_pre_hook"


class NonFinite:
    """Looks in this process.

    Args:
        found: Called with what was found, for a person, on the training's thread.
        is_wanted: Whether anybody still waits for it; asked there before each look.
    """

    def __init__(self, found: Callable[[str], None], is_wanted: Callable[[], bool]) -> None:
        self._found = found
        self._is_wanted = is_wanted
        self._is_on = self._awaits_torch = False

    def watch(self) -> str:
        """Begins to look; why nothing can be seen yet, or empty."""
        self._is_on = True
        watch(self._look)
        if hasattr(sys.modules.get(_OPTIMIZER), _REGISTER):
            return str(loop_module(_WATCH).watch(self._found, self._is_wanted))
        self._awaits_torch = True
        return "" if counted() else "no torch is loaded in it, and no run of rdev.loop begun"

    def leave(self) -> str:
        """Looks no more."""
        if self._is_on:
            self._is_on = self._awaits_torch = False
            watch(None)
            if _WATCH in sys.modules:
                loop_module(_WATCH).leave()
        return ""

    def importing(self) -> None:
        """The program is about to import something: torch may be there since the last time."""
        if self._awaits_torch and hasattr(sys.modules.get(_OPTIMIZER), _REGISTER):
            self._awaits_torch = False  # looking imports as well
            try:
                loop_module(_WATCH).watch(self._found, self._is_wanted)
            except Exception:  # noqa: BLE001 - what is raised here ends the program's import
                self._awaits_torch = True  # torch is half made, and complete the next time

    def _look(self, state: Any) -> None:  # noqa: ANN401 - the state of a run
        what = loop_module(_WATCH).seen(state) if self._is_wanted() else ""
        if what:
            self._found(what)
