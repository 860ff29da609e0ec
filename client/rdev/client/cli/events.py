"""Show what a job reported: life cycle, metrics, debugger stops, as one JSON object a line."""

from __future__ import annotations

import argparse

from rdev.client.cli.options import add_host, add_job, host_of


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the options."""
    add_host(parser)
    add_job(parser)
    parser.add_argument("-f", "--follow", action="store_true", help="go on until the job ends")
    parser.add_argument(
        "--kind", action="append", default=[], metavar="KIND", help="only this kind; repeatable"
    )


async def execute(options: argparse.Namespace) -> int:
    """Prints."""
    from rdev.client.connection import connect
    from rdev.client.events import Events
    from rdev.client.lookup import find_job

    async with connect(host_of(options)) as connection:
        job = await find_job(connection, options.job)
        tail = Events(connection).tail(job.id, follow=options.follow, kinds=options.kind)
        async for _, event in tail:
            print(event.to_json(), flush=True)
    return 0
