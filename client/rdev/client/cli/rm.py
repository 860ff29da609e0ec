"""Remove ended jobs with their logs; what they wrote into the workspace stays."""

from __future__ import annotations

import argparse

from rdev.client.cli.options import add_host, host_of


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the options."""
    add_host(parser)
    parser.add_argument("jobs", nargs="*", metavar="JOB", help="name, id, id prefix or @-N")
    parser.add_argument("-a", "--all", action="store_true", help="every ended job")


async def execute(options: argparse.Namespace) -> int:
    """Removes."""
    from rdev.client.connection import connect
    from rdev.client.jobs import Jobs
    from rdev.client.lookup import find_job
    from rdev.protocol.errors import UsageError

    if not options.jobs and not options.all:
        raise UsageError("remove jobs", "none was named", hint="name jobs, or use --all")
    async with connect(host_of(options)) as connection:
        jobs = Jobs(connection)
        if options.all:
            found = [job for job in await jobs.list(ended=True) if job.state.is_final]
        else:
            found = [await find_job(connection, reference) for reference in options.jobs]
        for job in found:
            await jobs.delete(job.id)
            print(f"removed {job.name} ({job.id})")
    return 0
