"""Put a debugger into a running job, at once and without a restart.

The job stops at FILE:LINE (or where it is, if no line is given), waits for commands, and runs on
exactly as before when you leave. Ctrl-C and Ctrl-D leave. Exit code: 0 after leaving.
"""

from __future__ import annotations

import argparse

from rdev.client.cli.options import add_host, host_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rdev.client.connection import Connection
    from rdev.client.debug.places import Place
    from rdev.wire.job import Job


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the options."""
    add_host(parser)
    parser.add_argument(
        "words",
        nargs="*",
        metavar="[JOB] FILE:LINE",
        help="the job (the latest of this workspace by default), and where to stop",
    )
    parser.add_argument("--when", metavar="EXPR", default="", help="stop only if EXPR is true")
    parser.add_argument(
        "--command",
        action="append",
        metavar="CMD",
        help="execute CMD at the stop and leave; may be repeated",
    )
    parser.add_argument(
        "--listen",
        nargs="?",
        type=int,
        const=0,
        metavar="PORT",
        help="open a local port for an IDE instead",
    )
    parser.add_argument("--timeout", type=float, metavar="S", help="wait at most S s for the stop")
    parser.add_argument("--rank", type=int, default=0, metavar="R", help="the rank to stop")


async def execute(options: argparse.Namespace) -> int:
    """Debugs."""
    from rdev.client.connection import connect
    from rdev.client.debug.places import split_words
    from rdev.client.lookup import find_job
    from rdev.protocol.errors import UsageError

    reference, places = split_words(options.words)
    if options.listen is not None and (places or options.command):
        raise UsageError("debug a job", "with --listen the IDE sets breakpoints and commands")
    async with connect(host_of(options)) as connection:
        job = await find_job(connection, reference)
        if options.listen is not None:
            return await _listen(connection, job, options)
        return await _converse(connection, job, places, options)


async def _converse(
    connection: Connection, job: Job, places: list[Place], options: argparse.Namespace
) -> int:
    import sys

    from rdev.client.debug.places import Sources
    from rdev.client.debug.remote import attached
    from rdev.client.debug.session import Breakpoint, debugging
    from rdev.client.debug.terminal import Plan, Scripted, Typed, converse, until_interrupted
    from rdev.client.debug.view import View

    person = Typed(sys.stdin.fileno(), _prompt)
    commands = person if options.command is None else Scripted(options.command)

    async def session() -> None:
        async with attached(connection, job.id, options.rank) as pipe:
            opened = pipe.opened
            print(f"attached to {job.name} (pid {opened.pid}, Python {opened.python_version})")
            sources = Sources(_local_root(job), opened.workspace)
            breakpoints = tuple(
                Breakpoint(sources.on_host(place.file), place.line, options.when)
                for place in places
            )
            async with debugging(pipe) as client:
                plan = Plan(job.name, breakpoints, options.timeout)
                view = View(client, sources, lambda text: print(text, flush=True))
                await converse(view, sources, commands, plan)

    if not await until_interrupted(session()):
        print()
    print("detached; the job goes on", flush=True)
    return 0


def _prompt() -> None:
    import sys

    if sys.stdin.isatty():
        print("(rdev) ", end="", flush=True)


async def _listen(connection: Connection, job: Job, options: argparse.Namespace) -> int:
    from rdev.client.debug.listen import listening, paste
    from rdev.client.debug.places import Sources, workspace_folder
    from rdev.client.debug.remote import attached
    from rdev.client.debug.terminal import until_interrupted

    root = _local_root(job)
    async with listening(
        options.listen,
        attach=lambda: attached(connection, job.id, options.rank),
        sources=lambda workspace: Sources(root, workspace),
        say=lambda text: print(text, flush=True),
    ) as ide:
        print(f"listening on 127.0.0.1:{ide.port} for one IDE at a time; Ctrl-C ends it")
        print("paste into .vscode/launch.json, under configurations:")
        print(paste(job.name, ide.port, Sources(root, workspace_folder(job))), flush=True)
        await until_interrupted(ide.serve())
    print("\nclosed; the job goes on")
    return 0


def _local_root(job: Job) -> str:
    """The job's workspace here; empty if the current folder lies in another, or in none."""
    import os

    from rdev.client.sync.root import find_workspace
    from rdev.protocol.errors import RdevError

    try:
        workspace = find_workspace(os.getcwd())
    except RdevError:
        return ""
    return workspace.root if workspace.id == job.spec.workspace_id else ""
