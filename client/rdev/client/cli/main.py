"""The `rdev` command: finds the verb, runs it, and says in one line what went wrong.

Only what the verb needs is imported; `rdev --help` imports nothing of ours but this module.
"""

from __future__ import annotations

import sys

# Type checkers know this name; importing it from `typing` would cost `rdev --help` 3 ms.
TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from types import ModuleType

    from rdev.protocol.errors import RdevError


class Verb:
    """One verb.

    Args:
        usage: What comes after the name, for the overview.
        summary: One line for people.
        passes_code: Its exit code is the job's own, and rdev's errors stay out of that range.
    """

    __slots__ = ("passes_code", "summary", "usage")

    def __init__(self, usage: str, summary: str, *, passes_code: bool = False) -> None:
        self.usage = usage
        self.summary = summary
        self.passes_code = passes_code


VERBS = {
    "run": Verb(
        "[opts] SCRIPT [args] | -m MODULE | -- CMD",
        "sync, start a job, stream it",
        passes_code=True,
    ),
    "ps": Verb("[-a]", "list jobs"),
    "logs": Verb("[JOB] [-f]", "show what a job printed"),
    "attach": Verb("[JOB]", "return to a running job", passes_code=True),
    "wait": Verb("[JOB]", "wait for a job's end", passes_code=True),
    "stop": Verb("[JOB] [--now]", "end a job"),
    "shell": Verb("[HOST]", "open a login shell on a host", passes_code=True),
    "exec": Verb("JOB|HOST -- CMD", "run a command beside a job", passes_code=True),
    "debug": Verb(
        "[JOB|SCRIPT] [FILE:LINE ...]", "put a breakpoint into a running job", passes_code=True
    ),
    "dap": Verb("[JOB]", "serve an editor as its debug adapter, on stdin and stdout"),
    "stack": Verb("[JOB] [--native]", "show what a job's threads do, and stop nothing"),
    "ctl": Verb(
        "[JOB] pause|resume|step N|stop|set K=V|...",
        "control a training, or ask why it stands still",
    ),
    "metrics": Verb("[JOB] [--plot]", "show a job's metrics"),
    "events": Verb("[JOB] [-f]", "show what a job reported"),
    "rm": Verb("JOB ...", "remove ended jobs and their logs"),
    "sync": Verb("[flush|status|why PATH] [--watch]", "bring the host's copy up to date"),
    "up": Verb("HOST", "make a host ready, and say who answers there"),
    "down": Verb("HOST [--agent] [--purge]", "leave a host, or take rdev off it; jobs go on"),
    "host": Verb("add|ls|use|rm", "name hosts, choose the usual one, forget one"),
    "env": Verb("[ls|show|sync]", "the environments of a host, and which one a job gets"),
    "init": Verb("", "make a folder a workspace"),
    "doctor": Verb("[HOST]", "check the laptop, a host, and the way there"),
    "version": Verb("", "say which releases run"),
}

# Whoever interrupts these before there is a job wants to know that there is none.
_STARTING = frozenset({"run", "exec", "shell"})

# Verbs that a session may run. The others are rare, and may ask at the terminal or prepare a host.
_BY_SESSION = frozenset(
    (
        *("run", "ps", "logs", "attach", "wait", "stop", "shell", "exec", "metrics", "events"),
        "ctl",
        *("rm", "sync", "env", "version"),
    )
)

# What a shell reports for a command that SIGPIPE ended, as when `head` has read enough.
_EXIT_PIPE = 141


def main(arguments: list[str] | None = None) -> int:
    """Runs one command line.

    Args:
        arguments: Words after `rdev`; the process's own by default.

    Returns:
        The exit code.
    """
    are_whole = _prepare_streams()
    words = sys.argv[1:] if arguments is None else arguments
    if words[:1] == ["help"] and len(words) > 1:
        words = [words[1], "--help"]
    if not words or words[0] in ("-h", "--help", "help"):
        print(overview())
        return 0 if words else 2
    if words[0] in ("-V", "--version"):
        words = ["version"]
    name, rest = words[0], words[1:]
    if name not in VERBS:
        _tell(
            f"error: unable to run rdev: {name!r} is no verb\nhint: `rdev --help` lists the verbs"
        )
        return 2
    if arguments is None and are_whole and name in _BY_SESSION:
        code = _by_session(name)
        if code is not None:
            import os

            os._exit(code)  # the interpreter takes 2 ms to tidy up, and nothing is untidy
    return _run(name, rest)


def _by_session(name: str) -> int | None:
    """The exit code of a command that the session has run; None if it is to be run here.

    What it says itself goes to stderr, which is not buffered.
    """
    try:
        from rdev.client.session.front import Lost, run

        try:
            return run(sys.argv)
        except Lost:
            from rdev.protocol.errors import ConnectionLost

            hint = "a job goes on without it; `rdev ps -a` shows them"
            cause = "the process that ran it was ended"
            return _fail(name, None, ConnectionLost(f"finish `rdev {name}`", cause, hint=hint))
    except KeyboardInterrupt:
        return interrupted(name)


def _prepare_streams() -> bool:
    """Makes the standard streams usable; False if one was closed when we were started."""
    import os

    are_whole = True

    # A closed stdout's number would be given to the next file or socket opened, and a job's output
    # be written there.
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            are_whole = False
            os.open(os.devnull, os.O_RDWR)
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:  # a person's locale must not make a name unprintable
            stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]  # a text file
    return are_whole


def overview() -> str:
    """What `rdev --help` prints."""
    width = max(len(name) + len(verb.usage) for name, verb in VERBS.items()) + 3
    lines = [
        "usage: rdev VERB [options]",
        "",
        "Remote development and debugging for people who train neural networks.",
        "",
    ]
    for name, verb in VERBS.items():
        lines.append(f"  {f'{name} {verb.usage}':<{width}}{verb.summary}")
    lines += [
        "",
        "`-H HOST` after a verb acts on any host of ~/.ssh/config; without it, on this machine.",
        "`rdev VERB --help` says more. JOB is a name, an id, or `@-1`; the latest if absent.",
    ]
    return "\n".join(lines)


# Made once: a session makes them all before there is a command.
_parsers: dict[str, tuple[ModuleType, argparse.ArgumentParser]] = {}


def parser_for(name: str) -> tuple[ModuleType, argparse.ArgumentParser]:
    """The module of a verb, and its configured parser."""
    if name not in _parsers:
        _parsers[name] = _make_parser(name)
    return _parsers[name]


def _make_parser(name: str) -> tuple[ModuleType, argparse.ArgumentParser]:
    import argparse
    import importlib

    module = importlib.import_module(f"rdev.client.cli.{name.replace('-', '_')}")
    parser = argparse.ArgumentParser(
        prog=f"rdev {name}",
        description=(module.__doc__ or "").strip(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,  # a later release's options must not change what a short one means
    )
    parser.add_argument("-v", "--verbose", action="store_true", help="say more when it fails")
    module.configure(parser)
    return module, parser


def _run(name: str, words: list[str]) -> int:
    options: argparse.Namespace | None = None
    try:
        _require_folder()
        module, parser = parser_for(name)
        parse = getattr(module, "parse", None)
        options = parse(parser, words) if parse else parser.parse_args(words)
        if getattr(options, "stdin", False) and sys.stdin and sys.stdin.isatty():
            from rdev.client.session.foreground import require_own_terminal

            require_own_terminal()  # nobody would stop a worker that reads behind the shell's back
        import asyncio

        _narrate(options)
        code = int(asyncio.run(module.execute(options)))
        # A disk that is full shows now, or never. Not by a `print` of nothing, which still writes,
        # and would wait for a terminal that takes nothing.
        if sys.stdout is not None:
            sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        return _fail(name, options, _interrupted(name))
    except Exception as error:  # noqa: BLE001  # the edge: a person never sees a traceback
        cause = _sole(error)
        return _reader_left() if isinstance(cause, BrokenPipeError) else _fail(name, options, cause)


def _narrate(options: argparse.Namespace) -> None:
    if getattr(options, "quiet", False):
        return
    from rdev.client.narration import narrator

    narrator.set(_say)


def _say(line: str) -> None:
    from rdev.client.ui.escapes import one_line

    _tell(f"rdev: {one_line(line)}")


def _require_folder() -> None:
    import os

    try:
        os.getcwd()
    except FileNotFoundError:
        from rdev.protocol.errors import UsageError

        hint = "go to a folder that exists"
        raise UsageError("run here", "the current folder was removed", hint=hint) from None


def interrupted(name: str) -> int:
    """Says that a verb was interrupted before it knew what to do then; returns the exit code."""
    return _fail(name, None, _interrupted(name))


def _interrupted(name: str) -> RdevError:
    if sys.stderr is not None and sys.stderr.isatty() and sys.stdin and sys.stdin.isatty():
        _tell("")  # the terminal has written `^C` on this line

    from rdev.protocol.errors import Interrupted

    hint = None if name in _STARTING else "jobs are not touched by this"
    return Interrupted(f"finish `rdev {name}`", "it was interrupted", hint=hint)


def _sole(error: Exception) -> Exception:
    # A TaskGroup wraps even a single failure.
    while isinstance(error, ExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error


def _reader_left() -> int:
    _flush_nowhere()
    return _EXIT_PIPE


def _flush_nowhere() -> None:
    # The interpreter flushes stdout once more at exit, and would complain.
    import os

    if sys.stdout is not None:  # it is, if it was closed when we were started
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _fail(name: str, options: argparse.Namespace | None, error: Exception) -> int:
    if getattr(options, "verbose", False):
        import traceback

        _tell("".join(traceback.format_exception(error)).rstrip())
    known = _known(name, error)
    known.hint = known.hint.replace("rdev VERB", f"rdev {name}")
    if host := getattr(options, "host", None):
        from rdev.client.hosts import aimed

        known.hint = aimed(known.hint, host)
    code = known.exit_code if VERBS[name].passes_code else known.verb_exit_code
    if getattr(options, "json", False):
        import json

        body = {"code": code, "reason": known.reason, "message": known.message, "hint": known.hint}
        _tell(json.dumps({"error": body}))
    else:
        from rdev.client.ui.escapes import one_line

        # A host's words, and a file's name, may be in them.
        _tell(f"error: {one_line(known.message)}\nhint: {one_line(known.hint)}")
    return code


def _tell(text: str) -> None:
    from rdev.client.ui.telling import tell

    tell(f"{text}\n".encode(errors="backslashreplace"))


def _known(name: str, error: Exception) -> RdevError:
    from rdev.protocol.errors import (
        DISK_FULL_ERRNOS,
        InternalError,
        OutputFailed,
        RdevError,
        os_failure,
    )

    if isinstance(error, RdevError):
        return error
    if isinstance(error, OSError) and error.filename is None and error.errno in DISK_FULL_ERRNOS:
        _flush_nowhere()  # what has no name is what we print to
        return OutputFailed("write the output", error.strerror or "")
    if isinstance(error, OSError):
        return os_failure(f"run `rdev {name}`", error)
    cause = f"{type(error).__name__}: {error}"
    hint = "this is a defect in rdev; please report what `-v` prints"
    return InternalError(f"run `rdev {name}`", cause, hint=hint)


if __name__ == "__main__":
    sys.exit(main())
