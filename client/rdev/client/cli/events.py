"""Show what a job reported: life cycle, metrics, stops, who asked what of it.

One event a line: in words on a terminal, elsewhere and with --json as a JSON object.
"""

from __future__ import annotations

import argparse

from rdev.client.cli.options import add_host, add_job, add_json, host_of


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the options."""
    add_host(parser)
    add_job(parser)
    parser.add_argument("-f", "--follow", action="store_true", help="go on until the job ends")
    parser.add_argument(
        "--kind", action="append", default=[], metavar="KIND", help="only this kind; repeatable"
    )
    add_json(parser)


async def execute(options: argparse.Namespace) -> int:
    """Prints."""
    import sys

    from rdev.client.connection import connect
    from rdev.client.events import Events
    from rdev.client.lookup import find_job
    from rdev.client.ui.events import in_words

    is_read = sys.stdout.isatty() and not options.json
    async with connect(host_of(options)) as connection:
        job = await find_job(connection, options.job)
        tail = Events(connection).tail(job.id, follow=options.follow, kinds=options.kind)
        async for _, event in tail:
            print(in_words(event, job) if is_read else event.to_json(), flush=True)
    return 0
