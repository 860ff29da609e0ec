"""One debug session inside a job's process: attach to the agent's adapter, detach without a trace.

    dormant --attach--> attached --detach, adapter gone, lease over--> releasing --> dormant

The debugger connects outwards, to a unix socket that the agent names; the job listens on nothing.
Whatever ends the session, parked threads run again and the process is cleaned as if the agent had
asked for it.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from functools import partial

from rdev.hook.aside import Aside, finish
from rdev.hook.gentle import gentle
from rdev.hook.groups import Groups
from rdev.hook.lease import Lease
from rdev.hook.patch import RESUMED_SECONDS, Patches
from rdev.hook.probing import probe
from rdev.hook.release import (
    THREADS_GONE,
    debugger_threads,
    unpark,
    until,
    untrace,
    untrace_child,
)
from rdev.hook.stack import stack
from rdev.hook.stops import Stops
from rdev.hook.tracing import remember
from rdev.hook.vendor import load
from rdev.hook.waiting import Waiting
from rdev.wire.unix import connect, peer_uid

TYPE_CHECKING = False  # not from `typing`, see rdev.hook
if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Mapping
    from types import FrameType
    from typing import Any

    from rdev.hook.stops import Report

# Importing debugpy takes 0.3 s on an idle core, and its share of a busy one's time.
ATTACH_SECONDS = 30.0

# The process' end waits so long for a command that is under way; one that waits for a device which
# waits for another rank is left behind.
LEAVE_SECONDS = 2.0

# How long a fork waits for an attach or a detach that is under way.
FORK_SECONDS = 5.0


class Session:
    """Serves the hook's commands of the job's channel.

    Args:
        report: Called with the kind and the fields of each event of the session.
    """

    def __init__(self, report: Report) -> None:
        self._report = report
        self._lease = Lease(self._expire)
        self._stops = Stops(report, self._lease)
        self._groups = Groups(report)
        self._lock = threading.Lock()
        self._is_forking = False
        self._patches: Patches | None = None
        self._connection: socket.socket | None = None
        self._waiting = Waiting(self._stops, report, self)

    def arm(self) -> None:
        """The process begins: what its job is to stop at is watched for."""
        self._waiting.arm(os.environ)

    def breakpoint(self, frame: FrameType) -> None:
        """The program calls `breakpoint()` in that frame."""
        self._waiting.breakpoint(frame)

    def is_ready(self) -> bool:
        """True while a debugger is attached whose client has set its breakpoints."""
        return self._patches is not None and self._patches.is_ready()

    def stop_here(self, frame: FrameType) -> None:
        """Stops the calling thread at the next line of the frame."""
        if self._patches is not None:
            self._patches.stop_here(frame)

    def stop_at_exception(self, error: BaseException) -> None:
        """Stops the calling thread with the frames of an exception; returns when it goes on."""
        if self._patches is not None:
            self._patches.stop_at_exception(error)

    def command(self, name: str, args: dict[str, Any]) -> Mapping[str, Any]:
        """Executes one command on a thread of its own and returns its result.

        Raises:
            RuntimeError: The command failed; the message is for a person.
        """
        quick: dict[str, Callable[[], Mapping[str, Any]]] = {
            "status": self._status,
            "stack": lambda: stack(self._stops.parked, self._evaluating()),
            "lease": lambda: self._renew(float(args["seconds"])),
        }
        if name in quick:
            return quick[name]()
        actions: dict[str, Callable[[], Mapping[str, Any]]] = {
            "attach": lambda: self._attach(args),
            "detach": lambda: self._detach("adapter_lost" if args.get("lost") else "detached"),
            "stops": lambda: self._waiting.stop_at(args),
            "probe": lambda: probe(args),
            **{name: partial(action, args) for name, action in self._groups.commands.items()},
        }
        if name not in actions:
            raise RuntimeError(f"the hook does not know the command {name!r}")
        return _on_own_thread(actions[name])

    def leave(self) -> None:
        """The process ends: a debugger lets go of it, and threads of ours leave its libraries."""
        # pydevd's own end may have begun that on a thread which waits for this one to run Python,
        # so this one looks again and again instead of sleeping in the lock.
        if until(lambda: self._lock.acquire(blocking=False), THREADS_GONE):
            try:
                self._release("detached")
            finally:
                self._lock.release()
        finish(LEAVE_SECONDS)
        self._groups.leave()

    def before_fork(self) -> None:
        """An attach or a detach that is under way ends first, or the child is left in its midst."""
        self._is_forking = self._lock.acquire(timeout=FORK_SECONDS)

    def after_fork(self) -> None:
        """In the parent all goes on."""
        if self._is_forking:
            self._is_forking = False
            self._lock.release()

    def after_fork_in_child(self) -> None:
        """Nothing of the parent's session is alive in a forked child."""
        self._lock = threading.Lock()
        self._is_forking = False
        self._stops.forget()
        self._lease.forget()
        self._groups.forget()
        if self._patches is not None:
            self._patches.evaluations.forget()
        connection, self._connection = self._connection, None
        if connection is None:
            return
        connection.close()  # the child's copy: the parent's stays open
        untrace_child()

    def _attach(self, args: dict[str, Any]) -> Mapping[str, Any]:
        with self._lock, gentle():
            if not self._is_left():
                raise RuntimeError("a debugger is attached already")
            self._release("adapter_lost")
            self._require_nothing_evaluated()
            self._prolong(ATTACH_SECONDS)
            pydevd = load(str(args["debugpy"]))
            if self._patches is None:
                self._patches = Patches(pydevd, self._stops, self._on_disposed)
            connection = _connect(str(args["socket"]))
            remember()
            # pydevd closes its own descriptor while a thread of its still reads from it; only a
            # second one can end that read.
            self._connection = connection.dup()
            self._stops.begin()
            try:
                self._lease.open(_seconds(args.get("lease")))
                self._patches.connect(
                    connection,
                    server_token=str(args["server_token"]),
                    client_token=str(args["client_token"]),
                )
            except BaseException:
                self._release("adapter_lost")
                raise
        self._report("debug_attached", {"file": sys.argv[0] if sys.argv else ""})
        return self._status()

    def _is_left(self) -> bool:
        """Whether no debugger is there, or one that is going.

        An adapter may outlive its agent by a moment, and pydevd's disposal takes half a second.
        """

        def left() -> bool:
            if self._patches is None or self._patches.debugger() is None:
                return True
            return self._connection is not None and _has_ended(self._connection)

        return until(left, THREADS_GONE)

    def _detach(self, cause: str, *, of: socket.socket | None = None) -> Mapping[str, Any]:
        with self._lock:
            # The end of an earlier session must not end the one that came meanwhile.
            clean = self._release(cause) if of in (None, self._connection) else True
        self._lease.join()
        return {**self._status(), "clean": clean}

    def _renew(self, seconds: float) -> Mapping[str, Any]:
        if self._lease.renew(seconds):
            self._report("debug_renewed", {"lease": seconds})
        else:
            self._prolong(seconds)
        return self._status()

    def _prolong(self, seconds: float) -> None:
        left = self._waiting.prolong(seconds)
        if left is not None:
            self._report("debug_renewed", {"lease": round(left, 3)})

    def _status(self) -> Mapping[str, Any]:
        stop = self._stops.current
        return {
            "pid": os.getpid(),
            "python": ".".join(map(str, sys.version_info[:3])),
            "attached": self._connection is not None,
            "paused": stop is not None,
            "lease": self._lease.left,
            "ending": self._stops.ending,  # why the last session ended, if it has
            # What somebody typed, and holds a thread: also once the debugger has left.
            "evaluating": next(iter(self._evaluating().values()), ""),
        }

    def _evaluating(self) -> Mapping[int, str]:
        return self._patches.evaluations.texts() if self._patches is not None else {}

    def _require_nothing_evaluated(self) -> None:
        if self._patches is None or self._patches.evaluations.stop(RESUMED_SECONDS):
            return
        text = next(iter(self._evaluating().values()), "")
        raise RuntimeError(
            f"it is still in `{text}`, which was evaluated at a stop: C code that has not returned"
        )

    def _on_disposed(self) -> None:
        # It is called on a thread of pydevd's that must end before the rest can be cleaned.
        connection = self._connection
        if connection is None:
            return  # whoever took it is cleaning
        try:
            _Worker(partial(self._detach, "adapter_lost", of=connection)).start()
        except RuntimeError:
            # The system has no thread for it, and the lease has one. At the interpreter's end
            # that has gone as well, and nothing needs cleaning.
            self._lease.hurry()

    def _expire(self) -> None:
        # The threads first and without a lock: whoever holds ours may wait for one of them.
        self._stops.end("lease")
        unpark()
        self._detach("lease")

    def _release(self, cause: str) -> bool:
        connection, self._connection = self._connection, None
        if connection is None or self._patches is None:
            return True
        import socket

        self._stops.end("adapter_lost" if _has_ended(connection) else cause)
        self._patches.resume()
        # The adapter may have been faster.
        with contextlib.suppress(OSError):
            connection.shutdown(socket.SHUT_RDWR)
        connection.close()
        self._patches.dispose()
        gone = until(lambda: not debugger_threads(), THREADS_GONE)
        cleared = untrace(self._patches.pydevd)
        self._lease.close()
        self._report("debug_detached", {})
        return gone and cleared


class _Worker(Aside):
    def __init__(self, action: Callable[[], Mapping[str, Any]]) -> None:
        super().__init__("rdev-debug")
        self._action = action
        self.result: Mapping[str, Any] = {}
        self.error: Exception | None = None

    def run(self) -> None:
        """Runs the action and keeps what came of it."""
        try:
            self.result = self._action()
        except Exception as error:  # noqa: BLE001 - it belongs to whoever asked
            # Without the frames: they would keep what is in them until somebody collects cycles,
            # and a training may have turned that off.
            self.error = error.with_traceback(None)


def _on_own_thread(action: Callable[[], Mapping[str, Any]]) -> Mapping[str, Any]:
    # An attach traces the thread that makes it; this one ends at once, and its tracing with it.
    worker = _Worker(action)
    worker.start()
    worker.join(ATTACH_SECONDS)
    if worker.is_alive():
        raise RuntimeError(f"the process did not answer within {ATTACH_SECONDS:g} s")
    if worker.error is not None:
        raise RuntimeError(_describe(worker.error))
    return worker.result


def _describe(error: Exception) -> str:
    if isinstance(error, RuntimeError):
        return str(error)
    return f"{type(error).__name__}: {error}"


def _connect(path: str) -> socket.socket:
    """Connects to the adapter, which must belong to this user.

    Raises:
        RuntimeError: It belongs to somebody else.
        OSError: Nothing listens there.
    """
    import socket

    connection = socket.socket(fileno=connect(path).detach())
    uid = peer_uid(connection)
    if uid != os.geteuid():
        connection.close()
        raise RuntimeError(f"the debug adapter belongs to user {uid}")
    return connection


def _has_ended(connection: socket.socket) -> bool:
    """Whether the adapter has closed its end, which it does when it dies."""
    import socket

    try:
        return not connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
    except BlockingIOError:
        return False
    except OSError:
        return True


def _seconds(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) else None
