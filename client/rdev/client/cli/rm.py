"""Remove ended jobs with their logs; what they wrote into the workspace stays.

Jobs of other people who share the login are left alone by --ended, and asked about by name.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from rdev.client.cli.options import add_host, add_yes, confirm_of, host_of

if TYPE_CHECKING:
    from rdev.wire.job import Job


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the options."""
    add_host(parser)
    parser.add_argument("jobs", nargs="*", metavar="JOB", help="name, id, id prefix or @-N")
    parser.add_argument(
        "-a", "--ended", "--all", dest="ended", action="store_true", help="every ended job"
    )
    parser.add_argument(
        "--older-than", metavar="T", help="only those that ended before: 7d, 12h, 2026-11-22"
    )
    add_yes(parser)


async def execute(options: argparse.Namespace) -> int:
    """Removes."""
    from rdev.client.connection import Connection, connect
    from rdev.client.jobs import Jobs
    from rdev.client.lookup import find_job
    from rdev.client.ownership import is_ours, require_ours
    from rdev.client.ui.output import say
    from rdev.protocol.errors import UsageError

    if not options.jobs and not options.ended:
        raise UsageError("remove jobs", "none was named", hint="name jobs, or use --ended")
    if options.jobs and options.ended:
        cause = "names and --ended were given together"
        raise UsageError("remove jobs", cause, hint="name jobs, or use --ended")
    before = _before(options.older_than)

    async def named(connection: Connection) -> list[Job]:
        if options.ended:
            return [job for job in await Jobs(connection).list(ended=True) if job.state.is_final]
        return [await find_job(connection, reference) for reference in options.jobs]

    others = 0
    async with connect(host_of(options)) as connection:
        for job in await named(connection):
            if before is not None and job.state.is_final and job.ended >= before:
                continue
            if options.ended and not options.yes and not is_ours(job):
                others += 1
                continue
            await require_ours(job, "remove", confirm=confirm_of(options))
            await Jobs(connection).delete(job.id)
            print(f"removed {job.name} ({job.id})")
    if others:
        jobs = "1 job" if others == 1 else f"{others} jobs"
        say(f"left alone: {jobs} of other people; --yes removes theirs too")
    return 0


def _before(word: str | None) -> float | None:
    import time

    from rdev.client.moments import moment
    from rdev.protocol.errors import UsageError

    if word is None:
        return None
    try:
        return moment(word, now=time.time())
    except ValueError as error:
        hint = "how long ago, such as 7d or 12h, or a day"
        raise UsageError("tell how old they are", str(error), hint=hint) from error
