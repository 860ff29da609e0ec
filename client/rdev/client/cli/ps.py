"""List jobs: the live ones, or with -a the ended ones too, newest first."""

from __future__ import annotations

import argparse

from rdev.client.cli.options import add_host, add_json, host_of


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the options."""
    add_host(parser)
    add_json(parser)
    parser.add_argument("-a", "--all", action="store_true", help="ended jobs too")


async def execute(options: argparse.Namespace) -> int:
    """Lists."""
    import json
    import time

    from rdev.client.connection import connect
    from rdev.client.jobs import Jobs
    from rdev.client.ui.jobs import as_json, table

    async with connect(host_of(options)) as connection:
        jobs = await Jobs(connection).list(ended=options.all)
    if options.json:
        print(json.dumps([as_json(job) for job in jobs], indent=2))
    elif jobs:
        print(table(jobs, now=time.time()))
    else:
        print("no jobs" if options.all else "no live jobs; `rdev ps -a` lists ended ones")
    return 0
