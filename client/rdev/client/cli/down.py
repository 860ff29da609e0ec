"""Leave a host: end the connection that stands ready for the next command; jobs there go on.

HOST `local` is this machine: there the session ends, the process in the background that later
commands are run by, for whichever host.

--agent ends rdev's background process there too. --purge removes all that rdev ever wrote there and
forgets the host; that is refused while jobs live there, or files that no laptop has would be lost.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import TYPE_CHECKING

from rdev.client.cli.options import add_json

if TYPE_CHECKING:
    from rdev.client.leaving import Left, Wanted


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the options."""
    parser.add_argument("host", metavar="HOST", nargs="?", default="")
    parser.add_argument("-H", "--host", dest="other", metavar="HOST", help="the same as HOST")
    parser.add_argument("--agent", action="store_true", help="end the agent too; jobs go on")
    parser.add_argument("--purge", action="store_true", help="remove all of rdev there")
    parser.add_argument(
        "--discard-outputs",
        action="store_true",
        help="with --purge: files that jobs made and no laptop has go too",
    )
    add_json(parser)


async def execute(options: argparse.Namespace) -> int:
    """Leaves the host and prints what that was."""
    from rdev.client.leaving import Wanted, leave
    from rdev.client.narration import narrator
    from rdev.protocol.errors import UsageError

    if options.discard_outputs and not options.purge:
        raise UsageError("discard outputs", "nothing is to be removed", hint="say --purge too")
    host = _host(options)
    wanted = Wanted(options.agent, options.purge, options.discard_outputs)
    left = await leave(host, wanted, narrate=narrator.get())
    if options.json:
        import json

        print(json.dumps(_described(host, left), indent=2))
        return 0
    from rdev.client.ui.escapes import one_line  # a host's words are in it

    for line in _lines(host, wanted, left):
        print(one_line(line))
    return 0


def _host(options: argparse.Namespace) -> str:
    from rdev.client.cli.options import host_of

    return options.host or options.other or host_of(options)


def _described(host: str, left: Left) -> dict[str, object]:
    return {
        "host": host,
        "was_known": left.was_known,
        "was_connected": left.was_connected,
        "stopped_agent": left.agent,
        "removed": list(left.paths),
        "size": left.size,
        "kept": left.kept,
    }


def _lines(host: str, wanted: Wanted, left: Left) -> Iterator[str]:
    from rdev.client.hosts import LOCAL

    if not left.was_known:
        yield f"{host} was never contacted from here; there is nothing to leave"
    elif wanted.purge:
        yield from _purged(host, left)
    elif wanted.agent:
        which = "no agent ran there" if left.agent is None else f"agent {left.agent} stopped"
        yield f"{host}: {which}; its jobs go on"
    else:
        was = "disconnected" if left.was_connected else "no connection was open"
        if host == LOCAL:
            was = "session ended" if left.was_connected else "no session ran"
        yield f"{host}: {was}; its jobs go on"


def _purged(host: str, left: Left) -> Iterator[str]:
    from rdev.client.ui.sizes import human_size

    for path in left.paths:
        yield f"{host}: removed {path}"
    if left.kept:
        yield f"{host}: kept {left.kept}"
    freed = f"{human_size(left.size)} freed" if left.paths else "nothing of rdev was there"
    yield f"{host}: {freed}; nothing of it is known here any more"
