"""List hosts, give one a name and ways of its own, choose the usual one, or forget one.

Any name that `ssh` knows is a host without being added here.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from rdev.client.cli.options import add_json

if TYPE_CHECKING:
    from rdev.client.entries import Entry
    from rdev.client.known import KnownHost


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds what can be done, and its options."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    listing = actions.add_parser("ls", help="list hosts")
    add_json(listing)
    adding = actions.add_parser("add", help="give a host a name", allow_abbrev=False)
    adding.add_argument("name", metavar="NAME", help="what -H is given then")
    adding.add_argument("ssh", nargs="?", default="", metavar="[USER@]HOST", help="for `ssh`")
    adding.add_argument("--home", default="", metavar="DIR", help="rdev's folder there")
    adding.add_argument(
        "--bootstrap-python", default="", metavar="PATH", help="the Python that the agent runs by"
    )
    adding.add_argument("--transport", default="", choices=("openssh", "paramiko"))
    using = actions.add_parser("use", help="use a host without -H from now on")
    using.add_argument("name", metavar="NAME")
    removing = actions.add_parser("rm", help="forget a host; nothing there is touched")
    removing.add_argument("name", metavar="NAME")


async def execute(options: argparse.Namespace) -> int:
    """Does it."""
    actions = {"ls": _list, "add": _add, "use": _use, "rm": _remove}
    return actions[options.action](options)


def _add(options: argparse.Namespace) -> int:
    from rdev.client import entries, known

    entry = entries.Entry(
        options.name,
        ssh=options.ssh,
        home=options.home,
        python=options.bootstrap_python,
        transport=options.transport,
    )
    entries.add(entry)
    known.forget(entry.name)  # where it leads, and where rdev lies there, may be another
    print(f"added {entry.name}; `rdev up {entry.name}` makes it ready")
    return 0


def _use(options: argparse.Namespace) -> int:
    from rdev.client import entries

    entries.use(options.name)
    print(f"verbs without -H act on {options.name} now")
    return 0


def _remove(options: argparse.Namespace) -> int:
    from rdev.client import entries, known
    from rdev.protocol.errors import NotFound

    was_entry = entries.remove(options.name)
    if not (known.forget(options.name) or was_entry):
        hint = "`rdev host ls` lists those that are known"
        raise NotFound(f"forget the host {options.name!r}", "nothing is known of it", hint=hint)
    print(f"forgot {options.name}; what is there stays")
    return 0


def _list(options: argparse.Namespace) -> int:
    from rdev.client import entries, known

    written = {entry.name: entry for entry in entries.entries()}
    met = {host.host: host for host in known.known_hosts()}
    usual = entries.default_host() or "local"
    rows = [
        _row(name, written.get(name), met.get(name), is_usual=name == usual)
        for name in sorted({"local", usual, *written, *met})
    ]
    if options.json:
        import json

        print(json.dumps(rows, indent=2))
    else:
        width = max(16, *(len(str(row["name"])) for row in rows))
        print("\n".join(_line(row, width) for row in rows))
    return 0


def _row(
    name: str, entry: Entry | None, host: KnownHost | None, *, is_usual: bool
) -> dict[str, str | bool]:
    return {
        "name": name,
        "usual": is_usual,
        "ssh": entry.ssh if entry else "",
        "transport": (entry.transport if entry else "") or (host.transport if host else ""),
        "home": host.home if host else (entry.home if entry else ""),
        "release": host.release if host else "",
        "machine": host.uname if host else "",
    }


def _line(row: dict[str, str | bool], width: int) -> str:
    from rdev.client.ui.escapes import one_line  # a host's words may be in it

    mark = "*" if row["usual"] else " "
    words = [str(row[key]) for key in ("ssh", "transport", "machine", "release", "home")]
    if row["name"] == "local":
        words = ["this machine"]
    elif not row["release"]:
        words.append("not met yet")
    return one_line(f"{mark} {row['name']:<{width}} {'  '.join(word for word in words if word)}")
