"""Sync the workspace, start a job from it, stream its output, and pass on its exit code.

    rdev run [options] SCRIPT [args...]      a file of the workspace, by the job's Python
    rdev run [options] -m MODULE [args...]   an importable module, as python -m does
    rdev run [options] -- COMMAND [args...]  any program on the job's PATH

After SCRIPT everything belongs to the script. Exit code: the job's own; 128 + N when signal N
killed it; 124 when --timeout ended it; 137 when memory ran out; 125 and up are else rdev's own
(see docs/commands.md). With --retries it is the last attempt's.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from rdev.client.cli.options import (
    add_detach_keys,
    add_environment,
    add_host,
    add_input,
    add_prefix,
    add_terminal,
    add_yes,
    confirm_of,
    gpu_request,
    processes,
    retries,
    seconds,
    stop_condition,
    stops_at,
)

if TYPE_CHECKING:
    from rdev.client.config import Config
    from rdev.client.connection import Connection
    from rdev.client.launch import Launch
    from rdev.client.sync.receipt import Receipt
    from rdev.client.sync.root import Workspace
    from rdev.wire.job import Job

# Our options that take the next word; `split_command` steps over both.
_WITH_VALUE = frozenset(
    (
        "--transport",
        *("-H", "--host", "--name", "-e", "--set", "--env", "--env-file", "--timeout", "--grace"),
        *("--python", "--nproc", "--gpus", "--retries", "--log-full", "--detach-keys", "--on"),
    )
)


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the options."""
    add_host(parser)
    parser.usage = (
        "rdev run [options] SCRIPT [args...] | -m MODULE [args...] | -- COMMAND [args...]"
    )
    parser.add_argument("-d", "--detach", action="store_true", help="start it and return at once")
    parser.add_argument("--name", default="", help="a name for the job")
    parser.add_argument(
        "-e", "--set", action="append", default=[], metavar="K=V", help="set a variable for the job"
    )
    parser.add_argument(
        "--env-file", metavar="FILE", help="set the variables of a file of K=V lines"
    )
    parser.add_argument(
        "--timeout", type=seconds, metavar="SECONDS", help="stop the job after this long; exit 124"
    )
    parser.add_argument(
        "--grace", type=seconds, metavar="SECONDS", help="time between TERM and KILL at a stop"
    )
    add_environment(parser)
    _add_resources(parser)
    parser.add_argument("--no-sync", action="store_true", help="run what the host already has")
    parser.add_argument("--no-hook", action="store_true", help="plant no debug hook in the job")
    parser.add_argument(
        "--debug",
        action="store_true",
        help="wait before the first line until a debugger is attached, at most a minute",
    )
    parser.add_argument(
        "--on",
        type=stop_condition,
        action="append",
        default=[],
        metavar="exception|nan|step=N",
        help="wait for a debugger at an exception that nothing catches, at a loss or gradient that"
        " is not finite, or before a step",
    )
    add_terminal(parser)
    add_detach_keys(parser)
    add_input(parser)
    add_prefix(parser)
    add_yes(parser)
    parser.add_argument(
        "-q", "--quiet", action="store_true", help="say nothing of our own but errors"
    )
    parser.add_argument("--json", action="store_true", help="with -d: print the job as JSON")


def _add_resources(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--nproc",
        type=processes,
        default=0,
        metavar="N",
        help="start N ranks by torchrun, or with `gpu` one for each GPU",
    )
    parser.add_argument(
        "--gpus",
        type=gpu_request,
        metavar="N|0,1|all",
        help="so many GPUs for the job alone, these (`0,` is one), or all; it waits for them",
    )
    parser.add_argument(
        "--retries", type=retries, metavar="N", help="start it again after a failure, N times"
    )
    parser.add_argument(
        "--keep-children",
        action="store_true",
        default=None,
        help="spare processes that it leaves behind when it ends by itself",
    )
    parser.add_argument(
        "--log-full",
        choices=("drop", "block", "stop"),
        help="when its output cannot be kept: drop and count it, let it wait, or stop it (125)",
    )


def parse(parser: argparse.ArgumentParser, words: list[str]) -> argparse.Namespace:
    """Parses our options up to the command, which is left untouched."""
    from rdev.client.command import split_command

    if {"-h", "--help"} & set(words[:1]):
        parser.parse_args(words)
    ours, command = split_command(words, with_value=_WITH_VALUE)
    options = parser.parse_args(ours)
    if options.no_hook and (options.debug or options.on):
        parser.error("--debug and --on need the hook that --no-hook leaves out")
    if options.json and not options.detach:
        parser.error("--json goes with --detach: otherwise stdout is the job's")
    options.command = command
    return options


async def execute(options: argparse.Namespace) -> int:
    """Runs."""
    from rdev.protocol.polling import poll_directly

    poll_directly()
    from rdev.client.cli.attending import attend, output_of, source_of
    from rdev.client.cli.narrating import explain_end, outlived
    from rdev.client.connection import connect
    from rdev.client.launch import launch
    from rdev.client.ui.output import say

    workspace = _workspace(options)
    request = _request(options, workspace)

    def on_synced(receipt: Receipt) -> None:
        for line in receipt.lines if receipt.problems or not options.quiet else ():
            say(line)

    async with connect(request.settings.host) as connection:
        job = await launch(
            connection,
            workspace,
            request,
            on_synced=on_synced,
            confirm=confirm_of(options),
            tell=_silent if options.quiet else say,
        )
        if options.detach:
            return await _detach(connection, job, options)
        source = source_of(options) if job.spec.stdin else None
        shown = output_of(job, prefix=options.prefix, is_quiet=options.quiet)
        async with outlived(connection, job), shown as output:
            keys = options.detach_keys
            code = await attend(connection, job, output, source=source, detach_keys=keys)
        if code and not options.quiet:
            await explain_end(connection, job)
        return code


def _silent(_line: str) -> None:
    """Says nothing."""


async def _detach(connection: Connection, job: Job, options: argparse.Namespace) -> int:
    """Says which job it is, once it has begun or waits for its turn."""
    import json

    from rdev.client.cli.narrating import outlived
    from rdev.client.follow import exit_code
    from rdev.client.jobs import Jobs
    from rdev.client.ui.escapes import one_line
    from rdev.client.ui.jobs import as_json, closing_line
    from rdev.client.ui.output import say
    from rdev.wire.job import JobState, Reason

    async with outlived(connection, job):
        job = await Jobs(connection).until_started(job.id)
    print(json.dumps(as_json(job)) if options.json else f"{job.name} {job.id}")
    if job.state is JobState.PENDING and not options.quiet:
        say(f"{job.name} waits: {one_line(job.message)}")
    if job.reason is not Reason.START_FAILED:
        return 0
    say(closing_line(job))
    return exit_code(job)


def _workspace(options: argparse.Namespace) -> Workspace:
    import os

    from rdev.client.launch import require_script
    from rdev.client.sync.root import find_workspace, workspace_for_script
    from rdev.wire.job import CommandKind

    command = options.command
    if command.kind is not CommandKind.SCRIPT:
        return find_workspace(os.getcwd())
    require_script(command.target)
    return workspace_for_script(command.target, os.getcwd())


def _request(options: argparse.Namespace, workspace: Workspace) -> Launch:
    import os
    import sys

    from rdev.client.cli.attending import source_of, terminal_of
    from rdev.client.cli.main import VERBS
    from rdev.client.launch import (
        Launch,
        environment_from,
        require_name,
        require_text,
        script_path,
    )

    # What is wrong is said before anything is sent.
    script_path(options.command, workspace)
    require_name(options.name, forbidden=VERBS)
    require_text(sys.argv[1:], os.getcwd())
    return Launch(
        command=options.command,
        settings=_settings(options, workspace.root),
        name=options.name,
        environment=environment_from(options.set, options.env_file),
        hook=not options.no_hook,
        sync=not options.no_sync,
        terminal=terminal_of(options, needs_ours=not options.detach),
        stdin=options.stdin or (not options.detach and source_of(options) is not None),
        processes=options.nproc,
        gpus=options.gpus,
        debug=stops_at(options.on, at_start=options.debug),
    )


def _settings(options: argparse.Namespace, root: str) -> Config:
    """The configuration, and over it what the command line says."""
    from dataclasses import replace

    from rdev.client import config

    flags = ("host", "timeout", "grace", "retries", "keep_children", "log_full")
    given = {name: getattr(options, name) for name in flags}
    chosen = {name: value for name, value in given.items() if value is not None}
    settings = config.load(root).with_environment(python=options.python, env=options.env)
    return replace(settings, **chosen)
