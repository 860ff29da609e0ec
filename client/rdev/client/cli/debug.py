"""Put a debugger into a running job, at once and without a restart; or run a script under it.

    rdev debug [JOB] [FILE:LINE ...]            a running job, the workspace's latest by default
    rdev debug SCRIPT [FILE:LINE ...] [-- ARGS]  a script, stopped before its first line
    rdev debug [JOB] --listen [PORT] [--write]  a local port for VS Code, PyCharm and others
    rdev debug [JOB] --on exception|nan|step=N  attach once that happens, and not before
    rdev debug [JOB] FILE:LINE --from step=N    set the breakpoint when step N begins
    rdev debug --pid PID [FILE:LINE ...]        a Python process that rdev did not start

The job stops at FILE:LINE (or where it is, if no line is given), waits for commands, and runs on
exactly as before when you leave. Lines count as in your editor, which may be ahead of the job.
`h` at the prompt lists the commands; they are pdb's. Ctrl-C stops a running job where it is, Ctrl-D
leaves it. Exit code: 0 after leaving, and if the job ends meanwhile. A job of somebody else who
shares the login takes a yes.
"""

from __future__ import annotations

import argparse

from rdev.client.cli.options import (
    add_host,
    add_terms,
    add_yes,
    confirm_of,
    host_of,
    pid,
    rank_or_all,
    stop_condition,
    stops_at,
    terms_of,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rdev.client.connection import Connection
    from rdev.client.debug.dialogue import Plan
    from rdev.client.debug.expecting import Arrival
    from rdev.client.debug.places import Place
    from rdev.client.debug.prompt import Console
    from rdev.client.debug.session import Ended
    from rdev.client.debug.texts import Texts
    from rdev.client.sync.receipt import Receipt
    from rdev.wire.job import Job

# A job is over a moment after its process, when its output is recorded; one that is not by then
# has only lost its debugger.
_SETTLE = 3.0

_GOES_ON = "; the job goes on"


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the options."""
    add_host(parser)
    parser.usage = "rdev debug [options] [JOB|SCRIPT] [FILE:LINE ...] [-- ARGS]"
    parser.add_argument(
        "words",
        nargs="*",
        metavar="JOB|SCRIPT FILE:LINE",
        help="the job (the latest of this workspace by default), and where to stop",
    )
    parser.add_argument("--when", metavar="EXPR", help="stop only if EXPR is true")
    parser.add_argument(
        "--rank",
        type=rank_or_all,
        default=argparse.SUPPRESS,
        metavar="R|all",
        help="the rank to stop; default: one that waits for a debugger, else 0; with --on"
        " whichever comes first",
    )
    parser.add_argument(
        "--on",
        type=stop_condition,
        action="append",
        default=[],
        metavar="exception|nan|step=N",
        help="attach at an exception that nothing catches, at a loss or gradient that is not"
        " finite, or before a step, and no sooner",
    )
    parser.add_argument(
        "--command",
        action="append",
        metavar="CMD",
        help="execute CMD at the stop and leave; may be repeated",
    )
    parser.add_argument("--timeout", type=float, metavar="S", help="wait at most S s for the stop")
    parser.add_argument(
        "--pid", type=pid, metavar="PID", help="a process of the host that is no job; terminal only"
    )
    add_terms(parser)
    _add_port(parser)
    add_yes(parser)


def _add_port(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--listen",
        nargs="?",
        type=int,
        const=0,
        metavar="PORT",
        help="open a local port for an IDE instead, with --rank all one for each rank",
    )
    parser.add_argument(
        "--write",
        action="store_true",
        help="put it into .vscode/launch.json, and .run/ for PyCharm where there is an .idea",
    )
    parser.add_argument(
        "--remove", action="store_true", help="with --write: take out what was put there"
    )


def parse(parser: argparse.ArgumentParser, words: list[str]) -> argparse.Namespace:
    """Options may stand between the job and the lines; after `--` all is the script's."""
    ours, rest = words, []
    if "--" in words:
        ours, rest = words[: words.index("--")], words[words.index("--") + 1 :]
    options = parser.parse_intermixed_args(ours)
    options.script_arguments = rest
    options.is_stranger = False  # until it is known
    options.is_rank_open = "rank" not in options
    if options.is_rank_open:
        options.rank = None if options.on else 0
    if options.remove and not options.write:
        parser.error("--remove goes with --write")
    if options.write and options.listen is None:
        options.listen = 0
    return options


async def execute(options: argparse.Namespace) -> int:
    """Debugs."""
    from rdev.client.cli import debugpid
    from rdev.client.cli.debugport import listen, remove
    from rdev.client.connection import connect
    from rdev.client.debug.places import split_words
    from rdev.client.lookup import find_job
    from rdev.client.ownership import require_ours

    if options.remove:
        return remove()
    named, places = split_words(options.words)
    script = _script(named, options)
    _check(script, places, options)
    if options.pid is not None:
        debugpid.check(named, options)
    async with connect(host_of(options, _root(script))) as connection:
        if options.pid is not None:
            job = await debugpid.reached(connection, options)
            places = debugpid.as_there(connection, job, places) if options.is_stranger else places
        elif script:
            job = await _started(connection, script, options)
        else:
            job = await find_job(connection, named)
            await require_ours(job, "debug", confirm=confirm_of(options))
            _go_where_it_waits(job, options)
        if options.listen is not None:
            return await listen(connection, job, options)
        return await _converse(connection, job, places, options, is_new=bool(script))


def _go_where_it_waits(job: Job, options: argparse.Namespace) -> None:
    """Without --rank, whoever comes is meant to come for a rank that waits for a debugger."""
    from rdev.client.debug.expecting import going_where_it_waits, rank_that_waits
    from rdev.client.ui.output import say

    waiting = rank_that_waits(job)
    if waiting is None or not options.is_rank_open or options.on or options.from_step:
        return
    options.rank = waiting
    if line := going_where_it_waits(job):
        say(line)


def _check(script: str, places: list[Place], options: argparse.Namespace) -> None:
    from rdev.client.debug.places import parse_condition
    from rdev.protocol.errors import UsageError

    if options.listen is not None and (places or options.command or options.when):
        raise UsageError("debug a job", "with --listen the IDE sets breakpoints and commands")
    if options.listen is not None and options.on:
        raise UsageError("debug a job", "--on goes with the terminal, not with --listen")
    _require_gate_fits(options, places)
    if options.when is not None:
        if not places:
            raise UsageError("debug a job", "--when needs a FILE:LINE to stop at")
        options.when = parse_condition(options.when)
    if script and options.on:
        hint = f"`rdev run --on ... {script}` starts it so, and `rdev debug` attaches to it"
        raise UsageError("debug a script", "--on is for a job that runs", hint=hint)
    if script and options.from_step:
        hint = f"`rdev run -d {script}` starts it, and `rdev debug` waits for the step"
        raise UsageError("debug a script", "--from is for a job that runs", hint=hint)


def _require_gate_fits(options: argparse.Namespace, places: list[Place]) -> None:
    from rdev.protocol.errors import UsageError

    if not options.from_step:
        return
    if options.on:
        raise UsageError("debug a job", "--on stops by itself; --from is for a FILE:LINE")
    if not places and options.listen is None:
        hint = f"`--on step={options.from_step}` stops before that step itself"
        raise UsageError("debug a job", "--from needs a FILE:LINE to stop at", hint=hint)


async def _arrive(connection: Connection, job: Job, options: argparse.Namespace) -> Arrival | None:
    """Waits for what --on names, or for the step of --from; None at Ctrl-C."""
    from rdev.client.debug.expecting import Expected, until_it_waits
    from rdev.client.debug.gating import Gate
    from rdev.client.debug.terminal import until_interrupted
    from rdev.client.ui.output import say
    from rdev.protocol.errors import RdevError
    from rdev.wire.job import DebugStart

    stops = stops_at(options.on) if options.on else DebugStart(from_step=options.from_step)
    expected = Expected(stops, options.rank, options.timeout)
    arrivals: list[Arrival] = []
    failure: list[RdevError] = []

    async def work() -> None:
        try:
            if options.on:
                arrivals.append(await until_it_waits(connection, job, expected, say))
            else:
                arrivals.append(await Gate(connection, job, expected, say).arrive())
        except RdevError as error:  # a group would wrap it
            failure.append(error)

    is_there = await until_interrupted(work())
    if failure:
        raise failure[0]
    if not is_there:
        rest = f"does not stop for {expected.words}" if options.on else "no breakpoint is set"
        say(f"taken back: {job.name} goes on, and {rest}")
        return None
    return arrivals[0]


def _script(named: str, options: argparse.Namespace) -> str:
    """The script that is to be run; empty if a job is meant."""
    import os

    from rdev.protocol.errors import UsageError

    if named and os.path.isfile(named):
        return named
    if options.script_arguments:
        cause = f"{named or 'no script'!r} is no file here, so the words after -- are nobody's"
        raise UsageError("debug a script", cause)
    return ""


def _root(script: str) -> str | None:
    import os

    from rdev.client.sync.root import workspace_for_script

    return workspace_for_script(script, os.getcwd()).root if script else None


async def _started(connection: Connection, script: str, options: argparse.Namespace) -> Job:
    """Syncs, and starts a job that waits before its first line."""
    import os
    from dataclasses import replace

    from rdev.client import config
    from rdev.client.command import Command
    from rdev.client.jobs import Jobs
    from rdev.client.launch import Launch, launch
    from rdev.client.sync.root import workspace_for_script
    from rdev.client.ui.output import say
    from rdev.wire.job import CommandKind, DebugStart

    workspace = workspace_for_script(script, os.getcwd())
    settings = replace(config.load(workspace.root), host=connection.host)
    command = Command(CommandKind.SCRIPT, script, tuple(options.script_arguments))
    request = Launch(command=command, settings=settings, debug=DebugStart(at_start=True))
    job = await launch(
        connection,
        workspace,
        request,
        on_synced=_say_synced,
        confirm=confirm_of(options),
        tell=say,
    )
    return await Jobs(connection).until_started(job.id)


def _say_synced(receipt: Receipt) -> None:
    from rdev.client.ui.output import say

    for line in receipt.lines:
        say(line)


async def _converse(
    connection: Connection,
    job: Job,
    places: list[Place],
    options: argparse.Namespace,
    *,
    is_new: bool,
) -> int:
    import contextlib
    from dataclasses import replace

    from rdev.client.debug.opening import here, texts_of
    from rdev.client.debug.prompt import Scripted, Terminal
    from rdev.client.debug.strangers import texts_of_process
    from rdev.client.debug.terminal import until_interrupted
    from rdev.client.jobs import Jobs
    from rdev.protocol.errors import JobNotRunning

    texts = (
        texts_of_process(connection, job)
        if options.is_stranger
        else texts_of(connection, job, here())
    )
    plan = await _plan(texts, job, places, options, is_new=is_new)
    waiting, now = {stop.rank for stop in job.stops if stop.unattended}, job
    arrival = None
    if options.on or options.from_step:
        arrival = await _arrive(connection, job, options)
        if arrival is None:
            return 0
        options.rank = arrival.rank
        waiting = {options.rank} if options.on else set()
        now = await Jobs(connection).get(job.id)
    failed = {s.rank for s in now.stops if s.unattended and s.reason == "exception"}
    plan = replace(plan, waiting=frozenset(waiting), failed=frozenset(failed & waiting))
    console = _console(options)

    async def work() -> None:
        ended = await _sessions(
            connection, job, console, texts=texts, plan=plan, options=options, arrival=arrival
        )
        if ended is not None and isinstance(console, Scripted) and console.unexecuted:
            action = f"execute {console.unexecuted[0]!r}"
            raise JobNotRunning(action, ended.cause, hint=_no_job(options))

    def lose() -> None:
        console.is_lost = not isinstance(console, Scripted)  # its person is not there to return

    kept = console if isinstance(console, Terminal) else contextlib.nullcontext()
    with kept:
        try:
            is_left = not await until_interrupted(work(), hung_up=lose)
            if console.is_lost:
                console.say("hung up: a stop waits for the next `rdev debug` until its lease ends")
            elif is_left:
                console.say((await _farewell(connection, job, options))[0])
        finally:
            if arrival is not None:  # the attach may have failed
                await arrival.leave()
    return 0


def _no_job(options: argparse.Namespace) -> str | None:
    """A hint that names no verb of jobs, where there is none."""
    return "what it printed is where it was started" if options.is_stranger else None


def _console(options: argparse.Namespace) -> Console:
    import os
    import sys

    from rdev.client.debug.prompt import Piped, Scripted, Terminal
    from rdev.client.known import state_folder

    if options.command is not None:
        return Scripted(options.command)
    if sys.stdin.isatty() and sys.stdout.isatty():
        return Terminal(os.path.join(state_folder(), "debug_history"))
    return Piped(sys.stdin.fileno())


async def _plan(
    texts: Texts, job: Job, places: list[Place], options: argparse.Namespace, *, is_new: bool
) -> Plan:
    """What is to be done, said at once where it cannot be."""
    from rdev.client.debug.aiming import aimed
    from rdev.client.debug.dialogue import Plan
    from rdev.client.debug.session import Breakpoint

    breakpoints = []
    for place in places:
        path = texts.sources.on_host(place.file)
        line = await aimed(texts, path, place.line, job=job.name)
        breakpoints.append(Breakpoint(path, line, options.when or ""))
    return Plan(
        tuple(breakpoints),
        timeout=options.timeout,
        may_kill=options.allow_kill,
        waits_at_start=is_new,
    )


async def _sessions(
    connection: Connection,
    job: Job,
    console: Console,
    *,
    texts: Texts,
    plan: Plan,
    options: argparse.Namespace,
    arrival: Arrival | None,
) -> Ended | None:
    """One session after the other, for as long as the person wants to come back to the job."""
    from dataclasses import replace

    from rdev.protocol.dap import STILL_IN

    while True:
        said: list[str] = []  # of what the agent has to say
        ended = await _session(
            connection,
            job,
            console,
            texts=texts,
            plan=plan,
            options=options,
            said=said,
            arrival=arrival,
        )
        if console.is_lost:
            return ended
        text, is_over = await _farewell(connection, job, options, ended)
        is_held = STILL_IN in "".join(said[-1:])
        if is_held and ended is None:
            console.say("detached")
        elif not is_held and text not in said[-1:]:
            console.say(text)
        if ended is None or is_over or not console.is_person:
            return ended
        if not await _wants_to_return(console):
            return ended
        none: frozenset[int] = frozenset()
        plan, arrival = replace(plan, waits_at_start=False, waiting=none, failed=none), None


async def _wants_to_return(console: Console) -> bool:
    """What is no answer is a command that was being typed when the session ended."""
    while (answer := await console.command("attach again? [y/N] ", _nothing)) is not None:
        word = answer.strip().lower()
        if word in ("", "n", "no", "y", "yes"):
            return word in ("y", "yes")
        console.say("not executed, for the session is over: attach again, and recall it with Up")
    return False


async def _nothing(_text: str, _cursor: int) -> list[str]:
    return []


async def _session(
    connection: Connection,
    job: Job,
    console: Console,
    *,
    texts: Texts,
    plan: Plan,
    options: argparse.Namespace,
    said: list[str],
    arrival: Arrival | None,
) -> Ended | None:
    from rdev.client.debug.beside import shown_beside
    from rdev.client.debug.dialogue import Dialogue, interruptible
    from rdev.client.debug.opening import seated
    from rdev.client.debug.paper import Paper
    from rdev.client.debug.ranks import JobReports
    from rdev.client.debug.strangers import ProcessReports
    from rdev.client.debug.view import View
    from rdev.protocol.dap import STILL_IN

    view = View(texts, job.name, Paper(has_colours=console.has_colours))

    def tell(line: str) -> None:
        # Why a session is over is said within it, for an IDE, and by its call.
        told = said[-1] if said else ""
        is_told = told.startswith(f"{line}; ") or (STILL_IN in told and STILL_IN in line)
        if not is_told:
            said.append(line)
            console.say(view.paper.ink(line))

    ranks = range(job.ranks) if options.rank is None else [options.rank]
    terms = terms_of(options)
    async with seated(
        connection, job, ranks, terms=terms, tell=tell, is_lost=lambda: console.is_lost
    ) as seats:
        if arrival is not None:
            await arrival.let_others_go()
        for path in dict.fromkeys(one.path for one in plan.breakpoints):
            pairing = await texts.pairing(path)
            if pairing is not None and (notice := pairing.notice(job.name)):
                tell(notice)
        reports = (
            ProcessReports(connection, job)
            if options.is_stranger
            else JobReports(connection, job.id)
        )
        dialogue = Dialogue(seats, view=view, console=console, reports=reports, plan=plan)
        watched = plan.waits_at_start
        async with (
            shown_beside(connection, job, console, is_wanted=watched),
            interruptible(dialogue),
        ):
            return await dialogue.run()


async def _farewell(
    connection: Connection,
    job: Job,
    options: argparse.Namespace,
    ended: Ended | None = None,
) -> tuple[str, bool]:
    """What is to be said of the job when its session is over, and whether it is over as well.

    `ended` if the session ended by itself.
    """
    import asyncio

    from rdev.client.jobs import Jobs
    from rdev.client.ui.jobs import closing_line
    from rdev.protocol.errors import RdevError

    if options.is_stranger:
        from rdev.client.cli.debugpid import farewell

        return await farewell(connection, job, ended)
    jobs = Jobs(connection)
    if ended is None:
        try:
            now = await jobs.get(job.id)
        except RdevError:  # leaving needs nobody's consent; of the job nothing is known then
            return "detached", False
        is_over = now.state.is_final
        return (closing_line(now) if is_over else "detached; the job goes on"), is_over
    try:
        async with asyncio.timeout(_SETTLE):
            return closing_line(await jobs.wait(job.id)), True
    except TimeoutError:
        return f"{ended.cause}{_GOES_ON}", False
