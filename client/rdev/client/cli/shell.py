"""Open a login shell on a host: in this workspace's folder there, or in the home folder.

It is a job in a terminal: Enter ~ d detaches, `rdev attach` returns, and it outlives a lost
connection and a closed laptop. Nothing is synced unless --sync says so.

Exit code: the shell's own; 0 after a detach.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from rdev.client.cli.options import add_detach_keys, add_host, add_yes, confirm_of, host_of

if TYPE_CHECKING:
    from rdev.client.connection import Connection
    from rdev.client.sync.root import Workspace
    from rdev.wire.job import Job, JobSpec


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the options."""
    add_host(parser)
    parser.add_argument("target", nargs="?", metavar="HOST", help="the same as -H HOST")
    parser.add_argument("--name", default="", help="a name for the job; default: shell")
    parser.add_argument(
        "--sync", action="store_true", help="bring the host's copy up to date first"
    )
    add_detach_keys(parser)
    add_yes(parser)


async def execute(options: argparse.Namespace) -> int:
    """Opens the shell."""
    from rdev.protocol.polling import poll_directly

    poll_directly()
    import contextlib

    from rdev.client.cli.attending import attend, has_terminal, output_of
    from rdev.client.cli.main import VERBS
    from rdev.client.cli.narrating import outlived
    from rdev.client.connection import connect
    from rdev.client.jobs import Jobs
    from rdev.client.launch import require_name
    from rdev.client.ui.output import say
    from rdev.client.workspaces import sync_workspace
    from rdev.protocol.errors import RdevError, UsageError

    require_name(options.name, forbidden=VERBS)
    if not has_terminal():
        hint = "`rdev exec HOST -- COMMAND` runs one command without a terminal"
        raise UsageError("open a shell", "stdin and stdout are no terminal here", hint=hint)
    async with connect(options.target or host_of(options)) as connection:
        workspace = _workspace()
        if options.sync and workspace is not None:
            receipt = await sync_workspace(connection, workspace, confirm=confirm_of(options))
            for line in receipt.lines:
                say(line)
        job = await _start(connection, workspace, options.name)
        async with outlived(connection, job), output_of(job) as output:
            code = await attend(connection, job, output, detach_keys=options.detach_keys)
        # A shell that was left by `exit` is of no interest any more; one that still runs stays.
        with contextlib.suppress(RdevError):
            await Jobs(connection).delete(job.id)
    return code


def _workspace() -> Workspace | None:
    import os

    from rdev.client.sync.root import find_workspace
    from rdev.protocol.errors import WorkspaceRefused

    try:
        return find_workspace(os.getcwd())
    except WorkspaceRefused:
        return None


async def _start(connection: Connection, workspace: Workspace | None, name: str) -> Job:
    import os

    from rdev.client import config
    from rdev.client.launch import login_shell, start
    from rdev.client.terminal import window_of
    from rdev.client.ui.output import say
    from rdev.protocol.errors import WorkspaceNotFound

    settings = config.load(workspace.root if workspace else os.getcwd())

    def spec(place: Workspace | None) -> JobSpec:
        host, terminal = connection.host, window_of(1)
        return login_shell(host, place, terminal=terminal, name=name, settings=settings)

    try:
        return await start(connection, spec(workspace), tell=say)
    except WorkspaceNotFound:
        say("this workspace was never synced to the host; the shell opens in the home folder")
        return await start(connection, spec(None))
