"""One attached rank, which outlives the calls of its client.

    attended --call breaks--> waiting --the client returns--> attended        either --end--> over
    over: the client left · the adapter ended · the lease ended · nobody returned · the agent stops

Bytes are counted both ways. What the client has not acknowledged is kept, up to `MOST_KEPT`: then
nothing more is read from the adapter, which holds up the debugger and never the job.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace

from rdev.agent.debug.heritage import Done, Inherited
from rdev.agent.debug.lease import Action, LeaseWatch
from rdev.agent.debug.process import AdapterProcess
from rdev.agent.debug.proxy import Motion, Proxy, important, motion, terminated
from rdev.protocol.dap import STILL_IN, DapError, Framer, Message, encode
from rdev.protocol.errors import DebugSessionLost, RdevError
from rdev.protocol.resend import Unacknowledged
from rdev.wire.events import ResumeCause

_log = logging.getLogger(__name__)

# A client tries to return for a minute, as with everything else that resumes. A stop lasts until
# its lease ends, whoever is there: a laptop that slept comes back to it.
GRACE_SECONDS = 60.0

# The largest message of ordinary sessions, a list of modules, has 1 MiB; one message more may come.
MOST_KEPT = 4 << 20

# Of the client's stream: so much at a time may wait for the adapter.
_MOST_WAITING = 64

# A client's requests have some 200 bytes each; it keeps at most so much for us.
_ACKNOWLEDGED_EVERY = 64 << 10

# gRPC messages carry at most 1 MiB of data.
_CHUNK = 1 << 20

# A stop that its process should have ended by itself, and did not say so: after that long nobody
# is waited for.
_OVERDUE = 30.0

# A stop may last less than the one before while a collective of other ranks waits; of what it may
# last longer a moment is not worth an event.
_SHORTER, _LONGER = 0.1, 1.0

# A renewal that was refused is tried again after so long.
_AGAIN = 1.0


class Over(enum.Enum):
    """Why a session is over."""

    LEFT = "the client left"
    ADAPTER = "the debug adapter ended, and the debugger with it"
    PROCESS = "the process has let go of the debugger"
    LEASE = "the stop's lease ended"
    GRACE = "nobody returned to it"
    REPLACED = "its owner attached anew"
    AGENT = "the agent stops"
    BROKEN = "the client said something else than DAP"


# What may be the process's doing, which knows why.
_BY_THE_PROCESS = frozenset({Over.PROCESS, Over.ADAPTER, Over.GRACE})

# Their clients know by themselves.
_UNTOLD = frozenset({Over.LEFT, Over.PROCESS})


@dataclass(frozen=True, slots=True)
class Attached:
    """What was attached to, and on which terms.

    Attributes:
        session_id: Names the session.
        pid: The process.
        python_version: Of that process.
        workspace: Folder that the job's workspace lies in.
        lease: Seconds that a stop may last.
        warnings: What the person should know, a line each.
        inherited: What another client has left, if the session was its.
    """

    session_id: str
    pid: int
    python_version: str
    workspace: str
    lease: float = 0.0
    warnings: tuple[str, ...] = ()
    inherited: Inherited | None = None


@dataclass(frozen=True, slots=True)
class Hands:
    """What a session asks of whoever owns it.

    Attributes:
        permitted: How long a stop that has lasted so long may go on from now, in seconds.
        renew: Tells the process how long its stop may last from now; an error of rdev's if it
            cannot be told.
        kill: Asks for the job's end.
    """

    permitted: Callable[[float], float]
    renew: Callable[[float], Awaitable[None]]
    kill: Callable[[], Awaitable[None]]


class DebugSession:
    """An attached rank; `run` serves it until it is over, and its owner detaches then.

    Attributes:
        attached: What is attached to.
        received: Bytes of the client's stream that have come.
        over: Why it is over; None while it is not.
    """

    def __init__(
        self,
        attached: Attached,
        adapter: AdapterProcess,
        hands: Hands,
        *,
        allow_kill: bool = False,
        grace: float = GRACE_SECONDS,
    ) -> None:
        self.attached = attached
        self.received = 0
        self.over: Over | None = None
        self._adapter = adapter
        self._hands = hands
        self._proxy = Proxy(attached.pid, allow_kill=allow_kill)
        self._watch = LeaseWatch(attached.lease)
        self._grace = grace
        self._sent = Unacknowledged()
        self._incoming: asyncio.Queue[bytes] = asyncio.Queue(_MOST_WAITING)
        self._framer = Framer()
        self._done = Done()
        self._bell = asyncio.Event()
        self._call: Call | None = None
        self._broken = self._ran = time.monotonic()
        self._evaluating = ""
        self._is_closed = self._has_ended = self._is_leaving = self._is_checked = False

    # --- of its owner

    @property
    def is_attended(self) -> bool:
        """Whether a client is on the line."""
        return self._call is not None

    @property
    def is_held(self) -> bool:
        """Whether the process is stopped."""
        return self._watch.is_held

    def unattended_for(self) -> float:
        """Seconds since the client's call broke; 0 while it is there."""
        return 0.0 if self._call is not None else time.monotonic() - self._broken

    async def run(self) -> None:
        """Serves until the session is over."""
        async with asyncio.TaskGroup() as group:
            works = (self._forth(), self._back(), self._mind())
            tasks = [group.create_task(work) for work in works]
            while self.over is None:
                await self._bell.wait()
            for task in tasks:
                task.cancel()

    def end(self, over: Over) -> None:
        """The session is over; the first reason is the true one."""
        if self.over is None:
            self.over = over
            self._ring()

    def closed(self, ending: str = "", evaluating: str | None = "") -> None:
        """The process is detached: whoever reads gets what is left, then the end.

        Args:
            ending: Why it let go of the debugger, as it says: a value of `ResumeCause`.
            evaluating: What was evaluated at its stop, and has not returned yet; None if the
                process does not answer, which then is for what the client has asked.
        """
        asked = next(iter(self._done.evaluating.values()), "")
        self._evaluating = " ".join(asked.split()) if evaluating is None else evaluating
        if ending == ResumeCause.LEASE.value and self.over in _BY_THE_PROCESS:
            self.over = Over.LEASE
        if self.over not in _UNTOLD:
            self._say(f"{self._line()}; {self._still() or 'the job goes on'}")
        if not self._has_ended:
            self._send(terminated())
        self._is_closed = True
        self._ring()

    @property
    def can_be_inherited(self) -> bool:
        """Whether another client can go on with it: its own is gone, and had attached."""
        return (
            self._call is None
            and self.over is None
            and self._done.is_attached
            and not (self._is_leaving or self._has_ended)
        )

    def inherit(self, session_id: str, hands: Hands, *, allow_kill: bool) -> None:
        """Another client goes on with it: both streams begin anew, the stop's first.

        Args:
            session_id: Names it from now on; whoever returns by the former name is too late.
            hands: For the new client's terms.
            allow_kill: Whether `terminate` may end the job.
        """
        inherited = Inherited(
            first_sequence=self._done.last_sequence + 1,
            files=tuple(sorted(self._done.files)),
            is_held=self._watch.is_held,
            away=self.unattended_for(),
        )
        lease = hands.permitted(self._watch.held(time.monotonic()))
        self.attached = replace(
            self.attached, session_id=session_id, lease=lease, inherited=inherited
        )
        self._hands = hands
        self._proxy.allow_kill = allow_kill
        # Half a message of the client that has gone may be in any of these.
        self._incoming, self._framer = asyncio.Queue(_MOST_WAITING), Framer()
        self._sent, self.received = Unacknowledged(), 0
        self._broken = time.monotonic()
        if self._watch.is_held and self._done.stop is not None:
            self._send(self._done.stop)
        self._watch.attended_anew()
        self._ring()

    # --- of a call

    def join(self, received: int) -> Call:
        """A client is there; one that was there before is cut off.

        Args:
            received: Bytes of the session's stream that it has.

        Raises:
            DebugSessionLost: What it lacks was forgotten.
        """
        try:
            self._sent.acknowledge(received)
            self._sent.since(received, 0)
        except ValueError as error:
            raise DebugSessionLost("continue the debug session", str(error)) from error
        self._call = Call(self, received)
        self._ring()
        return self._call

    def serves(self, call: Call) -> bool:
        """Whether that call is the client's, and no later one."""
        return self._call is call

    def leave(self, call: Call) -> None:
        """The client's call has broken; it may return."""
        if self.serves(call):
            self._call, self._broken = None, time.monotonic()
            self._ring()

    async def take(self, data: bytes) -> None:
        """Takes bytes of the client's stream; cancelled, it has taken none."""
        await self._incoming.put(data)
        self.received += len(data)
        self._ring()

    def acknowledge(self, received: int) -> None:
        """The client has that many bytes of the session's stream."""
        with contextlib.suppress(ValueError):  # its own mistake, which it finds at the next break
            self._sent.acknowledge(received)
        self._ring()

    async def next(self, call: Call) -> bytes | int | str:
        """What is to be sent next: bytes, how many have come, or a line; b"" at the end."""
        while self._call is call:
            if data := self._sent.since(call.sent, _CHUNK):
                call.sent += len(data)
                return data
            if self.received - call.acknowledged >= _ACKNOWLEDGED_EVERY:
                call.acknowledged = self.received
                return self.received
            if self._is_closed:
                return self._last_line()
            await self._bell.wait()
        return b""

    # --- between client and adapter

    async def _forth(self) -> None:
        try:
            while True:
                while self._incoming.empty():
                    await self._bell.wait()
                for message in self._framer.feed(self._incoming.get_nowait()):
                    await self._pass(message)
        except DapError as error:
            _log.info("the debug client of process %d: %s", self.attached.pid, error)
            self.end(Over.BROKEN)
        except OSError:
            self.end(Over.ADAPTER)

    async def _pass(self, message: Message) -> None:
        self._watch.active()
        self._ring()
        if (refusal := self._proxy.refusal(message)) is not None:
            self._send(refusal)
            return
        self._is_leaving |= message.get("command") in ("disconnect", "terminate")
        self._done.asked(message)
        await self._adapter.send(encode(self._proxy.from_client(message)))
        if self._proxy.kills(message):
            await self._kill()

    async def _kill(self) -> None:
        try:
            await self._hands.kill()
        except RdevError as error:
            self._say(f"the job was not stopped: {error.message}")

    async def _back(self) -> None:
        framer = Framer()
        try:
            while data := await self._adapter.receive():
                for message in framer.feed(data):
                    self._pass_back(message)
                while len(self._sent) > MOST_KEPT:
                    await self._bell.wait()
        except DapError as error:
            _log.info("the debug adapter of process %d: %s", self.attached.pid, error)
        self.end(Over.PROCESS if self._has_ended else Over.ADAPTER)

    def _pass_back(self, message: Message) -> None:
        self._done.answered(message)
        match motion(message):
            case Motion.STOPPED:
                self._done.stop = message
                self._watch.stopped(time.monotonic())
                self._ring()
            case Motion.CONTINUED:
                self._watch.continued()
                self._ran = time.monotonic()
                self._ring()
            case Motion.ENDED if not self._is_leaving:
                self.end(Over.PROCESS)
                return  # `closed` says the same, and before it why
            case Motion.ENDED:
                self._has_ended = True
        if (wanted := self._proxy.from_adapter(message)) is not None:
            self._send(wanted)

    # --- the lease, and a client that does not return

    async def _mind(self) -> None:
        while self.over is None:
            now = time.monotonic()
            action = self._watch.due(now)
            if action is Action.RENEW or self._is_lease_other(now):
                await self._renew(now)
            elif action is Action.WARN:
                self._warn(now)
            elif (over := self._overdue(now)) is not None:
                self.end(over)
            else:
                await self._pause(now)

    def _is_lease_other(self, now: float) -> bool:
        """Whether a stop that has just begun has another lease than it may have."""
        is_new = self._watch.is_held and not self._is_checked
        self._is_checked = self._watch.is_held
        if not is_new:
            return False
        more = self._hands.permitted(self._watch.held(now)) - self._watch.seconds
        return more < -_SHORTER or more > _LONGER

    async def _renew(self, now: float) -> None:
        seconds = self._hands.permitted(self._watch.held(now))
        try:
            await self._hands.renew(seconds)
        except RdevError as error:
            _log.info("the lease of process %d was not renewed: %s", self.attached.pid, error)
            await asyncio.sleep(_AGAIN)
            return
        self._watch.renewed(now, seconds)

    def _warn(self, now: float) -> None:
        # How long, and no time of the day: the host's clock may be in another zone.
        left = span(max(1.0, self._watch.left(now)))
        self._say(f"the job goes on by itself in {left}, unless you ask for something")

    def _overdue(self, now: float) -> Over | None:
        if self._watch.is_held:
            is_stuck = self._watch.left(now) == 0.0 and self._watch.held(now) > (
                self._watch.seconds + _OVERDUE
            )
            return Over.LEASE if is_stuck and self._call is None else None
        is_gone = self._call is None and now >= self._grace_ends()
        return Over.GRACE if is_gone else None

    def _grace_ends(self) -> float:
        # From the end of a stop, too: a lease that ends ends the session by itself.
        return max(self._broken, self._ran) + self._grace

    async def _pause(self, now: float) -> None:
        waits = [self._watch.wait(now)]
        if self._call is None:
            held = self._watch.is_held
            waits.append(_OVERDUE if held else self._grace_ends() - now)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(min((w for w in waits if w is not None), default=None)):
                await self._bell.wait()

    # --- what is told

    def _send(self, message: Message) -> None:
        self._sent.append(encode(message))
        self._ring()

    def _say(self, line: str) -> None:
        self._send(important(line))

    def _last_line(self) -> str | bytes:
        if self._call is None or self._call.is_told:
            return b""
        self._call.is_told = True
        return (self._still() if self.over in _UNTOLD else self._line()) or b""

    def _still(self) -> str:
        """That an expression which a person typed holds the job; empty if none does."""
        if not self._evaluating:
            return ""
        return f"{STILL_IN}`{self._evaluating}`, and goes on once that returns"

    def _line(self) -> str:
        if self.over is Over.LEASE:
            return f"nothing was asked of the debugger for {span(self._watch.seconds)}"
        return self.over.value if self.over is not None else ""

    def _ring(self) -> None:
        bell, self._bell = self._bell, asyncio.Event()
        bell.set()


def span(seconds: float) -> str:
    """A time in words: `40 s`, `15 min`."""
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"


class Call:
    """A client on the line, from `DebugSession.join` to `leave`.

    Attributes:
        sent: Offset in the session's stream of what is to be sent next.
        acknowledged: Bytes of the client's stream of which it knows that they have come.
    """

    def __init__(self, session: DebugSession, sent: int) -> None:
        self._session = session
        self.sent = sent
        self.acknowledged = session.received
        self.is_told = False

    async def next(self) -> bytes | int | str:
        """See `DebugSession.next`."""
        return await self._session.next(self)
