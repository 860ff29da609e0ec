"""Show what a job printed: its stdout on stdout, its stderr on stderr, byte for byte.

With -f it goes on until the job has ended; Ctrl-C never touches the job.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from rdev.client.cli.options import add_host, add_job, add_json, host_of

if TYPE_CHECKING:
    from rdev.client.connection import Connection
    from rdev.client.ui.output import JsonOutput, RawOutput


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the options."""
    add_host(parser)
    add_json(parser)
    add_job(parser)
    parser.add_argument("-f", "--follow", action="store_true", help="go on until the job ends")
    parser.add_argument(
        "-n", "--lines", type=_count, metavar="N", help="only the last N lines of each stream"
    )
    parser.add_argument("--rank", type=int, metavar="R", help="only this rank")
    parser.add_argument("--stream", choices=("stdout", "stderr"), default="", help="only this one")
    parser.add_argument("--metrics", action="store_true", help="show metrics among the lines")


def _count(word: str) -> int:
    number = int(word)
    if number < 0:
        raise ValueError(word)
    return number


async def execute(options: argparse.Namespace) -> int:
    """Prints."""
    import asyncio
    import contextlib

    from rdev.client.connection import connect
    from rdev.client.follow import drain
    from rdev.client.jobs import Jobs
    from rdev.client.logs import Logs
    from rdev.client.lookup import find_job
    from rdev.client.ui.jobs import closing_line
    from rdev.client.ui.output import JsonOutput, RawOutput, say
    from rdev.protocol.errors import JobNotFound
    from rdev.wire.job import Reason

    async with connect(host_of(options)) as connection:
        job = await find_job(connection, options.job)
        kind = JsonOutput if options.json else RawOutput
        output = kind(rank=options.rank, stream=options.stream)
        tail = Logs(connection).tail(job.id, follow=options.follow, lines=options.lines)
        async with asyncio.TaskGroup() as group:
            group.create_task(drain(tail, output))
            if options.metrics:
                group.create_task(_show_metrics(connection, job.id, output, options))
        with contextlib.suppress(JobNotFound):  # it was removed while we read
            job = await Jobs(connection).get(job.id)
    if job.reason is Reason.START_FAILED:
        say(closing_line(job))
    return 0


async def _show_metrics(
    connection: Connection,
    job_id: str,
    output: RawOutput | JsonOutput,
    options: argparse.Namespace,
) -> None:
    from rdev.client.events import Events
    from rdev.client.ui.metrics import metric_line

    tail = Events(connection).tail(job_id, follow=options.follow, kinds=("metric",))
    async for _, event in tail:
        if options.rank in (None, event.rank):
            await output.aside(event.to_json() if options.json else metric_line(event))
