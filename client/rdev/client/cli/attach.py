"""Return to a running job: its latest output, then everything it prints until it ends.

A job in a terminal (rdev run -t, rdev shell) gets the keys too, and Enter ~ d detaches; of any
other job Ctrl-C detaches, and it is left alone. Several may be attached to one job at once. To
type into a job of somebody else who shares the login needs a yes; --no-stdin only watches.

Exit code: the job's own; 0 after a detach.
"""

from __future__ import annotations

import argparse

from rdev.client.cli.options import (
    add_detach_keys,
    add_host,
    add_input,
    add_job,
    add_prefix,
    add_yes,
    host_of,
)


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the options."""
    add_host(parser)
    add_job(parser)
    add_input(parser)
    add_detach_keys(parser)
    add_prefix(parser)
    add_yes(parser)


async def execute(options: argparse.Namespace) -> int:
    """Attaches."""
    from rdev.protocol.polling import poll_directly

    poll_directly()
    from rdev.client.cli.attending import output_of, return_to
    from rdev.client.cli.narrating import explain_end, outlived
    from rdev.client.connection import connect
    from rdev.client.lookup import find_job

    async with connect(host_of(options)) as connection:
        job = await find_job(connection, options.job)
        shown = output_of(job, prefix=options.prefix)
        async with outlived(connection, job), shown as output:
            code = await return_to(connection, job, output, options=options)
        if code:
            await explain_end(connection, job)
        return code
