"""Evaluates an expression in the main thread's frame, on a thread of ours: nothing is stopped.

The frame goes on meanwhile, unless a debugger holds it: a name that is bound a moment later is not
there yet, and a tensor may be written while it is summed up.
"""

from __future__ import annotations

from rdev.hook.aside import Aside
from rdev.hook.place import is_users, main_frame, spot, users_frame
from rdev.hook.summary import message_of, short_text

TYPE_CHECKING = False  # not from `typing`, see rdev.hook
if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import FrameType
    from typing import Any

# A value that waits for a device behind a stuck collective never comes.
SECONDS = 2.0


def evaluate(args: Mapping[str, Any]) -> dict[str, Any]:
    """Executes the command `evaluate {expression, function, file}`.

    Raises:
        RuntimeError: There is no such frame, the expression raises, or it takes too long.
    """
    expression = str(args.get("expression", ""))
    frame = _find(str(args.get("function") or ""), str(args.get("file") or ""))
    place = spot(frame)
    # A comprehension sees the globals of its frame and not its locals, so both are one.
    names = {**frame.f_globals, **frame.f_locals}
    del frame
    value = _bounded(expression, names)
    return {"place": place, "value": value}


def _find(function: str, file: str) -> FrameType:
    frame = main_frame()
    if not function:
        frame = users_frame(frame)
        if frame is None:
            raise RuntimeError("the main thread is in no function of the workspace")
        return frame
    while frame is not None:
        code = frame.f_code
        names = (code.co_name, getattr(code, "co_qualname", code.co_name))
        if function in names and (code.co_filename == file if file else is_users(code.co_filename)):
            return frame
        frame = frame.f_back
    raise RuntimeError(f"the main thread is not in {function}")


class _Evaluation(Aside):
    def __init__(self, expression: str, names: dict[str, Any]) -> None:
        super().__init__("rdev-evaluate")
        self._expression = expression
        self._names = names
        self.text = ""
        self.cause = ""

    def run(self) -> None:
        """Evaluates, and keeps the text or the cause."""
        try:
            code = compile(self._expression.strip(), "<evaluated>", "eval")
            self.text = short_text(eval(code, self._names))
        except BaseException as error:  # noqa: BLE001 - the user's expression may raise anything
            self.cause = f"{type(error).__name__}: {message_of(error)}"
        finally:
            self._names = {}


def _bounded(expression: str, names: dict[str, Any]) -> str:
    evaluation = _Evaluation(expression, names)
    evaluation.start()
    evaluation.join(SECONDS)
    if evaluation.is_alive():
        evaluation.interrupt()
        raise RuntimeError(f"it takes longer than {SECONDS:g} s")
    if evaluation.cause:
        raise RuntimeError(evaluation.cause)
    return evaluation.text
