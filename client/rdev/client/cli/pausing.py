"""Tells, beside a job's output, when a rank is held, by the debugger or a pause, and goes on."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Collection, Sequence

from rdev.client.cli.narrating import Tell
from rdev.client.connection import Connection
from rdev.client.events import Events
from rdev.client.hosts import phrase
from rdev.client.jobs import Jobs
from rdev.client.ui import holds, pauses
from rdev.protocol.errors import RdevError
from rdev.wire.events import DEBUG_PAUSED, LOOP_PAUSED, Event
from rdev.wire.job import DebugStop, Job, LoopPause


async def tell_pauses(
    connection: Connection, job: Job, tell: Tell, *, ranks: Collection[int] = ()
) -> None:
    """Tells what is held now, and what is held and goes on from now on, until the job ends.

    Args:
        connection: Where the job is.
        job: The job.
        tell: Says a line.
        ranks: Only of these; empty means all.
    """
    tellers = (
        pauses.Pauses(job, phrase("debug", connection.host, job.name)),
        holds.Holds(job, phrase("ctl", connection.host, job.name, "resume")),
    )
    with contextlib.suppress(RdevError):  # who follows the output meets the same and says so
        arrived: asyncio.Queue[Event | None] = asyncio.Queue()
        async with asyncio.TaskGroup() as group:
            reading = group.create_task(_read(connection, job, arrived))
            while (event := await _next(arrived, tellers)) is not None:
                lines = []
                for teller in tellers:
                    if isinstance(event, Event) and event.rank in (ranks or (event.rank,)):
                        lines += teller.take(event, time.monotonic())
                    lines += teller.due(time.monotonic())
                for line in lines:
                    await tell(line)
            reading.cancel()


async def _next(
    arrived: asyncio.Queue[Event | None], tellers: Sequence[pauses.Pauses | holds.Holds]
) -> Event | bool | None:
    """The next event; False if something is due before it, None at the end."""
    waits = [teller.wait(time.monotonic()) for teller in tellers]
    try:
        async with asyncio.timeout(min((w for w in waits if w is not None), default=None)):
            return await arrived.get()
    except TimeoutError:
        return False


async def _read(connection: Connection, job: Job, arrived: asyncio.Queue[Event | None]) -> None:
    with contextlib.suppress(RdevError):  # as above
        async for event in _from_now_on(connection, job):
            await arrived.put(event)
    await arrived.put(None)


async def _from_now_on(connection: Connection, job: Job) -> AsyncIterator[Event]:
    """The stops that are on, as if they began now, then what happens."""
    events = Events(connection)
    offset = await events.end(job.id)
    now = await Jobs(connection).get(job.id)
    for stop in now.stops:
        yield _as_event(stop, time.time())
    for pause in now.pauses:
        yield _as_pause(pause)
    known = {(stop.pid, stop.since) for stop in now.stops}
    known |= {(pause.pid, pause.since) for pause in now.pauses}
    kinds = (*pauses.KINDS, *holds.KINDS)
    async for _, event in events.tail(job.id, offset=offset, follow=True, kinds=kinds):
        if (event.pid, event.time) not in known:
            yield event


def _as_event(stop: DebugStop, now: float) -> Event:
    fields = {"file": stop.file, "line": stop.line, "unattended": stop.unattended}
    lease = stop.until - now if stop.until else None
    return Event(DEBUG_PAUSED, stop.since, stop.rank, stop.pid, fields={**fields, "lease": lease})


def _as_pause(pause: LoopPause) -> Event:
    fields = {"step": pause.step, "phase": pause.phase, "reason": pause.reason}
    return Event(LOOP_PAUSED, pause.since, pause.rank, pause.pid, fields=fields)
