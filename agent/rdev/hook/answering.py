"""What a client asks for and is told while an expression is evaluated.

A contract test guards each name of pydevd's.
"""

from __future__ import annotations

import os
import sys

from rdev.hook.interrupting import short

TYPE_CHECKING = False  # not from `typing`, see rdev.hook
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from rdev.hook.interrupting import Evaluations


def interrupt_on_request(evaluations: Evaluations) -> None:
    """Serves `cancel`, the protocol's word, which pydevd does not know.

    Which request is meant is not asked: the adapter has numbers of its own, and a person waits for
    one answer at a time.
    """
    processor = sys.modules["_pydevd_bundle.pydevd_process_net_command_json"]
    base = sys.modules["_pydevd_bundle._debug_adapter.pydevd_base_schema"]

    def on_cancel_request(_self: Any, _py_db: Any, request: Any) -> Any:  # noqa: ANN401 - as pydevd calls it
        evaluations.interrupt()
        comm = sys.modules["_pydevd_bundle.pydevd_comm"]
        answer = base.build_response(request)
        return comm.NetCommand(comm.CMD_RETURN, 0, answer, is_json=True)

    processor.PyDevJsonCommandProcessor.on_cancel_request = on_cancel_request


def tell_in_a_line() -> None:
    """Says what takes long, and what is not stepped into, in a line each."""
    module = sys.modules["_pydevd_bundle.pydevd_net_command_factory_json"]
    factory = module.NetCommandFactoryJson

    def evaluating(self: Any, _py_db: Any, expression: str, _thread: Any) -> Any:  # noqa: ANN401 - as pydevd calls it
        # An editor shows it; the terminal says it by itself, with what can be done.
        return self.make_console_message(f"still evaluating `{short(expression)}`\n")

    def skipped(self: Any, _py_db: Any, frame: Any) -> Any:  # noqa: ANN401 - as above
        code = frame.f_code
        place = f"{os.path.basename(code.co_filename)} in {code.co_name}"
        return self.make_warning_message(f"not stepped into, as no code of yours: {place}\n")

    factory.make_evaluation_timeout_msg = evaluating
    factory.make_skipped_step_in_because_of_filters = skipped
    timer = sys.modules["_pydevd_bundle.pydevd_utils"].Timer
    for name in ("_compute_repr_slow", "_compute_get_attr_slow"):
        setattr(timer, name, _first_line(getattr(timer, name)))


def _first_line(function: Callable[..., str]) -> Callable[..., str]:
    # The second one advises to set a variable in the job's environment.
    def told(*args: Any) -> str:  # noqa: ANN401 - as pydevd calls it
        line = function(*args).partition("\n")[0]
        return f"{line.removeprefix('pydevd warning: ')}\n"

    return told


def show_what_is_printed(evaluations: Evaluations) -> None:
    """Shows the client what an expression prints, and not what other threads do meanwhile.

    pydevd puts a wrapper around sys.stdout and sys.stderr while it evaluates what was typed, which
    writes to the client as well as to the program's own.
    """
    class_ = sys.modules["_pydevd_bundle.pydevd_io"].RedirectToPyDBIoMessages
    original = class_.write

    def write(self: Any, text: Any) -> None:  # noqa: ANN401 - as pydevd calls it
        if evaluations.is_here():
            original(self, text)

    class_.write = write
