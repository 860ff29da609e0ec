"""Show what a job printed: its stdout on stdout, its stderr on stderr, byte for byte.

With -f it goes on until the job has ended; Ctrl-C never touches the job.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from rdev.client.cli.options import add_host, add_job, add_json, host_of

if TYPE_CHECKING:
    from rdev.client.connection import Connection
    from rdev.client.follow import Sink


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

    from rdev.client.cli.metrics import show_metrics
    from rdev.client.connection import connect
    from rdev.client.lookup import find_job
    from rdev.client.ui.output import JsonOutput, RawOutput

    async with connect(host_of(options)) as connection:
        job = await find_job(connection, options.job)
        output = JsonOutput if options.json else RawOutput
        sink = output(rank=options.rank, stream=options.stream)
        async with asyncio.TaskGroup() as group:
            group.create_task(_show(connection, job.id, sink, options))
            if options.metrics:
                group.create_task(show_metrics(connection, job.id, follow=options.follow))
    return 0


async def _show(
    connection: Connection, job_id: str, sink: Sink, options: argparse.Namespace
) -> None:
    from rdev.client.follow import drain
    from rdev.client.logs import Logs

    tail = Logs(connection).tail(job_id, follow=options.follow, lines=options.lines)
    await drain(tail, sink)
