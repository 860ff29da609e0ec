"""Speak the Debug Adapter Protocol over stdin and stdout, for any editor that does.

An editor runs this as its debug adapter and sends an `attach`; the job is the one named here, else
the `job` of the attach's arguments, else the workspace's latest. It may also carry `rank`, `lease`,
`fromStep` (a step before which nothing is attached), `allowKill`, `unsafe`, `machine` (a host) and
`cwd` (the workspace's folder, where the editor starts adapters elsewhere). The job runs on when the
editor leaves. Only the protocol is written to stdout; what goes wrong is the answer to `attach`.
docs/debugging.md has what to put into which editor.
"""

from __future__ import annotations

import argparse

from rdev.client.cli.options import add_host, add_job, add_terms, add_yes, host_of, terms_of
from rdev.client.cli.options import rank as a_rank

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from rdev.client.debug.editor import Joint, Opening
    from rdev.protocol.dap import Message
    from rdev.wire.job import Job


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the options."""
    add_host(parser)
    add_job(parser)
    parser.add_argument(
        "--rank", type=a_rank, metavar="R", help="the rank to attach to; one that waits, or 0"
    )
    add_terms(parser)
    add_yes(parser)


async def execute(options: argparse.Namespace) -> int:
    """Serves."""
    from rdev.client.debug.editor import EditorSession
    from rdev.client.debug.stdio import taken_over
    from rdev.client.debug.terminal import until_interrupted

    with taken_over() as stream:
        await until_interrupted(EditorSession(stream, _opening(options)).run())
    return 0


def _opening(options: argparse.Namespace) -> Opening:
    from contextlib import asynccontextmanager

    @asynccontextmanager
    async def opening(arguments: Message, tell: Callable[[str], None]) -> AsyncIterator[Joint]:
        from rdev.client.connection import connect
        from rdev.client.debug.opening import here, joined
        from rdev.client.lookup import find_job
        from rdev.client.narration import narrator
        from rdev.client.ownership import require_ours

        narrator.set(tell)
        _go_to(str(arguments.get("cwd") or ""))
        terms = terms_of(options).over(arguments)
        async with connect(_host(options, arguments)) as connection:
            job = await find_job(connection, options.job or str(arguments.get("job") or ""))
            hint = "`rdev dap --yes` says that you mean it"
            await require_ours(job, "debug", confirm=_agree if options.yes else None, hint=hint)
            rank = _rank(options, arguments, job, tell)
            async with joined(
                connection, job, rank=rank, terms=terms, folder=here(), tell=tell
            ) as joint:
                yield joint

    return opening


def _agree(_question: str) -> bool:
    return True


def _go_to(folder: str) -> None:
    """Goes where the editor works: it may have started us anywhere, and this process is its own."""
    import os

    from rdev.protocol.errors import InvalidRequest

    if not folder:
        return
    try:
        os.chdir(folder)
    except OSError as error:
        raise InvalidRequest("attach to a job", f"cwd: {folder}: {error.strerror}") from error


def _host(options: argparse.Namespace, arguments: Message) -> str:
    return options.host or str(arguments.get("machine") or "") or host_of(options)


def _rank(
    options: argparse.Namespace, arguments: Message, job: Job, tell: Callable[[str], None]
) -> int:
    from rdev.client.debug.expecting import going_where_it_waits, rank_that_waits
    from rdev.protocol.errors import InvalidRequest

    rank = options.rank if options.rank is not None else arguments.get("rank")
    if rank is None:
        if line := going_where_it_waits(job):
            tell(line)
        return rank_that_waits(job) or 0
    if not isinstance(rank, int) or rank < 0:
        raise InvalidRequest("attach to a job", f"rank: {rank!r} is none")
    return rank
