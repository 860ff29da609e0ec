"""Return to a running job: its latest output, then everything it prints until it ends.

Ctrl-C detaches and leaves the job alone. Exit code: the job's own; 0 after a detach.
"""

from __future__ import annotations

import argparse

from rdev.client.cli.options import add_host, add_job, host_of

# About a screenful of what happened while nobody looked.
_SCROLLBACK_LINES = 40


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the options."""
    add_host(parser)
    add_job(parser)


async def execute(options: argparse.Namespace) -> int:
    """Attaches."""
    from rdev.client.cli.following import OnInterrupt, follow_to_end
    from rdev.client.connection import connect
    from rdev.client.lookup import find_job
    from rdev.client.ui.output import RawOutput

    async with connect(host_of(options)) as connection:
        job = await find_job(connection, options.job)
        return await follow_to_end(
            connection,
            job,
            RawOutput(),
            on_interrupt=OnInterrupt.DETACH,
            lines=_SCROLLBACK_LINES,
        )
