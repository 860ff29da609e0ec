"""The dialer's side of the job channel: how the hook and the loop talk to the job's supervisor.

A training must never notice its channel. Emitting appends to a deque and, at most once a drain,
writes one byte to a pipe; one daemon thread does all else. The thread makes connections again when
the supervisor is replaced, is invisible to a debugger, takes no lock that user code can hold (so
no `logging`), and is not there while the process forks.

    start -> dialing -> greeting (hello sent) -> open (welcome received) -> closed
                ^  back-off    |                    |
                '--------------+--------------------'  break, garbage, silence
"""

from __future__ import annotations

import os
import select
import sys
import threading
import time
from _weakrefset import WeakSet

from rdev.wire import channel
from rdev.wire.call import Call
from rdev.wire.outbox import CAPACITY, Outbox
from rdev.wire.thread import ChannelThread
from rdev.wire.wake import WakePipe

TYPE_CHECKING = False  # not from `typing`, see rdev.hook
if TYPE_CHECKING:
    from collections import deque
    from collections.abc import Callable, Mapping
    from typing import Any

    Fields = Mapping[str, Any]
    Handler = Callable[[str, dict[str, Any]], Mapping[str, Any]]
else:
    from _collections import deque  # `collections` is many times dearer, and has this one

# A supervisor is replaced within a second, so the first attempts come quickly; a job whose
# supervisor is gone for good tries for days, so the last ones cost nothing.
FIRST_BACK_OFF = 0.05
LONGEST_BACK_OFF = 5.0

# How long a training that ends waits for its last events to be recorded: long enough for a busy
# machine, short enough that nobody takes it for a hang. Without a connection there is less to hope.
FLUSH_SECONDS = 1.0
FLUSH_SECONDS_UNCONNECTED = 0.3

# A fork waits this long for the thread to leave; it leaves in about 0.1 ms unless user code that
# it called (a command) holds it. Then the fork goes on with the thread, as it would without us.
FORK_SECONDS = 1.0

# Starting a thread takes 0.1 ms; a machine that swaps takes longer.
START_SECONDS = 1.0

# Waking a thread costs its waker about 100 us, for it gives away the interpreter's lock. So, while
# events keep coming, at least one in so many seconds, the thread looks by itself.
LINGER_SECONDS = 2.0
LOOK_SECONDS = 0.05

# Why a command failed is for a person to read; an answer must fit into a line.
_CAUSE = 2000

# What the outbox puts around an event, at most.
_HEAD_BYTES = 64

# The kind of `rdev.wire.events`; that module's import would cost every Python process 10 ms.
EVENTS_DROPPED = "events_dropped"


class Dialer:
    """One connection to the supervisor that mends itself.

    A process numbers its events once, whoever emits them: of several dialers to one socket the
    first carries the events of all, and each its own commands.

    Args:
        role: `hook` or `loop`, as the channel names them.
        path: The job's socket; may be longer than a socket address.
        on_command: Called on the channel's thread as `on_command(name, args)` for each command of
            the supervisor; what it returns is sent back. An exception becomes the answer's cause.
        rank: This process's rank; None reads `RANK` of the environment.
        redial_in_children: Whether a forked child dials at once. If not, it does at its first
            event: a data loader's workers never speak.
        capacity: How many unacknowledged events are kept.
    """

    _carrier: Dialer
    _inbox: deque[tuple[str, float, Fields | Callable[[], Fields]]]
    _shed_events: deque[None]
    _call: Call | None
    _thread: ChannelThread | None
    _asleep: bool
    _closed: bool
    _stopping: bool

    def __init__(
        self,
        role: str,
        path: str,
        *,
        on_command: Handler | None = None,
        rank: int | None = None,
        redial_in_children: bool = False,
        capacity: int = CAPACITY,
    ) -> None:
        self._role = role
        self._path = path
        self._on_command = on_command
        self._rank = _rank_of_environment() if rank is None else rank
        self._redial_in_children = redial_in_children
        self._capacity = capacity
        self._begin()
        self._carrier = _carriers.setdefault(path, self)
        _dialers.add(self)

    @property
    def connected(self) -> bool:
        """True while the supervisor has welcomed this process and the connection stands."""
        call = self._call
        return call is not None and call.welcomed

    @property
    def rank(self) -> int:
        """The rank under which this process reports."""
        return self._rank

    def start(self) -> None:
        """Starts the thread, which dials; does nothing if it runs or the dialer is closed."""
        # Starting a thread gives away the interpreter's lock, and many may emit first. Nobody waits
        # here: whoever else is at it starts the thread that takes this one's event too.
        if not self._gate.acquire(blocking=False):
            return
        try:
            self._start()
        finally:
            self._gate.release()

    def emit(self, kind: str, fields: Fields | Callable[[], Fields]) -> None:
        """Reports an event; never blocks, never raises, costs about a microsecond.

        Args:
            kind: What happened, see `rdev.wire.events`.
            fields: What the kind says, or a function that is called on the channel's thread and
                returns it; a device is waited for there, never in the training.
        """
        if self._carrier is not self:
            self._carrier.emit(kind, fields)
            return
        inbox = self._inbox
        inbox.append((kind, time.time(), fields))
        if self._asleep:
            self._asleep = False
            self._wakes.wake()
        elif self._thread is None:
            self.start()
        elif len(inbox) > self._capacity:
            self._shed()

    def flush(self, seconds: float | None = None) -> bool:
        """Waits until all events are recorded by the supervisor, or the time is up.

        Args:
            seconds: The bound; None takes one that suits the end of a process.

        Returns:
            True if everything was recorded.
        """
        if self._carrier is not self:
            return self._carrier.flush(seconds)
        began = time.monotonic()
        while not self._settled():
            bound = FLUSH_SECONDS if self.connected else FLUSH_SECONDS_UNCONNECTED
            if time.monotonic() - began > (bound if seconds is None else seconds):
                return False
            if self._thread is None and not self._gate.locked():
                return False
            self._wakes.wake()
            time.sleep(0.001)
        return True

    def close(self, *, flush_seconds: float | None = None) -> bool:
        """Flushes, ends the thread and gives back all descriptors; once closed it stays so.

        Returns:
            True if everything was recorded.
        """
        if self._closed:
            return True
        complete = self.flush(flush_seconds)
        self._closed = True
        if self._carrier is self:
            _carriers.pop(self._path, None)
        self._stop()
        self._hang_up()
        self._wakes.close()
        return complete

    # The state of one process's life; a forked child begins anew.

    def _begin(self) -> None:
        self._gate = threading.Lock()
        self._inbox = deque()
        self._shed_events = deque()
        self._outbox = Outbox(_drop_report, capacity=self._capacity)
        self._call = None
        self._asleep = False
        self._busy = False
        self._closed = False
        self._stopping = False
        self._resume = False
        self._thread = None
        self._back_off = FIRST_BACK_OFF
        self._lingers_until = 0.0
        self._wakes = WakePipe()

    def _settled(self) -> bool:
        return not (self._inbox or self._busy or self._outbox.unacknowledged)

    def _shed(self) -> None:
        # The thread is held up: keep the newest, count the rest. Both operations are atomic.
        try:
            self._inbox.popleft()
        except IndexError:
            return
        self._shed_events.append(None)

    # The thread.

    def _run(self) -> None:
        while not self._stopping:
            if self._call is None and not self._dial():
                self._rest(self._next_back_off())
                continue
            self._gather()
            if not self._turn():
                self._hang_up()

    def _dial(self) -> bool:
        hello = {
            "type": "hello",
            "version": channel.VERSION,
            "role": self._role,
            "rank": self._rank,
            "pid": os.getpid(),
            "python": ".".join(map(str, sys.version_info[:3])),
            "script": sys.argv[0] if getattr(sys, "argv", None) else "",
        }
        try:
            self._call = Call(self._path, hello)
        except OSError:
            return False
        return True

    def _turn(self) -> bool:
        """Sends what can be sent, sleeps until something happens, reads; False on a break."""
        call = self._call
        if call is None:
            return False
        try:
            call.send(self._outbox.take)
            if self._sleep(call):
                for message in call.receive():
                    self._receive(call, message)
        except (OSError, channel.ChannelError):
            return False
        return call.welcomed or call.patience > 0

    def _sleep(self, call: Call) -> bool:
        """Sleeps until something happens; True if it is to be read."""
        poll = select.poll()
        poll.register(self._wakes.reader, select.POLLIN)
        poll.register(call.fileno(), call.interest)
        # The flag goes up before the look into the inbox: an emit either sees it, or is seen.
        seconds = self._nap(call)
        self._asleep = seconds is None or not call.welcomed
        if self._stopping or (self._asleep and self._inbox):
            self._asleep = False
            return False
        ready = poll.poll(None if seconds is None else int(seconds * 1000) + 1)
        self._asleep = False
        self._swallow_wakes()
        return any(
            descriptor == call.fileno() and events & ~select.POLLOUT for descriptor, events in ready
        )

    def _nap(self, call: Call) -> float | None:
        """How long to sleep at most; None until something happens."""
        if not call.welcomed:
            return max(0.0, call.patience)
        return LOOK_SECONDS if time.monotonic() < self._lingers_until else None

    def _rest(self, seconds: float) -> None:
        """Waits out a back-off, taking in events meanwhile."""
        until = time.monotonic() + seconds
        poll = select.poll()
        poll.register(self._wakes.reader, select.POLLIN)
        while not self._stopping:
            self._gather()
            left = until - time.monotonic()
            if left <= 0:
                return
            self._asleep = True
            if not self._inbox:
                poll.poll(int(left * 1000) + 1)
            self._asleep = False
            self._swallow_wakes()

    def _swallow_wakes(self) -> None:
        if not self._wakes.swallow():
            self._stopping = True  # The program closed all descriptors, as daemons do.

    def _gather(self) -> None:
        """Moves events from the inbox to the outbox; waits for devices where fields say so."""
        self._busy = True
        while self._shed_events:
            self._shed_events.popleft()
            self._outbox.lose()
        if self._inbox:
            self._lingers_until = time.monotonic() + LINGER_SECONDS
        # One look at the length: an emitter that never rests must not keep the thread here.
        for _ in range(len(self._inbox)):
            try:
                kind, moment, fields = self._inbox.popleft()
            except IndexError:
                break  # An emitter has shed it.
            self._put(kind, moment, fields)
        self._busy = False

    def _put(self, kind: str, moment: float, fields: Fields | Callable[[], Fields]) -> None:
        try:
            body = fields() if callable(fields) else fields
            head = {"kind": kind, "time": moment}
            event = channel.encode({**body, **head})
            if len(event) > channel.MAX_LINE - _HEAD_BYTES:
                raise ValueError("too long for a line")
        except Exception:  # noqa: BLE001  # it runs user code; a bad value must not end the channel
            self._outbox.lose()
            return
        self._outbox.add(event.rstrip())

    def _receive(self, call: Call, message: dict[str, Any]) -> None:
        kind = message.get("type")
        if kind == "welcome":
            self._outbox.reconnected(channel.whole_number(message.get("acknowledged")))
            call.welcomed = True
            self._back_off = FIRST_BACK_OFF
        elif kind == "ack":
            self._outbox.acknowledge(channel.whole_number(message.get("seq")))
        elif kind == "command":
            call.reply(channel.encode(self._answer(message)))

    def _answer(self, message: dict[str, Any]) -> dict[str, Any]:
        head: dict[str, Any] = {"type": "result", "id": message.get("id")}
        name, args = str(message.get("name", "")), message.get("args") or {}
        if self._on_command is None:
            return {**head, "ok": False, "cause": f"the {self._role} takes no commands"}
        try:
            result = {**self._on_command(name, args), **head, "ok": True}
            if len(channel.encode(result)) > channel.MAX_LINE:
                raise ValueError("the answer is longer than 1 MiB")
        except Exception as error:  # noqa: BLE001  # whatever it is belongs to the one who asked
            return {**head, "ok": False, "cause": str(error)[:_CAUSE] or type(error).__name__}
        return result

    def _next_back_off(self) -> float:
        pause = self._back_off
        self._back_off = min(LONGEST_BACK_OFF, pause * 2)
        # Half to all of it: the processes of a job must not come back in step.
        return pause * (0.5 + os.urandom(1)[0] / 512)

    def _hang_up(self) -> None:
        call, self._call = self._call, None
        if call is not None:
            call.close()

    # Starting and stopping, and forks.

    def _start(self) -> None:
        if self._closed:
            self._inbox.clear()  # Nobody will ever take these.
            return
        if self._thread is not None:
            return
        self._stopping = False
        thread = ChannelThread(self._run)
        try:
            thread.start()
        except RuntimeError:
            return  # The interpreter is shutting down, or there is no thread to be had.
        self._thread = thread

    def _stop(self) -> bool:
        """Ends the thread and waits until the kernel has forgotten it; False if it is held up."""
        self._await_start()
        return self._end_thread()

    def _await_start(self) -> None:
        # A start that is under way is over in a moment; one that this very thread is in the middle
        # of, because a signal's handler got here, never is.
        if self._gate.acquire(timeout=START_SECONDS):
            self._gate.release()

    def _end_thread(self) -> bool:
        thread = self._thread
        if thread is None:
            return True
        if thread is threading.current_thread():
            return False
        self._stopping = True
        # A program that has closed the pipe has left the thread asleep for good.
        if not self._wakes.wake() or not thread.leave(FORK_SECONDS):
            return False
        self._thread = None
        return True

    def _before_fork(self) -> None:
        # First: another thread may be about to start it, as where the hook comes in late.
        self._await_start()
        self._resume = self._thread is not None
        self._end_thread()

    def _after_fork_in_parent(self) -> None:
        if not self._resume or self._closed:
            return
        if self._thread is not None and self._thread.is_alive():
            self._stopping = False  # It was held up, and goes on.
            return
        self._thread = None
        self.start()

    def _after_fork_in_child(self) -> None:
        # These are the child's copies; the parent's connection and pipe stay as they are.
        self._hang_up()
        if self._closed:
            return
        resume = self._resume and self._redial_in_children
        self._wakes.close()
        self._begin()
        if resume:
            self.start()


def job_socket() -> str | None:
    """Path of this process's job socket; None outside a job."""
    return os.environ.get(channel.SOCKET_VARIABLE) or None


def _drop_report(count: int) -> bytes:
    body = {"kind": EVENTS_DROPPED, "time": time.time(), "count": count}
    return channel.encode(body).rstrip()


def _rank_of_environment() -> int:
    rank = os.environ.get("RANK", "")
    return int(rank) if rank.isdigit() else 0


_dialers: WeakSet[Dialer] = WeakSet()
_carriers: dict[str, Dialer] = {}


def _each(action: Callable[[Dialer], None]) -> None:
    for dialer in list(_dialers):
        action(dialer)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=lambda: _each(Dialer._before_fork),  # noqa: SLF001  # the module's own class
        after_in_parent=lambda: _each(Dialer._after_fork_in_parent),  # noqa: SLF001  # as above
        after_in_child=lambda: _each(Dialer._after_fork_in_child),  # noqa: SLF001  # as above
    )
