"""Show what every thread of a job does right now, without stopping anything.

Frames are innermost first; those of the workspace come with their source line. A job that hangs
shows here where. `--native` adds frames of C and C++ where py-spy is installed on the host.
"""

from __future__ import annotations

import argparse

from rdev.client.cli.options import add_host, add_job, add_json, host_of, pid
from rdev.client.cli.options import rank as a_rank


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the options."""
    add_host(parser)
    add_job(parser)
    parser.add_argument("--rank", type=a_rank, metavar="R", help="only this rank")
    parser.add_argument("--pid", type=pid, metavar="PID", help="a process that rdev did not start")
    parser.add_argument("--native", action="store_true", help="frames of native code, too")
    add_json(parser)


async def execute(options: argparse.Namespace) -> int:
    """Shows."""
    import json
    import os
    import sys

    from rdev.client.connection import connect
    from rdev.client.debug.opening import here, texts_of
    from rdev.client.debug.paper import Paper
    from rdev.client.debug.ranks import stacks
    from rdev.client.debug.stacks import as_json, pages
    from rdev.client.debug.strangers import reach, texts_of_process
    from rdev.client.debug.view import View
    from rdev.client.lookup import find_job
    from rdev.client.ui.output import say

    async with connect(host_of(options)) as connection:
        is_stranger = False
        if options.pid is not None:
            reached = await reach(connection, options.pid, say)
            job, options.rank, is_stranger = reached.job, reached.rank, reached.is_stranger
        else:
            job = await find_job(connection, options.job)
        found = await stacks(connection, job.id, rank=options.rank, native=options.native)
        if options.json:
            print(json.dumps(as_json(found)))
            return 0
        plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
        paper = Paper(has_colours=sys.stdout.isatty() and not plain)
        texts = (
            texts_of_process(connection, job) if is_stranger else texts_of(connection, job, here())
        )
        view = View(texts, job.name, paper)
        print("\n".join(await pages(found, view)))
    return 0
