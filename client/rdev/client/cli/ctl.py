"""Control a training that runs, at a boundary of its steps; every rank after the same step.

    pause [--when EXPR]    hold it, now or once EXPR is true after a step, such as 'loss > 10'
    resume                 let it go on
    step [N]               make N steps and pause
    stop                   end the run after this step, as its script would
    checkpoint [PATH]      write a checkpoint
    set K=V ...            set lr, or a path such as optimizer.param_groups.0.momentum
    reload MODULE          take the edited code of a module or script; all objects stay
    state                  read step, loss, metrics, learning rates and objects
    why                    say what it does or what holds it up, and ask it nothing
    watch, unwatch         count the steps of a script that nobody prepared, or stop that

Each acknowledgement names the step. A script that nobody prepared is watched from the first
request on. Ctrl-C takes a request back that has not been served.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rdev.client.cli.options import add_host, add_json, host_of

if TYPE_CHECKING:
    from rdev.client.connection import Connection
    from rdev.client.control import Outcome
    from rdev.wire.control import Verb
    from rdev.wire.job import Job

# What follows each: the least and the most words.
_WORDS = {
    "pause": (0, 0),
    "resume": (0, 0),
    "step": (0, 1),
    "stop": (0, 0),
    "checkpoint": (0, 1),
    "set": (1, 100),
    "reload": (1, 1),
    "state": (0, 0),
    "why": (0, 0),
    "watch": (0, 0),
    "unwatch": (0, 0),
}


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the options."""
    add_host(parser)
    parser.add_argument(
        "words",
        nargs="+",
        metavar="[JOB] VERB [ARG ...]",
        help=f"a job, by default the latest, and one of {', '.join(_WORDS)}",
    )
    parser.add_argument("--when", metavar="EXPR", help="with pause: once this is true after a step")
    parser.add_argument(
        "--patience",
        type=_seconds,
        metavar="SECONDS",
        help="how long the training may take to reach a boundary (30)",
    )
    add_json(parser)


async def execute(options: argparse.Namespace) -> int:
    """Controls."""
    from rdev.client.connection import connect
    from rdev.client.lookup import find_job
    from rdev.protocol.errors import RdevError, UsageError

    job_word, name, rest = _split(options.words)
    if options.when is not None and name != "pause":
        raise UsageError("run ctl", f"--when belongs to pause, not to {name}")
    _arguments(name, rest, options.when)  # what is wrong is said before anybody is asked
    async with connect(host_of(options)) as connection:
        job = await find_job(connection, job_word)
        try:
            return await _done(connection, job, name, rest, options)
        except RdevError as error:
            error.hint = error.hint and error.hint.replace("JOB", job.name)
            raise


async def _done(
    connection: Connection, job: Job, name: str, rest: Sequence[str], options: argparse.Namespace
) -> int:
    if name == "why":
        return await _why(connection, job, as_json=options.json)
    if name in ("watch", "unwatch"):
        return await _watch(connection, job, armed=name == "watch", as_json=options.json)
    return await _control(connection, job, name, rest, options)


def _split(words: Sequence[str]) -> tuple[str, str, Sequence[str]]:
    from rdev.protocol.errors import UsageError

    job, rest = ("", words) if words[0] in _WORDS else (words[0], words[1:])
    verbs = ", ".join(_WORDS)
    if not rest:
        raise UsageError("run ctl", f"{job!r} is followed by no verb", hint=f"one of {verbs}")
    name, *arguments = rest
    if name not in _WORDS:
        raise UsageError("run ctl", f"{name!r} is no verb of ctl", hint=f"one of {verbs}")
    least, most = _WORDS[name]
    if not least <= len(arguments) <= most:
        if least == most:
            count = f"{least} word" if most else "nothing"
        else:
            count = "one word or more" if least else "one word at most"
        raise UsageError("run ctl", f"{name} takes {count} after it")
    return job, name, arguments


def _arguments(
    name: str, rest: Sequence[str], when: str | None
) -> list[tuple[Verb, dict[str, Any]]]:
    """The requests that were typed; `set` may be several."""
    from rdev.protocol.errors import UsageError
    from rdev.wire.control import Verb

    if name == "set":
        return [(Verb.SET, dict(zip(("path", "value"), _pair(word), strict=True))) for word in rest]
    if name in ("why", "watch", "unwatch"):
        return []
    args: dict[str, Any] = {}
    if name == "pause" and when:
        args = {"when": when}
    elif name == "step":
        text = rest[0] if rest else "1"
        if not text.isdecimal() or not int(text):
            raise UsageError("run ctl", f"step takes a number of steps from 1 on, not {text!r}")
        args = {"steps": int(text)}
    elif name == "checkpoint" and rest:
        args = {"path": rest[0]}
    elif name == "reload":
        args = {"module": rest[0]}
    return [(Verb(name), args)]


def _pair(word: str) -> tuple[str, Any]:
    import ast
    import json

    from rdev.protocol.errors import UsageError

    path, equals, text = word.partition("=")
    if not equals or not path:
        raise UsageError("run ctl", f"set takes K=V, not {word!r}", hint="such as `set lr=0.01`")
    for read in (json.loads, ast.literal_eval):  # `true`, and what Python says: `.001`, `True`
        try:
            value = read(text)
            json.dumps(value)  # it says more than can be sent, such as a set
        except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
            continue
        return path, value
    return path, text


async def _control(
    connection: Connection, job: Job, name: str, rest: Sequence[str], options: argparse.Namespace
) -> int:
    import asyncio

    from rdev.client.control import Control
    from rdev.client.identity import owner

    control = Control(connection, by=await asyncio.to_thread(owner))
    if name == "reload":
        await _bring(connection, job)
    for verb, args in _arguments(name, rest, options.when):
        outcomes = await control.ask(job.id, verb, args, patience=options.patience)
        _show(outcomes, verb, args, as_json=options.json)
        _refuse(job, verb, outcomes)
    return 0


async def _bring(connection: Connection, job: Job) -> None:
    """Brings what was edited to the host, if this is the workspace that the job runs in."""
    import os

    from rdev.client.sync.root import find_workspace
    from rdev.client.workspaces import sync_workspace
    from rdev.protocol.errors import WorkspaceRefused

    try:
        workspace = find_workspace(os.getcwd())
    except WorkspaceRefused:  # asked for from elsewhere: what is there is taken
        return
    if workspace.id == job.spec.workspace_id:
        await sync_workspace(connection, workspace, confirm=None)


def _show(
    outcomes: Sequence[Outcome], verb: Verb, args: Mapping[str, Any], *, as_json: bool
) -> None:
    import json
    from dataclasses import asdict

    from rdev.client.ui.control import lines_of

    if as_json:
        print(json.dumps([asdict(outcome) for outcome in outcomes]))
        return
    for line in lines_of(outcomes, verb, args):
        print(line)


def _refuse(job: Job, verb: Verb, outcomes: Sequence[Outcome]) -> None:
    from rdev.protocol.errors import JobConflict

    refused = [outcome for outcome in outcomes if outcome.cause]
    if refused:
        where = f"rank {refused[0].rank}: " if len(outcomes) > 1 else ""
        raise JobConflict(
            f"{verb.value} {job.name}",
            f"{where}{refused[0].cause}",
            hint="`rdev ctl JOB state` shows the objects and where it is",
        )


async def _why(connection: Connection, job: Job, *, as_json: bool) -> int:
    import json
    from dataclasses import asdict

    from rdev.client.control import Control
    from rdev.client.ui.control import explanation

    found = await Control(connection).explain(job.id)
    print(json.dumps(asdict(found)) if as_json else explanation(found, job))
    return 0


async def _watch(connection: Connection, job: Job, *, armed: bool, as_json: bool) -> int:
    import json

    from rdev.client.control import Control

    ranks = await Control(connection).set_probe(job.id, armed=armed)
    if as_json:
        print(json.dumps({"armed": armed, "ranks": list(ranks)}))
        return 0
    what = "its steps are counted from now on" if armed else "nothing of it is watched any more"
    print(what if len(ranks) <= 1 else f"{what}, in {len(ranks)} ranks")
    return 0


def _seconds(text: str) -> float:
    seconds = float(text)
    if not 0 < seconds < float("inf"):
        raise argparse.ArgumentTypeError("a number of seconds beyond 0")
    return seconds
