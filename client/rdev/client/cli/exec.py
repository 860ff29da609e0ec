"""Run a command beside a job: in its folder, with its environment, without a sync.

    rdev exec JOB -- COMMAND [args...]      where that job runs
    rdev exec HOST -- COMMAND [args...]     in the home folder of that host; also -H HOST

A name that a host and a job have is the host's; with -H it is a job's there.

Exit code: the command's own.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from rdev.client.cli.options import (
    add_detach_keys,
    add_host,
    add_input,
    add_terminal,
    add_yes,
    confirm_of,
    host_of,
)

if TYPE_CHECKING:
    from rdev.client.connection import Connection
    from rdev.wire.job import Job


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the options."""
    add_host(parser)
    parser.usage = "rdev exec [options] [JOB|HOST] -- COMMAND [args...]"
    parser.add_argument(
        "target",
        nargs="?",
        default="",
        metavar="JOB|HOST",
        help="the job to run beside, or a host; with -H, that host by default",
    )
    add_terminal(parser)
    add_input(parser)
    add_detach_keys(parser)
    add_yes(parser)


def parse(parser: argparse.ArgumentParser, words: list[str]) -> argparse.Namespace:
    """Parses up to `--`; the rest is the command."""
    from rdev.protocol.errors import UsageError

    ours = words[: words.index("--")] if "--" in words else words
    options, stray = parser.parse_known_args(ours)
    if stray:
        hint = "write the command after --, as in `rdev exec HOST -- nvidia-smi`"
        raise UsageError("run", f"{stray[0]!r} is no option of ours", hint=hint)
    if not (options.target or options.host):
        hint = "`rdev exec HOST -- COMMAND` runs it in the home folder of a host"
        raise UsageError("run", "neither a job nor a host was named", hint=hint)
    options.target = options.target or options.host
    options.command = words[len(ours) + 1 :]
    if not options.command:
        raise UsageError("run", "a command is missing", hint="write it after --")
    if not options.command[0]:  # to a host it would mean a login shell
        raise UsageError("run", "the command is empty", hint="write it after --")
    return options


async def execute(options: argparse.Namespace) -> int:
    """Runs the command as a small job of its own."""
    from rdev.protocol.polling import poll_directly

    poll_directly()
    from rdev.client.cli.attending import terminal_of
    from rdev.client.connection import connect
    from rdev.client.hosts import LOCAL
    from rdev.client.lookup import find_job, names_host, ssh_knows
    from rdev.client.ownership import require_ours
    from rdev.protocol.errors import JobNotFound

    terminal_of(options)  # what is wrong is said before anything is done
    target = options.target
    is_host = target == LOCAL or (not options.host and names_host(target))
    host = target if is_host else host_of(options)
    async with connect(host) as connection:
        if target == host:
            return await _run(connection, None, options)
        try:
            neighbour = await find_job(connection, target)
        except JobNotFound:
            if options.host or not await ssh_knows(target):
                raise
        else:
            await require_ours(neighbour, "run a command beside", confirm=confirm_of(options))
            return await _run(connection, neighbour, options)
    async with connect(target) as connection:
        return await _run(connection, None, options)


async def _run(connection: Connection, neighbour: Job | None, options: argparse.Namespace) -> int:
    """Runs it beside a job, or in the host's home folder without one."""
    import contextlib

    from rdev.client.cli.attending import attend, output_of, source_of, terminal_of
    from rdev.client.cli.narrating import outlived
    from rdev.client.jobs import Jobs
    from rdev.client.launch import beside, start
    from rdev.protocol.errors import RdevError

    terminal, source = terminal_of(options), source_of(options)
    spec = beside(neighbour, options.command, terminal=terminal, stdin=source is not None)
    job = await start(connection, spec)
    async with outlived(connection, job), output_of(job) as output:
        keys = options.detach_keys
        code = await attend(connection, job, output, source=source, detach_keys=keys)
    # It was a means, not a job that anybody will ask for; one that still runs stays, and one that
    # is gone already was tidied up by somebody else.
    with contextlib.suppress(RdevError):
        await Jobs(connection).delete(job.id)
    return code
