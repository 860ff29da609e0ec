"""`rdev debug --pid`: a process that rdev did not start, named, reached and taken leave of."""

from __future__ import annotations

import argparse

from rdev.client.cli.options import confirm_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rdev.client.connection import Connection
    from rdev.client.debug.places import Place
    from rdev.client.debug.session import Ended
    from rdev.wire.job import Job


def check(named: str, options: argparse.Namespace) -> None:
    """Refuses what does not go with --pid."""
    from rdev.protocol.errors import UsageError

    action = f"debug process {options.pid}"
    if named or options.script_arguments:
        raise UsageError(action, f"{named or 'a script'} is named beside --pid")
    if options.listen is not None or options.on or options.from_step:
        cause = "--pid goes with the terminal, not with --listen, --on or --from"
        raise UsageError(action, cause)
    if options.allow_kill:
        raise UsageError(action, "rdev ends nothing that it did not start", hint="`kill` does")


async def reached(connection: Connection, options: argparse.Namespace) -> Job:
    """The process, or the job that it belongs to."""
    from rdev.client.debug.strangers import reach
    from rdev.client.ownership import require_ours
    from rdev.client.ui.output import say

    found = await reach(connection, options.pid, say)
    options.rank, options.is_stranger = found.rank, found.is_stranger
    if not found.is_stranger:
        say(f"process {options.pid} is rank {found.rank} of job {found.job.name}")
        await require_ours(found.job, "debug", confirm=confirm_of(options))
    return found.job


def as_there(connection: Connection, job: Job, places: list[Place]) -> list[Place]:
    """Files are meant from the process's folder, or from here, on this machine, if not there."""
    import os
    from dataclasses import replace

    if connection.host != "local":
        return places

    def is_here(file: str) -> bool:
        return not os.path.exists(os.path.join(job.directory, file)) and os.path.exists(file)

    return [
        replace(one, file=os.path.realpath(one.file)) if is_here(one.file) else one
        for one in places
    ]


async def farewell(connection: Connection, job: Job, ended: Ended | None) -> tuple[str, bool]:
    """What is to be said when a session is over, and whether its process is over as well."""
    from rdev.client.debug.strangers import has_ended

    if ended is None:
        return f"detached; process {job.pid} goes on", False
    if await has_ended(connection, job):
        return f"process {job.pid} has ended", True
    return f"{ended.cause}; process {job.pid} goes on", False
