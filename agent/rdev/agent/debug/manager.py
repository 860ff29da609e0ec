"""Debug sessions of the agent: at most one per rank, and whatever ends it, a full detach.

opening --hook attached, adapter ready--> open --over--> closing --detached, adapter gone--> gone
   '------------------ failure -----------------------------^
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from types import TracebackType
from typing import Any, Protocol, Self

from rdev.agent.debug.compare import Value, compare
from rdev.agent.debug.holds import Told, set_stops
from rdev.agent.debug.process import AdapterProcess
from rdev.agent.debug.ranks import Arming, Ranks
from rdev.agent.debug.session import (
    GRACE_SECONDS,
    Attached,
    Call,
    DebugSession,
    Hands,
    Over,
    span,
)
from rdev.agent.debug.stacks import ProcessStack, stacks
from rdev.agent.debug.target import Jobs as TargetJobs
from rdev.agent.debug.target import Target, forked_by, running_job, target_of
from rdev.agent.debug.vendor import debugpy_folder
from rdev.hook.lease import LEASE_SECONDS
from rdev.protocol.errors import (
    DebuggerBusy,
    DebuggerUnavailable,
    DebugSessionLost,
    JobNotRunning,
    RdevError,
    TimedOut,
)
from rdev.wire.job import DebugStart, Job

_log = logging.getLogger(__name__)

# The hook's own bound for an attach is 30 s; whoever waits for it waits a little longer.
COMMAND_SECONDS = 35.0

# An attach takes half a second; of one that takes longer it is said what it waits for.
PATIENCE_SECONDS = 3.0

# A detach waits up to 3 s for pydevd's threads and 1 s for the main thread.
DETACH_SECONDS = 10.0

# A hook answers a renewal at once, on its channel's thread.
RENEW_SECONDS = 5.0

# Sessions that are over, kept for clients that return too late: each has at most `MOST_KEPT` bytes.
_REMEMBERED = 8

Notice = Callable[[str], None]


class _Files(Protocol):
    @property
    def directory(self) -> str: ...


class _Record(Protocol):
    @property
    def files(self) -> _Files: ...


class Jobs(TargetJobs, Protocol):
    """What a debug session needs of the jobs besides: their files, and their end."""

    def record(self, job_id: str) -> _Record:
        """The job's files; adapters' sockets lie in `debug` below its own directory."""
        ...

    async def stop(self, job_id: str) -> Job:
        """Asks for the end of all of a job's processes."""
        ...


@dataclass(frozen=True, slots=True)
class Order:
    """What a client asks for.

    Attributes:
        job_id: Full id of the job.
        rank: The rank.
        lease: Seconds that a stop may last after the client's last word; None is the usual time.
        allow_kill: `terminate` ends the job.
        unsafe: Attach though a stop may end the job.
        owner: Who attaches, as `user@laptop`.
        client_pid: The client's process on its own machine; 0 if it does not say.
        takes_over: The client can go on with a session whose own client is gone.
        job_name: For errors; the manager finds it.
    """

    job_id: str
    rank: int
    lease: float | None = None
    allow_kill: bool = False
    unsafe: bool = False
    owner: str = ""
    client_pid: int = 0
    takes_over: bool = False
    job_name: str = ""

    @property
    def action(self) -> str:
        """What is attempted, for an error."""
        return f"debug rank {self.rank} of the job {self.job_name!r}"


@dataclass(slots=True)
class _Place:
    """Who has a rank."""

    order: Order
    since: float = field(default_factory=time.monotonic)
    session: DebugSession | None = None
    pid: int = 0
    is_closing: bool = False
    gone: asyncio.Event = field(default_factory=asyncio.Event)


@dataclass(slots=True)
class _Open:
    """What has to be undone, in the order in which it came about."""

    order: Order
    has_joined: bool = False
    adapter: AdapterProcess | None = None
    pid: int | None = None


class DebugManager:
    """Opens and closes debug sessions.

    Args:
        jobs: Where the jobs are.
        grace: How long a session waits for a client whose call broke, in seconds.
    """

    def __init__(self, jobs: Jobs, *, grace: float = GRACE_SECONDS) -> None:
        self.grace = grace
        self._jobs = jobs
        self._places: dict[tuple[str, int], _Place] = {}
        self._sessions: OrderedDict[str, tuple[Order, DebugSession]] = OrderedDict()
        self._group = asyncio.TaskGroup()
        self._ranks = Ranks(jobs, self._group.create_task)

    async def __aenter__(self) -> Self:
        await self._group.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for _, session in self._sessions.values():
            session.end(Over.AGENT)
        # What is left in the group are detaches that are under way; they are waited for.
        await self._group.__aexit__(None, None, None)

    def start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Starts work of a call's, which must handle its errors; it is the caller's to end."""
        return self._group.create_task(work)

    async def open(self, order: Order, notice: Notice = lambda _line: None) -> DebugSession:
        """Attaches to a rank; the session goes on until it is over.

        One of the same owner's whose client is gone is gone on with, where both clients can.

        Args:
            order: What is asked for.
            notice: Told what takes its time, a line each.

        Raises:
            DebuggerBusy: Somebody is attached to that rank.
            DebuggerUnavailable: No debugger can be put into the process; the cause says why.
            FeatureMissing: The agent has no debugpy.
            InvalidRequest: There is no such rank.
            JobNotRunning: The job has ended.
        """
        order = replace(order, job_name=(await self._jobs.get(order.job_id)).name)
        place = await self._take_place(order)
        if place.session is not None:
            return self._inherit(place, place.session, order)
        opened = _Open(order)
        try:
            attached = await self._attach(opened, notice)
        except BaseException:
            # The caller may be cancelled at any moment; the detach is not.
            place.is_closing = True
            await asyncio.shield(self._group.create_task(self._undo(opened)))
            raise
        hands = self._hands(order, attached.pid)
        assert opened.adapter is not None
        session = DebugSession(
            attached, opened.adapter, hands, allow_kill=order.allow_kill, grace=self.grace
        )
        place.session, place.pid = session, attached.pid
        self._remember(order, session)
        self._group.create_task(self._live(session, opened))
        return session

    def find(self, session_id: str, job_id: str, rank: int) -> DebugSession:
        """A session that is to be continued; one that is over has at most its last bytes to say.

        Raises:
            DebugSessionLost: It is not known, or is one of another rank.
        """
        order, session = self._sessions.get(session_id, (None, None))
        if order is None or session is None or (order.job_id, order.rank) != (job_id, rank):
            raise DebugSessionLost(
                "continue the debug session", "the agent was restarted, and the debugger left"
            )
        if session.attached.session_id != session_id:
            raise DebugSessionLost(
                "continue the debug session", f"{_name(order)} has taken it over since"
            )
        return session

    @asynccontextmanager
    async def session(
        self, job_id: str, rank: int, *, lease: float | None = None, owner: str = ""
    ) -> AsyncIterator[Line]:
        """Attaches to a rank for as long as the block runs; leaving it detaches in any case."""
        session = await self.open(Order(job_id, rank, lease=lease, owner=owner))
        try:
            yield Line(session, session.join(0))
        finally:
            session.end(Over.LEFT)
            place = self._places.get((job_id, rank))
            if place is not None and place.session is session:
                await place.gone.wait()

    async def set_stops(
        self,
        job_id: str,
        stops: DebugStart,
        *,
        rank: int | None,
        token: str = "",
        kept: float = 0.0,
    ) -> Told:
        """Tells a running job when to stop and wait for a debugger; see `holds`.

        Raises:
            DebuggerBusy: Nobody could attach then, for somebody is.
        """
        action = f"let the job {(await self._jobs.get(job_id)).name!r} wait for a debugger"
        job = await running_job(self._jobs, job_id, action)
        if stops != DebugStart():
            self._require_free(job, rank, action, all_of_them=bool(stops.from_step))
        return await set_stops(self._jobs, job, stops, rank=rank, token=token, kept=kept)

    def _require_free(self, job: Job, rank: int | None, action: str, *, all_of_them: bool) -> None:
        ranks = range(job.ranks) if rank is None else (rank,)
        places = [self._places.get((job.id, number)) for number in ranks]
        taken = [place for place in places if place is not None and not place.is_closing]
        if taken and (all_of_them or len(taken) == len(places)):
            raise DebuggerBusy(action, _who(taken[0]))

    async def stacks(
        self, job_id: str, *, rank: int | None, is_native: bool
    ) -> Sequence[ProcessStack]:
        """Where the threads of a job's processes are; see `stacks`."""
        return await stacks(self._jobs, job_id, rank=rank, is_native=is_native)

    async def compare(self, job_id: str, expression: str, function: str) -> Sequence[Value]:
        """An expression's value in every rank; see `compare`."""
        return await compare(self._jobs, job_id, expression, function=function)

    # --- opening

    async def _take_place(self, order: Order) -> _Place:
        key = (order.job_id, order.rank)
        while (place := self._places.get(key)) is not None:
            session = place.session
            is_own = bool(order.owner) and order.owner == place.order.owner
            if session is not None and is_own and not session.is_attended:
                # Whoever lost a session and cannot return to it, as after a crash.
                if session.can_be_inherited and order.takes_over and place.order.takes_over:
                    return place
                session.end(Over.REPLACED)
            is_leaving = place.is_closing or (session is not None and session.over is not None)
            if not is_leaving:
                raise DebuggerBusy(order.action, _who(place), hint=_way_out(place))
            await place.gone.wait()
        place = self._places[key] = _Place(order)
        return place

    def _inherit(self, place: _Place, session: DebugSession, order: Order) -> DebugSession:
        name = secrets.token_hex(16)
        session.inherit(name, self._hands(order, place.pid), allow_kill=order.allow_kill)
        place.order, place.since = order, time.monotonic()
        for former, (_, known) in self._sessions.items():
            if known is session:
                self._sessions[former] = (order, session)  # to tell its client who has it
        self._remember(order, session)
        return session

    async def _attach(self, opened: _Open, notice: Notice) -> Attached:
        order = opened.order
        job = await running_job(self._jobs, order.job_id, order.action)
        folder = debugpy_folder()
        target = await target_of(self._jobs, job, order.rank, order.action, notice)
        await self._hold_on(job, order, target.pid)
        arming = await self._arm(order, notice)
        opened.has_joined = True
        directory = self._jobs.record(order.job_id).files.directory
        opened.adapter = await AdapterProcess.start(directory, order.rank, folder)
        opened.pid = target.pid
        lease = self._permitted(order)
        waiting = self.start(_tell_patience(notice))
        try:
            python = await self._command_attach(order, opened.adapter, target.pid, lease)
        finally:
            waiting.cancel()
        return Attached(
            session_id=secrets.token_hex(16),
            pid=target.pid,
            python_version=python,
            workspace=job.workspace_folder,
            lease=lease,
            warnings=(
                *_warnings(target, await forked_by(self._jobs, job.id, order.rank, target.pid)),
                *arming.warnings,
            ),
        )

    async def _hold_on(self, job: Job, order: Order, pid: int) -> None:
        """A stop that waits for a debugger is not to end while one is coming."""
        if any(stop.unattended and stop.pid == pid for stop in job.stops):
            send = partial(self._jobs.command, job.id, "hook", order.rank, pid=pid)
            with contextlib.suppress(RdevError, TimeoutError):  # the attach says what is wrong
                await send("lease", {"seconds": COMMAND_SECONDS}, timeout=RENEW_SECONDS)

    async def _arm(self, order: Order, notice: Notice) -> Arming:
        waiting = self.start(_tell_patience(notice))

        def tell(line: str) -> None:  # it knows better what it waits for
            waiting.cancel()
            notice(line)

        try:
            return await self._ranks.join(order.job_id, unsafe=order.unsafe, notice=tell)
        finally:
            waiting.cancel()

    async def _command_attach(
        self, order: Order, adapter: AdapterProcess, pid: int, lease: float
    ) -> str:
        """Makes the process connect to the adapter; returns the version of its Python."""
        args = {
            "socket": adapter.socket_path,
            "debugpy": adapter.debugpy,
            "server_token": adapter.server_token,
            "client_token": adapter.client_token,
            "lease": lease,
        }
        send = partial(self._jobs.command, order.job_id, "hook", order.rank, pid=pid)
        try:
            result = await send("attach", args, timeout=COMMAND_SECONDS)
            async with asyncio.timeout(DETACH_SECONDS):
                await adapter.debuggee()
        except TimedOut as error:
            raise DebuggerUnavailable(order.action, _no_answer(pid)) from error
        except TimeoutError as error:
            cause = "the process did not reach the adapter"
            raise DebuggerUnavailable(order.action, cause) from error
        except JobNotRunning:
            raise
        except RdevError as error:
            raise DebuggerUnavailable(order.action, error.cause or error.message) from error
        return str(result.get("python", ""))

    def _permitted(self, order: Order, held: float = 0.0) -> float:
        asked = LEASE_SECONDS if order.lease is None else order.lease
        return self._ranks.lease(order.job_id, asked, held=held)

    def _hands(self, order: Order, pid: int) -> Hands:
        send = partial(self._jobs.command, order.job_id, "hook", order.rank, pid=pid)

        async def renew(seconds: float) -> None:
            await send("lease", {"seconds": seconds}, timeout=RENEW_SECONDS)

        async def kill() -> None:
            await self._jobs.stop(order.job_id)

        return Hands(partial(self._permitted, order), renew, kill)

    # --- closing

    async def _live(self, session: DebugSession, opened: _Open) -> None:
        try:
            await session.run()
        except Exception:  # noqa: BLE001 - one session's end must not end the others
            _log.exception("the debug session of process %s broke", opened.pid)
            session.end(Over.ADAPTER)
        finally:
            session.closed(*await self._close(opened, is_lost=session.over is Over.ADAPTER))
        reason = session.over.value if session.over is not None else ""
        _log.info("the debug session of process %s is over: %s", opened.pid, reason)

    async def _undo(self, opened: _Open) -> None:
        await self._close(opened)

    async def _close(self, opened: _Open, *, is_lost: bool = False) -> tuple[str, str | None]:
        """Undoes an attach.

        Args:
            opened: What has become of it.
            is_lost: The adapter has ended: the process may see that later than we do.

        Returns:
            Why the process let go of the debugger, in the hook's word, and what it still evaluates;
            None if it does not answer.
        """
        told: tuple[str, str | None] = ("", "")
        job_id, rank = opened.order.job_id, opened.order.rank
        try:
            if opened.adapter is not None:
                told = await self._ask_to_detach(opened, is_lost=is_lost)
                await opened.adapter.close()
            if opened.has_joined:
                await self._ranks.leave(job_id)
        except Exception:  # noqa: BLE001 - one session's end must not end the others
            _log.exception("the debug session of rank %d of job %s did not end well", rank, job_id)
        finally:
            self._places.pop((job_id, rank)).gone.set()
        return told

    async def _ask_to_detach(self, opened: _Open, *, is_lost: bool) -> tuple[str, str | None]:
        order = opened.order
        ask = partial(self._jobs.command, order.job_id, "hook", order.rank, "detach")
        try:
            answer = await ask({"lost": is_lost}, pid=opened.pid, timeout=DETACH_SECONDS)
        except (TimeoutError, TimedOut):
            return "", None
        except RdevError:
            # A job that has ended, or lost its supervisor, has nobody to answer; ending the
            # adapter makes a hook that lives detach by itself.
            return "", ""
        return str(answer.get("ending", "")), str(answer.get("evaluating", ""))

    def _remember(self, order: Order, session: DebugSession) -> None:
        self._sessions[session.attached.session_id] = (order, session)
        over = [name for name, (_, known) in self._sessions.items() if known.over is not None]
        for name in over[:-_REMEMBERED]:
            del self._sessions[name]


class Line:
    """A client's end of a session in this process: reads and writes its bytes."""

    def __init__(self, session: DebugSession, call: Call) -> None:
        self.attached = session.attached
        self.session = session
        self._call = call

    async def write(self, data: bytes) -> None:
        """Takes bytes of the client's stream.

        Raises:
            DebuggerUnavailable: The session is over.
        """
        if self.session.over is not None:
            raise DebuggerUnavailable("pass on the client's request", self.session.over.value)
        await self.session.take(data)

    async def read(self) -> bytes:
        """The next bytes for the client; b"" when the session has ended."""
        while not isinstance(item := await self._call.next(), bytes):
            pass
        self.session.acknowledge(self._call.sent)
        return item


async def _tell_patience(notice: Notice) -> None:
    waited = PATIENCE_SECONDS
    await asyncio.sleep(waited)
    notice("the process does not answer yet: it is busy in C code, or its machine is")
    while True:
        await asyncio.sleep(waited)
        waited *= 2
        notice(f"still waiting for the process, since {waited:.0f} s")


def _no_answer(pid: int) -> str:
    return (
        f"process {pid} did not answer within {COMMAND_SECONDS:.0f} s: it is in a long call of C"
        " code that keeps Python's lock, or it was stopped by a signal"
    )


def _who(place: _Place) -> str:
    name = _name(place.order)
    for_ = span(time.monotonic() - place.since)
    session = place.session
    if session is None:
        return f"{name} is attaching to it, since {for_}"
    if session.is_attended:
        return f"{name} is attached to it, since {for_}"
    away = span(session.unattended_for())
    until = "its stop's lease ends" if session.is_held else "its grace is over"
    return f"{name} is attached to it and lost the connection {away} ago; it is kept until {until}"


def _name(order: Order) -> str:
    name = order.owner or "somebody"
    return f"{name} (process {order.client_pid} there)" if order.client_pid else name


def _way_out(place: _Place) -> str | None:
    if place.session is None or not place.session.is_attended:
        return None
    leave = "leave it there with Ctrl-D"
    pid = place.order.client_pid
    ending = f"`kill -HUP {pid}`" if place.order.takes_over else f"end process {pid}"
    return f"{leave}, or {ending} there: the same stop is yours then" if pid else leave


def _warnings(target: Target, forked: Sequence[int]) -> Iterator[str]:
    if target.others:
        others = ", ".join(map(str, target.others))
        yield f"other Python processes of this rank are not debugged: {others}"
    if forked:
        them = "a process" if len(forked) == 1 else f"{len(forked)} processes"
        yield (
            f"no breakpoint hits in {them} that it has forked, as a DataLoader does; `breakpoint()`"
            " in their code does"
        )
