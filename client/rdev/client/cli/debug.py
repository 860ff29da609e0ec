"""Put a debugger into a running job, at once and without a restart.

The job stops at FILE:LINE (or where it is, if no line is given), waits for commands, and runs on
exactly as before when you leave. Ctrl-C and Ctrl-D leave. Exit code: 0 after leaving, and if the
job ends meanwhile. A job of somebody else who shares the login takes a yes.
"""

from __future__ import annotations

import argparse

from rdev.client.cli.options import add_host, add_terms, add_yes, confirm_of, host_of, terms_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractAsyncContextManager

    from rdev.client.connection import Connection
    from rdev.client.debug.editor import Joint
    from rdev.client.debug.places import Place
    from rdev.client.debug.session import Ended
    from rdev.client.debug.terminal import Commands
    from rdev.protocol.dap import Message
    from rdev.wire.job import Job

# A job is over a moment after its process, when its output is recorded; one that is not by then
# has only lost its debugger.
_SETTLE = 3.0


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the options."""
    add_host(parser)
    parser.add_argument(
        "words",
        nargs="*",
        metavar="[JOB] FILE:LINE",
        help="the job (the latest of this workspace by default), and where to stop",
    )
    parser.add_argument("--when", metavar="EXPR", help="stop only if EXPR is true")
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
    add_terms(parser)
    add_yes(parser)


def parse(parser: argparse.ArgumentParser, words: list[str]) -> argparse.Namespace:
    """Options may stand between the job and the lines."""
    return parser.parse_intermixed_args(words)


async def execute(options: argparse.Namespace) -> int:
    """Debugs."""
    from rdev.client.connection import connect
    from rdev.client.debug.places import parse_condition, split_words
    from rdev.client.lookup import find_job
    from rdev.client.ownership import require_ours
    from rdev.protocol.errors import UsageError

    reference, places = split_words(options.words)
    if options.listen is not None and (places or options.command or options.when):
        raise UsageError("debug a job", "with --listen the IDE sets breakpoints and commands")
    if options.when is not None:
        if not places:
            raise UsageError("debug a job", "--when needs a FILE:LINE to stop at")
        options.when = parse_condition(options.when)
    async with connect(host_of(options)) as connection:
        job = await find_job(connection, reference)
        await require_ours(job, "debug", confirm=confirm_of(options))
        if options.listen is not None:
            return await _listen(connection, job, options)
        return await _converse(connection, job, places, options)


async def _converse(
    connection: Connection, job: Job, places: list[Place], options: argparse.Namespace
) -> int:
    import sys

    from rdev.client.debug.terminal import Scripted, Typed, until_interrupted
    from rdev.protocol.errors import JobNotRunning

    script = None if options.command is None else Scripted(options.command)
    commands = script or Typed(sys.stdin.fileno(), _prompt)

    async def session() -> None:
        ended = await _session(connection, job, commands, places=places, options=options)
        print(await _farewell(connection, job, ended), flush=True)
        if ended is not None and script is not None and script.left:
            raise JobNotRunning(f"execute {script.left[0]!r}", ended.cause)

    if not await until_interrupted(session()):
        print(f"\n{await _farewell(connection, job)}", flush=True)
    return 0


async def _session(
    connection: Connection,
    job: Job,
    commands: Commands,
    *,
    places: list[Place],
    options: argparse.Namespace,
) -> Ended | None:
    from rdev.client.debug.places import Sources
    from rdev.client.debug.remote import attached
    from rdev.client.debug.session import Breakpoint, debugging
    from rdev.client.debug.terminal import Plan, converse
    from rdev.client.debug.texts import Texts
    from rdev.client.debug.view import View
    from rdev.client.workspaces import read_snapshot_file

    async with attached(connection, job.id, options.rank) as pipe, debugging(pipe) as client:
        opened = pipe.opened
        print(f"attached to {job.name} (pid {opened.pid}, Python {opened.python_version})")
        sources = Sources(_local_root(job), opened.workspace)
        breakpoints = tuple(
            Breakpoint(sources.on_host(place.file), place.line, options.when or "")
            for place in places
        )
        plan = Plan(job.name, breakpoints, options.timeout)
        texts = Texts(sources, lambda path: read_snapshot_file(connection, job.spec.snapshot, path))
        view = View(client, sources, texts, job=job.name, say=_say)
        return await converse(view, sources, commands, plan)


async def _farewell(connection: Connection, job: Job, ended: Ended | None = None) -> str:
    """What is to be said of the job when its session is over; `ended` if that came by itself."""
    import asyncio

    from rdev.client.jobs import Jobs
    from rdev.client.ui.jobs import closing_line
    from rdev.protocol.errors import RdevError

    jobs = Jobs(connection)
    if ended is None:
        try:
            now = await jobs.get(job.id)
        except RdevError:  # leaving needs nobody's consent; of the job nothing is known then
            return "detached"
        return closing_line(now) if now.state.is_final else "detached; the job goes on"
    try:
        async with asyncio.timeout(_SETTLE):
            return f"\n{closing_line(await jobs.wait(job.id))}"
    except TimeoutError:
        return f"\n{ended.cause}; the job goes on"


def _say(text: str) -> None:
    print(text, flush=True)


def _prompt() -> None:
    import sys

    if sys.stdin.isatty():
        print("(rdev) ", end="", flush=True)


async def _listen(connection: Connection, job: Job, options: argparse.Namespace) -> int:
    from rdev.client.debug.listen import listening, paste
    from rdev.client.debug.opening import here, joined
    from rdev.client.debug.terminal import until_interrupted
    from rdev.client.jobs import Jobs

    terms, folder = terms_of(options), here()

    def opening(
        arguments: Message, tell: Callable[[str], None]
    ) -> AbstractAsyncContextManager[Joint]:
        return joined(
            connection,
            job,
            rank=options.rank,
            terms=terms.over(arguments),
            folder=folder,
            tell=tell,
        )

    async with listening(options.listen, opening=opening, say=_say) as ide:
        print(f"listening on 127.0.0.1:{ide.port} for one IDE at a time; Ctrl-C ends it")
        print("paste into .vscode/launch.json, under configurations:")
        print(paste(job.name, ide.port), flush=True)
        await until_interrupted(ide.serve())
    final = (await Jobs(connection).get(job.id)).state.is_final
    print("\nclosed; the job has ended" if final else "\nclosed; the job goes on")
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
