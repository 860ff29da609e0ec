"""From a job to a debug session of it: the adapter's pipe, and the files of both sides."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from functools import partial

from rdev.client.connection import Connection
from rdev.client.debug.editor import Joint
from rdev.client.debug.expecting import Expected
from rdev.client.debug.gating import Gate
from rdev.client.debug.places import Sources
from rdev.client.debug.remote import attached
from rdev.client.debug.seat import Seat
from rdev.client.debug.session import Inherited, debugging
from rdev.client.debug.terms import Terms
from rdev.client.debug.texts import Texts
from rdev.client.debug.translation import Translator
from rdev.client.sync.root import find_workspace
from rdev.client.ui.jobs import duration
from rdev.client.workspaces import read_snapshot_file
from rdev.protocol.errors import RdevError
from rdev.wire.job import DebugStart, Job

# The host that is this machine.
_HERE = "local"


@asynccontextmanager
async def joined(
    connection: Connection,
    job: Job,
    *,
    rank: int,
    terms: Terms,
    folder: str,
    tell: Callable[[str], None],
) -> AsyncIterator[Joint]:
    """Attaches to a rank for an editor; leaving the block detaches.

    Args:
        connection: Where the job is.
        job: The job.
        rank: Which of its ranks.
        terms: What the session may do.
        folder: A folder of the workspace here, if it is here.
        tell: Shows a line to the person.

    Raises:
        DebuggerUnavailable, DebuggerBusy, JobNotRunning: See `attached`.
    """
    async with AsyncExitStack() as stack:
        arrival = None
        if terms.from_step:
            expected = Expected(DebugStart(from_step=terms.from_step), rank)
            arrival = await Gate(connection, job, expected, tell).arrive()
            stack.push_async_callback(arrival.leave)
        attaching = attached(connection, job.id, rank, terms=terms, tell=tell)
        pipe = await stack.enter_async_context(attaching)
        if arrival is not None:
            await arrival.let_others_go()
        texts = texts_of(connection, job, folder, workspace=pipe.opened.workspace)
        is_here = connection.host == _HERE
        yield Joint(pipe, Translator(texts, job.name, libraries_are_here=is_here))


@asynccontextmanager
async def seated(
    connection: Connection,
    job: Job,
    ranks: Sequence[int],
    *,
    terms: Terms,
    tell: Callable[[str], None],
    is_lost: Callable[[], bool],
) -> AsyncIterator[list[Seat]]:
    """Attaches to ranks for a terminal; leaving the block detaches.

    Args:
        connection: Where the job is.
        job: The job.
        ranks: Which of its ranks.
        terms: What the sessions may do.
        tell: Shows a line to the person.
        is_lost: See `attached`.

    Raises:
        DebuggerUnavailable, DebuggerBusy, JobNotRunning: See `attached`.
    """
    async with AsyncExitStack() as stack:
        seats = []
        for rank in ranks:
            said = tell if len(ranks) == 1 else partial(_tell_of, tell, rank)
            attaching = attached(
                connection,
                job.id,
                rank,
                terms=replace(terms, takes_over=True),
                tell=said,
                is_lost=is_lost,
            )
            pipe = await stack.enter_async_context(attaching)
            opened = pipe.opened
            said(f"attached to {job.name} (pid {opened.pid}, Python {opened.python_version})")
            if opened.inherited is not None:
                said(_gone_on_with(opened.inherited))
            session = debugging(pipe, said, inherited=opened.inherited)
            client = await stack.enter_async_context(session)
            seats.append(Seat(rank, client))
        yield seats


def _gone_on_with(inherited: Inherited) -> str:
    what = "its stop goes on here" if inherited.is_held else "it goes on here"
    ago = duration(inherited.away)
    return f"your debugger lost its terminal {ago} ago: {what}, without its breakpoints"


def _tell_of(tell: Callable[[str], None], rank: int, line: str) -> None:
    tell(f"[rank {rank}] {line}")


def texts_of(connection: Connection, job: Job, folder: str, *, workspace: str = "") -> Texts:
    """The files of a job and of the folder here.

    Args:
        connection: Where the job is.
        job: The job.
        folder: A folder of the workspace here, if it is here.
        workspace: The workspace's folder on the host, as the agent named it.
    """
    sources = Sources(local_root(job, folder), workspace or job.workspace_folder)
    return Texts(sources, lambda path: read_snapshot_file(connection, job.spec.snapshot, path))


def local_root(job: Job, folder: str) -> str:
    """The job's workspace here; empty if the folder lies in another, or in none."""
    try:
        workspace = find_workspace(folder)
    except (RdevError, OSError):
        return ""
    return workspace.root if workspace.id == job.spec.workspace_id else ""


def here() -> str:
    """The current folder; empty if it was removed."""
    try:
        return os.getcwd()
    except FileNotFoundError:
        return ""
