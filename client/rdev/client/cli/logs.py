"""Show what a job printed: its stdout on stdout, its stderr on stderr.

Into a pipe or a file every byte goes as it is; a terminal gets progress bars folded, and no titles,
links or clipboard. With -f it goes on until the job has ended; Ctrl-C never touches the job.

T is how long ago (90s, 10m, 2h30m, 3d), a time today (14:03, 14:03:05), a day (2026-11-22), or a
moment in RFC 3339 (2026-11-22T14:03:05+01:00; without a zone it is this machine's).

--json prints one object a run of bytes: rank, stream, offset, time (seconds since the epoch, of its
last byte), and text, or base64 where the bytes are not UTF-8; a gap has lost and reason instead.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from rdev.client.cli.options import (
    add_host,
    add_job,
    add_json,
    add_prefix,
    attempt,
    host_of,
    line_count,
    rank,
    since,
)

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from rdev.client.connection import Connection
    from rdev.client.logs import Chunk, Gap
    from rdev.client.ui.output import JsonOutput, Output
    from rdev.wire.job import Job


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the options."""
    add_host(parser)
    add_json(parser)
    add_job(parser)
    parser.add_argument("-f", "--follow", action="store_true", help="go on until the job ends")
    parser.add_argument(
        "-n", "--lines", type=line_count, metavar="N", help="only the last N lines of each stream"
    )
    parser.add_argument("--since", metavar="T", help="only what came then or later")
    parser.add_argument("--rank", type=rank, metavar="R", help="only this rank")
    streams = ("stdout", "stderr", "launcher")
    parser.add_argument("--stream", choices=streams, default="", help="only this one")
    parser.add_argument(
        "--attempt", type=attempt, default=0, metavar="N", help="only this attempt, from 1"
    )
    parser.add_argument("--timestamps", action="store_true", help="begin each line with its time")
    add_prefix(parser)
    parser.add_argument("--metrics", action="store_true", help="show metrics among the lines")


async def execute(options: argparse.Namespace) -> int:
    """Prints."""
    from rdev.protocol.polling import poll_directly

    poll_directly()
    import asyncio
    import contextlib

    from rdev.client.cli.narrating import explain_block, explain_end
    from rdev.client.cli.pausing import tell_pauses
    from rdev.client.connection import connect, persisting
    from rdev.client.jobs import Jobs
    from rdev.client.lookup import find_job
    from rdev.client.ui.jobs import closing_line
    from rdev.client.ui.output import Output, say
    from rdev.protocol.buffers import keep_buffers
    from rdev.protocol.errors import JobNotFound
    from rdev.wire.job import JobState, Reason

    keep_buffers()
    begin = since(options.since)
    async with connect(host_of(options)) as connection:
        job = await find_job(connection, options.job)
        tail = _tail(connection, job, options, since=begin)
        async with _output(job, options) as output, asyncio.TaskGroup() as group:
            showing = group.create_task(_show(tail, output, job, host=connection.host))
            if options.follow:
                explaining = group.create_task(explain_block(connection, job, output.say))
                showing.add_done_callback(lambda _: explaining.cancel())
                ranks = () if options.rank is None else (options.rank,)
                pauses = group.create_task(tell_pauses(connection, job, output.say, ranks=ranks))
                showing.add_done_callback(lambda _: pauses.cancel())
            if options.follow and isinstance(output, Output):
                lagging = group.create_task(_tell_lag(connection, job, output, options))
                showing.add_done_callback(lambda _: lagging.cancel())
            if options.metrics:
                group.create_task(_show_metrics(connection, job.id, output, options))
        with contextlib.suppress(JobNotFound):  # it was removed while we read
            # All is shown: a break at this moment is no reason to fail.
            job = await persisting(connection, lambda: Jobs(connection).get(job.id))
            if job.state is JobState.FAILED and not options.json:
                await explain_end(connection, job)
    if job.reason is Reason.START_FAILED:
        say(closing_line(job))
    return 0


def _tail(
    connection: Connection, job: Job, options: argparse.Namespace, *, since: float | None
) -> AsyncGenerator[Chunk | Gap, None]:
    from rdev.client.logs import Logs

    return Logs(connection).tail(
        job.id,
        follow=options.follow,
        lines=options.lines,
        since=since,
        ranks=() if options.rank is None else (options.rank,),
        streams=(options.stream,) if options.stream else (),
        attempt=options.attempt,
        timed=options.timestamps or options.json,
    )


async def _show(
    tail: AsyncGenerator[Chunk | Gap, None], output: Output | JsonOutput, job: Job, *, host: str
) -> None:
    """Shows all of it, or says how to go on from where the host was lost."""
    import time
    from datetime import UTC, datetime

    from rdev.client.follow import drain
    from rdev.client.hosts import phrase
    from rdev.protocol.errors import ConnectionLost

    begun = time.time()
    try:
        await drain(tail, output)
    except ConnectionLost as error:
        # With its day and zone: the person may type it tomorrow, and elsewhere.
        since = datetime.fromtimestamp(output.latest or begun, UTC).isoformat(timespec="seconds")
        again = phrase("logs -f", host, job.id, "--since", since.replace("+00:00", "Z"))
        hint = f"what {job.name} does is not known; `{again}` goes on"
        raise ConnectionLost("read the log to its end", error.cause, hint=hint) from error


def _output(job: Job, options: argparse.Namespace) -> Output | JsonOutput:
    from rdev.client.ui.output import JsonOutput, output_for

    if options.json:
        return JsonOutput()
    ranks = job.ranks if options.rank is None else 1
    return output_for(ranks=ranks, prefix=options.prefix, timestamps=options.timestamps)


async def _tell_lag(
    connection: Connection, job: Job, output: Output, options: argparse.Namespace
) -> None:
    from rdev.client.cli.lagging import tell_lag
    from rdev.client.hosts import phrase

    latest = phrase("logs -f -n 100", connection.host, job.name)
    await tell_lag(
        connection,
        job,
        output,
        remedy=f"Ctrl-C, then `{latest}` shows the latest",
        ranks=() if options.rank is None else (options.rank,),
        streams=(options.stream,) if options.stream else (),
        is_from_start=options.lines is None and options.since is None and not options.attempt,
    )


async def _show_metrics(
    connection: Connection,
    job_id: str,
    output: Output | JsonOutput,
    options: argparse.Namespace,
) -> None:
    from rdev.client.events import Events
    from rdev.client.ui.metrics import metric_line

    tail = Events(connection).tail(job_id, follow=options.follow, kinds=("metric",))
    async for _, event in tail:
        if options.rank in (None, event.rank):
            await output.aside(event.to_json() if options.json else metric_line(event))
