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
        print(_nothing(connection.host, is_all=options.all))
    return 0


def _nothing(host: str, *, is_all: bool) -> str:
    from rdev.client.hosts import phrase
    from rdev.client.lookup import elsewhere

    ended = "" if is_all else f"; `{phrase('ps -a', host)}` lists ended ones"
    return f"no {'' if is_all else 'live '}jobs{ended}{elsewhere(host)}"
