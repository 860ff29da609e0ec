"""What rdev changes in pydevd, all of it in one place; a contract test guards each name.

Measured defects of the stock one, and the remedies:

- It connects by TCP only (`pydevd.start_client`): `PyDB.connect` is handed our unix socket.
- An adapter that dies while a thread is parked leaves steps and breakpoints behind, and later
  attaches stop never or at the wrong line: `PyDB.dispose_and_kill_all_pydevd_threads` first
  disconnects in good order, resumes every thread and waits until none is parked.
- A stop shows in every clock of the program, and nobody is told of it: `PyDB.do_wait_suspend`,
  which runs in the parked thread, is bracketed. Once the debugger is leaving nothing is parked.
- Nobody says why the threads go on: a client that leaves is seen in `PyDevdAPI.request_disconnect`,
  which its own request calls, an adapter that is lost in the disposal.
- A step waits for up to 0.2 s when nothing else wakes the parked thread: its command does.
- A command that raises SystemExit, as an evaluated `exit()` does, is never answered.
- A child that is forked by an evaluated `os.fork()` would wait for ever at its parent's stop.
- A condition that raises is not met, and no client says so: it is said, once a breakpoint.
- An expression that does not return holds the program for good, whoever leaves: see
  `rdev.hook.interrupting`; of one that takes long it tells 17 lines.
- What an expression prints is shown with what other threads print meanwhile.
- A frame that was stopped in lives on, with the tensors in it: see `rdev.hook.forgetting`.
- It prints tensors, and every attribute of theirs that is one: see `rdev.hook.summary`.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading

from rdev.hook.answering import interrupt_on_request, show_what_is_printed, tell_in_a_line
from rdev.hook.forgetting import Raised, forget_frames
from rdev.hook.interrupting import interruptible
from rdev.hook.release import parked_threads, set_running, unpark, until
from rdev.hook.stops import Stop, Stops
from rdev.hook.summary import message_of, show_arrays

TYPE_CHECKING = False  # not from `typing`, see rdev.hook
if TYPE_CHECKING:
    import socket
    from collections.abc import Callable
    from types import FrameType
    from typing import Any

    from rdev.hook.interrupting import Evaluations

# A parked thread looks at its state every 0.2 s (pydevd's TIMEOUT_SLOW).
RESUMED_SECONDS = 2.0

_CONSTANTS = "_pydevd_bundle.pydevd_constants"


class Patches:
    """pydevd with rdev's remedies; made once in a process.

    Args:
        pydevd: The module.
        stops: Told of every thread that is parked and resumed.
        on_disposed: Called after pydevd ended a session, on one of pydevd's threads.
    """

    def __init__(self, pydevd: Any, stops: Stops, on_disposed: Callable[[], None]) -> None:  # noqa: ANN401 - pydevd has no type information
        self.pydevd = pydevd
        self._connection: socket.socket | None = None
        self._ready: Any = None  # the debugger whose client is ready
        self.evaluations = interruptible()
        pydevd.start_client = self._start_client
        _bracket_stops(pydevd.PyDB, stops)
        _resume_before_disposal(pydevd.PyDB, stops, self.evaluations, on_disposed)
        _notice_leaving(stops, self.evaluations)
        interrupt_on_request(self.evaluations)
        tell_in_a_line()
        show_what_is_printed(self.evaluations)
        _notice_readiness(self._on_ready)
        _look_after_a_command(Raised())
        _tell_of_conditions(pydevd.PyDB)
        _tell_of_messages(pydevd.PyDB)
        forget_frames(pydevd.PyDB)
        show_arrays()

    def is_ready(self) -> bool:
        """True while a client is attached that has set its breakpoints."""
        debugger = self.debugger()
        return debugger is not None and self._ready is debugger

    def stop_here(self, frame: FrameType) -> None:
        """Stops the calling thread at the next line of the frame."""
        if self.is_ready():
            # The client may go just now, and pydevd would look for another one.
            with contextlib.suppress(ConnectionError):
                self.pydevd.settrace(
                    suspend=True,
                    trace_only_current_thread=True,
                    patch_multiprocessing=False,
                    stop_at_frame=frame,
                )

    def stop_at_exception(self, error: BaseException) -> None:
        """Stops the calling thread with the frames of an exception; returns when it goes on."""
        debugger = self.debugger()
        if debugger is not None:
            raised = (type(error), error, error.__traceback__)
            debugger.trigger_exception_handler(raised, as_uncaught=False)

    def _on_ready(self, debugger: Any) -> None:  # noqa: ANN401 - a PyDB
        self._ready = debugger

    def debugger(self) -> Any:  # noqa: ANN401 - a PyDB
        """The process's debugger; None when no session is on."""
        return sys.modules[_CONSTANTS].get_global_debugger()

    def connect(self, connection: socket.socket, *, server_token: str, client_token: str) -> None:
        """Starts tracing and talks to the adapter over `connection`.

        Args:
            connection: Connected to the adapter.
            server_token: What the adapter must say before pydevd obeys it.
            client_token: What pydevd says so that the adapter believes it.
        """
        self._connection = connection
        package = os.path.dirname(os.path.abspath(sys.modules["debugpy"].__file__ or ""))
        ours = os.path.dirname(os.path.abspath(__file__))
        wire = os.path.join(os.path.dirname(ours), "wire")
        loop = os.path.join(os.path.dirname(ours), "loop")
        try:
            self.pydevd.settrace(
                host="unix",
                port=0,
                suspend=False,
                patch_multiprocessing=False,
                wait_for_ready_to_run=False,
                block_until_connected=True,
                dont_trace_start_patterns=(package, ours, wire, loop),
                dont_trace_end_patterns=("debugpy_launcher.py",),
                access_token=server_token,
                client_access_token=client_token,
                notify_stdin=False,
            )
        finally:
            self._connection = None

    def resume(self) -> None:
        """Takes every breakpoint away and lets every thread run, if a session is on."""
        debugger = self.debugger()
        if debugger is not None:
            _resume(debugger, self.evaluations)
        else:
            self.evaluations.stop(RESUMED_SECONDS)

    def dispose(self) -> None:
        """Ends pydevd's session in good order, if there is one."""
        debugger = self.debugger()
        if debugger is not None:
            debugger.dispose_and_kill_all_pydevd_threads()
        self._ready = None

    def _start_client(self, _host: str, _port: int) -> socket.socket:
        if self._connection is None:
            raise ConnectionError("rdev opens no TCP connection for a debugger")
        return self._connection


def _notice_leaving(stops: Stops, evaluations: Evaluations) -> None:
    api = sys.modules["_pydevd_bundle.pydevd_api"].PyDevdAPI
    original = api.request_disconnect

    def request_disconnect(self: Any, py_db: Any, resume_threads: Any) -> None:  # noqa: ANN401 - objects of pydevd's
        stops.end("detached")
        original(self, py_db, resume_threads)
        evaluations.interrupt()

    api.request_disconnect = request_disconnect


def _notice_readiness(on_ready: Callable[[Any], None]) -> None:
    # What pydevd calls when the client has said `configurationDone`.
    api = sys.modules["_pydevd_bundle.pydevd_api"].PyDevdAPI
    original = api.run

    def run(self: Any, py_db: Any) -> None:  # noqa: ANN401 - objects of pydevd's
        original(self, py_db)
        on_ready(py_db)

    api.run = run


def _look_after_a_command(raised: Raised) -> None:
    # A parked thread that has executed a command sleeps for 0.2 s before it looks whether the
    # command has let it go, unless it is woken again: every other step took so long.
    command = sys.modules["_pydevd_bundle.pydevd_comm"].InternalThreadCommand
    original = command.do_it

    def do_it(self: Any, dbg: Any) -> None:  # noqa: ANN401 - objects of pydevd's
        request = next(iter(self.args or ()), None)
        process = os.getpid()
        try:
            original(self, dbg)
        except BaseException as error:
            # pydevd expects an Exception where it evaluates, and only logs what else comes here.
            if getattr(request, "type", "") != "request":
                raise
            _end_unless(process)
            _refuse(dbg, request, error)
        finally:
            _end_unless(process)
            raised.forget()
            dbg.get_internal_queue_and_event(self.thread_id)[1].set()

    command.do_it = do_it


def _end_unless(process: int) -> None:
    """Ends a child that was forked by what was evaluated, and has come back from it.

    It would wait for ever at a stop in which nobody is attached to it, or train beside its parent.
    """
    if os.getpid() != process:
        os._exit(0)


def _refuse(debugger: Any, request: Any, error: BaseException) -> None:  # noqa: ANN401 - objects of pydevd's
    cause = f"{type(error).__name__}: {message_of(error)}"
    answer = {"type": "response", "request_seq": request.seq, "command": request.command}
    _send(debugger, {**answer, "success": False, "message": cause, "body": {}}, "CMD_RETURN")


def _tell_of_conditions(py_db: Any) -> None:  # noqa: ANN401 - the class PyDB
    def handle_breakpoint_condition(_self: Any, _info: Any, breakpoint_: Any, frame: Any) -> Any:  # noqa: ANN401 - as pydevd calls it
        if breakpoint_.handle_hit_condition(frame):
            return True
        condition = breakpoint_.condition
        if not condition:
            return False
        try:
            return bool(eval(condition, frame.f_globals, frame.f_locals))
        # It may be what `bool` of a tensor raises; SystemExit would end the program.
        except (Exception, SystemExit) as error:  # noqa: BLE001 - the user's expression
            if not getattr(breakpoint_, "rdev_told", False):
                breakpoint_.rdev_told = True
                _say(_self, _not_met(condition, frame, error))
            return False

    py_db.handle_breakpoint_condition = handle_breakpoint_condition


def _not_met(condition: str, frame: FrameType, error: BaseException) -> str:
    return (
        f"the condition `{condition}` ({_place(frame)}) is not met while it raises {_cause(error)}"
    )


def _tell_of_messages(py_db: Any) -> None:  # noqa: ANN401 - the class PyDB
    # pydevd prints the error in the message's place, at each hit, and not whose it is.
    def handle_breakpoint_expression(_self: Any, breakpoint_: Any, info: Any, frame: Any) -> None:  # noqa: ANN401 - as pydevd calls it
        info.pydev_message = ""  # else the last one would be said again
        try:
            info.pydev_message = str(eval(breakpoint_.expression, frame.f_globals, frame.f_locals))
        except (Exception, SystemExit) as error:  # noqa: BLE001 - the user's expression
            if not getattr(breakpoint_, "rdev_told", False):
                breakpoint_.rdev_told = True
                cause = _cause(error)
                _say(
                    _self,
                    f"the logpoint's message ({_place(frame)}) is not said while it raises {cause}",
                )

    py_db.handle_breakpoint_expression = handle_breakpoint_expression


def _place(frame: FrameType) -> str:
    return f"{os.path.basename(frame.f_code.co_filename)} in {frame.f_code.co_name}"


def _cause(error: BaseException) -> str:
    return f"{type(error).__name__}: {message_of(error)}"


def _say(debugger: Any, line: str) -> None:  # noqa: ANN401 - a PyDB
    """Shows a line to the person; every client shows what is `important`."""
    body = {"category": "important", "output": f"{line}\n"}
    _send(debugger, {"type": "event", "event": "output", "body": body}, "CMD_WRITE_TO_CONSOLE")


def _send(debugger: Any, message: dict[str, Any], kind: str) -> None:  # noqa: ANN401 - a PyDB
    comm = sys.modules["_pydevd_bundle.pydevd_comm"]
    command = comm.NetCommand(getattr(comm, kind), 0, message, is_json=True)
    debugger.writer.add_command(command)


def _bracket_stops(py_db: Any, stops: Stops) -> None:  # noqa: ANN401 - the class PyDB
    original = py_db.do_wait_suspend

    def do_wait_suspend(
        self: Any,  # noqa: ANN401 - a PyDB
        thread: Any,  # noqa: ANN401 - as pydevd calls it
        frame: Any,  # noqa: ANN401 - as above
        event: Any,  # noqa: ANN401 - as above
        arg: Any,  # noqa: ANN401 - as above
        exception_type: Any = None,  # noqa: ANN401 - as above
    ) -> Any:  # noqa: ANN401 - as above
        if stops.ending:
            set_running(thread)
            return False
        if threading.get_ident() in stops.parked:
            # It is told to stay where it is, at another line.
            return original(self, thread, frame, event, arg, exception_type)
        code = frame.f_code
        name = getattr(code, "co_qualname", code.co_name)
        stop = Stop(code.co_filename, frame.f_lineno, name, _reason(self, thread))
        stops.enter(stop)
        try:
            return original(self, thread, frame, event, arg, exception_type)
        finally:
            stops.leave()

    py_db.do_wait_suspend = do_wait_suspend


def _reason(debugger: Any, thread: Any) -> str:  # noqa: ANN401 - objects of pydevd's
    # The words of the protocol, as pydevd's own `make_thread_suspend_message` chooses them.
    factory, reason = debugger.cmd_factory, thread.stop_reason
    if reason in factory._STEP_REASONS:  # noqa: SLF001 - a contract test guards the name
        return "step"
    if reason in factory._EXCEPTION_REASONS:  # noqa: SLF001 - a contract test guards the name
        return "exception"
    constants = sys.modules["_pydevd_bundle.pydevd_comm_constants"]
    return "breakpoint" if reason == constants.CMD_SET_BREAK else "pause"


def _resume(debugger: Any, evaluations: Evaluations) -> None:  # noqa: ANN401 - a PyDB
    unpark()
    is_stuck = not evaluations.stop(RESUMED_SECONDS)
    api = sys.modules["_pydevd_bundle.pydevd_api"].PyDevdAPI()
    # A session half made has nothing to disconnect, and pydevd may raise anything then.
    with contextlib.suppress(Exception):
        api.request_disconnect(debugger, resume_threads=True)
    until(lambda: is_stuck or not parked_threads(), RESUMED_SECONDS)


def _resume_before_disposal(
    py_db: Any,  # noqa: ANN401 - the class PyDB
    stops: Stops,
    evaluations: Evaluations,
    on_disposed: Callable[[], None],
) -> None:
    original = py_db.dispose_and_kill_all_pydevd_threads

    def dispose_and_kill_all_pydevd_threads(
        self: Any,  # noqa: ANN401 - a PyDB
        wait: bool = True,  # noqa: FBT001, FBT002 - as pydevd calls it
        timeout: float = 0.5,
    ) -> None:
        # pydevd calls it when nobody is there any more to talk to.
        stops.end("adapter_lost")
        if not self.pydb_disposed:
            _resume(self, evaluations)
        # pydevd's reader waits for its writer here while the writer waits for the reader, until
        # the time is up. Threads of pydevd's and ours wait for nobody: the release does it.
        here = threading.current_thread()
        wait = wait and not getattr(here, "is_pydev_daemon_thread", False)
        try:
            original(self, wait, timeout)
        finally:
            on_disposed()

    py_db.dispose_and_kill_all_pydevd_threads = dispose_and_kill_all_pydevd_threads
