"""What to run, cut out of a command line: `SCRIPT ...`, `-m MODULE ...` or `-- CMD ...`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rdev.protocol.errors import UsageError
from rdev.wire.job import CommandKind


@dataclass(frozen=True, slots=True)
class Command:
    """What a person asked to run.

    Attributes:
        kind: What `target` is.
        target: Script as typed, module name, or program.
        args: Everything after it, untouched.
    """

    kind: CommandKind
    target: str
    args: tuple[str, ...]


def split_command(
    arguments: Sequence[str], *, with_value: frozenset[str]
) -> tuple[list[str], Command]:
    """Cuts our own options from the command: after SCRIPT everything belongs to the script.

    Args:
        arguments: The command line after the verb.
        with_value: Our options that take a value as their next word.

    Returns:
        Our options, and the command.

    Raises:
        UsageError: There is no command, or its first word is empty.
    """
    index = 0
    while index < len(arguments):
        word = arguments[index]
        if word == "--":
            return list(arguments[:index]), _named(
                CommandKind.PROGRAM, arguments[index + 1 :], "a command is missing after --"
            )
        if word == "-m":
            return list(arguments[:index]), _named(
                CommandKind.MODULE, arguments[index + 1 :], "a module is missing after -m"
            )
        if not word.startswith("-") or word == "-":
            return list(arguments[:index]), _named(CommandKind.SCRIPT, arguments[index:], "")
        index += 2 if word in with_value else 1
    raise UsageError("run", "no script, -m MODULE or -- COMMAND was given")


def _named(kind: CommandKind, words: Sequence[str], missing: str) -> Command:
    if not words:
        raise UsageError("run", missing)
    if not words[0]:  # to a host it would mean a login shell
        raise UsageError("run", "the command is empty")
    return Command(kind, words[0], tuple(words[1:]))
