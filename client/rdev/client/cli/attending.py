"""What a job's terminal and input are joined with: ours, nothing, or what is piped into us."""

from __future__ import annotations

import argparse
import sys

from rdev.client.cli.conversing import converse
from rdev.client.cli.following import OnInterrupt, follow_to_end
from rdev.client.cli.options import confirm_of
from rdev.client.connection import Connection
from rdev.client.ownership import require_ours
from rdev.client.source import Source, is_given
from rdev.client.terminal import window_of
from rdev.client.ui.output import Output, output_for
from rdev.protocol.errors import UsageError
from rdev.wire.job import Job, Window

_STDIN, _STDOUT = 0, 1

# About a screenful of what happened while nobody looked.
_SCROLLBACK_LINES = 40


def has_terminal() -> bool:
    """True if a person sits at both our ends."""
    return sys.stdin.isatty() and sys.stdout.isatty()


def terminal_of(options: argparse.Namespace, *, needs_ours: bool = True) -> Window | None:
    """The terminal that a new job is to have: `-t` gives it one of our window's size.

    Args:
        options: Those of `rdev.client.cli.options.add_terminal`.
        needs_ours: False for a job that nobody watches at first.

    Raises:
        UsageError: There is no terminal here to show it in, or its keys are not to be passed on.
    """
    if not options.tty:
        return None
    if needs_ours and options.no_stdin:
        cause = "--no-stdin keeps from the job what is typed"
        raise UsageError("run in a terminal", cause, hint="leave out -t or --no-stdin")
    if needs_ours and not has_terminal():
        cause = "stdin and stdout are no terminal here"
        raise UsageError("run in a terminal", cause, hint="leave out -t, or detach with -d")
    return window_of(_STDOUT)


def source_of(options: argparse.Namespace) -> Source | None:
    """What a new job without a terminal reads: `-i`, and anything that was connected to our stdin.

    A TTY is for Ctrl-C and questions unless `-i` says otherwise.
    """
    if options.no_stdin or not (options.stdin or is_given(_STDIN)):
        return None
    return Source(_STDIN)


def output_of(job: Job, *, prefix: bool | None = None, is_quiet: bool = False) -> Output:
    """What shows a job's output where our stdout and stderr go.

    Args:
        job: The job.
        prefix: Say of each line which rank wrote it; None means where that helps.
        is_quiet: Nothing of ours is said but errors.
    """
    is_program = job.spec.terminal is not None and has_terminal()
    return output_for(ranks=job.ranks, prefix=prefix, is_program=is_program, is_quiet=is_quiet)


async def attend(
    connection: Connection,
    job: Job,
    output: Output,
    *,
    source: Source | None = None,
    detach_keys: bytes = b"",
) -> int:
    """Follows a job that was just started, to its end or until the person leaves.

    Args:
        connection: Where the job is.
        job: The job.
        output: Shows the output.
        source: What the job reads; None if this is none of ours.
        detach_keys: See `rdev.client.keys.Keys`.

    Returns:
        See `follow_to_end`.
    """
    if job.spec.terminal is not None and has_terminal():
        return await converse(connection, job, output, is_returning=False, detach_keys=detach_keys)
    ask = OnInterrupt.ASK
    return await follow_to_end(connection, job, output, on_interrupt=ask, source=source)


async def return_to(
    connection: Connection, job: Job, output: Output, *, options: argparse.Namespace
) -> int:
    """Follows a job that runs already, beginning with the last of what it printed.

    Args:
        connection: Where the job is.
        job: The job.
        output: Shows the output.
        options: Those of `rdev.client.cli.options.add_input`, `add_detach_keys` and `add_yes`.

    Raises:
        UsageError: Input is to be passed on to a job that takes none.
        NotOwner: It is to be passed on to a job of somebody else.

    Returns:
        See `follow_to_end`.
    """
    if options.stdin and not job.spec.takes_input:
        hint = "only a job that was started with -i or -t takes input"
        raise UsageError(f"pass input on to {job.name}", "it takes none", hint=hint)
    is_joined = job.spec.terminal is not None and has_terminal() and not options.no_stdin
    if is_joined or options.stdin:
        hint = "say --yes if you mean it; --no-stdin only watches"
        await require_ours(job, "type into", confirm=confirm_of(options), hint=hint)
    if is_joined:
        return await converse(
            connection, job, output, is_returning=True, detach_keys=options.detach_keys
        )
    return await follow_to_end(
        connection,
        job,
        output,
        on_interrupt=OnInterrupt.DETACH,
        lines=_SCROLLBACK_LINES,
        source=Source(_STDIN) if options.stdin else None,
    )
