"""End a job: TERM to every process of it, KILL after its grace. Waits until it has ended."""

from __future__ import annotations

import argparse

from rdev.client.cli.options import (
    add_host,
    add_job,
    add_json,
    add_yes,
    confirm_of,
    host_of,
)


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the options."""
    add_host(parser)
    add_json(parser)
    add_job(parser)
    parser.add_argument("--now", action="store_true", help="KILL at once")
    parser.add_argument(
        "--all",
        action="store_true",
        help="spare nothing: no tmux, screen or agent that was started in the job either",
    )
    add_yes(parser)


async def execute(options: argparse.Namespace) -> int:
    """Stops."""
    import json

    from rdev.client.connection import connect, persisting
    from rdev.client.jobs import Jobs
    from rdev.client.lookup import find_job
    from rdev.client.ownership import require_ours
    from rdev.client.ui.jobs import as_json, closing_line, spared_line
    from rdev.client.ui.output import say

    async with connect(host_of(options)) as connection:
        jobs = Jobs(connection)
        job = await find_job(connection, options.job)
        if not job.state.is_final:
            await require_ours(job, "stop", confirm=confirm_of(options))
            # An agent that is just replaced must not lose it; asking twice is asking once.
            await persisting(
                connection, lambda: jobs.stop(job.id, now=options.now, is_all=options.all)
            )
            job = await jobs.wait(job.id)
    print(json.dumps(as_json(job)) if options.json else closing_line(job))
    if spared := spared_line(job, host=connection.host):
        say(spared)
    return 0
