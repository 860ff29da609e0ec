"""Wait until a job has ended. Exit code: the job's own, or 124 when --timeout runs out first."""

from __future__ import annotations

import argparse

from rdev.client.cli.options import add_host, add_job, add_json, host_of, seconds


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the options."""
    add_host(parser)
    add_json(parser)
    add_job(parser)
    parser.add_argument(
        "--timeout", type=seconds, metavar="SECONDS", help="wait no longer; the job goes on"
    )


async def execute(options: argparse.Namespace) -> int:
    """Waits."""
    import asyncio
    import json

    from rdev.client.connection import connect
    from rdev.client.follow import exit_code
    from rdev.client.jobs import Jobs
    from rdev.client.lookup import find_job
    from rdev.client.ui.jobs import as_json, closing_line
    from rdev.protocol.errors import TimedOut

    async with connect(host_of(options)) as connection:
        job = await find_job(connection, options.job)
        try:
            async with asyncio.timeout(options.timeout):
                job = await Jobs(connection).wait(job.id)
        except TimeoutError:
            cause = f"{job.name} has not ended in {options.timeout:g} s"
            raise TimedOut("wait for the job", cause, hint="the job goes on") from None
    print(json.dumps(as_json(job)) if options.json else closing_line(job))
    return exit_code(job)
