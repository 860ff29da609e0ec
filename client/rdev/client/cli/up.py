"""Make a host ready: put rdev there if it is not, start its agent, and say who answers.

HOST is any name that `ssh` knows. Nothing has to be done before, and `rdev run -H HOST` does the
same by itself; `up` is for seeing it done, and for saying how.
"""

from __future__ import annotations

import argparse
import os
from typing import TYPE_CHECKING

from rdev.client.cli.options import add_json

if TYPE_CHECKING:
    from rdev.protocol.convert import AgentInfo


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the options."""
    parser.add_argument("host", metavar="HOST", nargs="?", default="")
    parser.add_argument("-H", "--host", dest="other", metavar="HOST", help="the same as HOST")
    parser.add_argument(
        "--home",
        default="",
        metavar="DIR",
        help="keep all of rdev's there instead of in ~/.rdev; it must be your own alone",
    )
    parser.add_argument(
        "--bootstrap-python",
        default="",
        metavar="PATH|uv",
        help="run the agent by this Python of the host: a path, a command, a conda prefix, or "
        "`uv` to let uv bring one",
    )
    parser.add_argument(
        "--transport",
        default="",
        choices=("openssh", "paramiko"),
        help="how to reach it, from now on; default: the ssh command where there is one",
    )
    parser.add_argument("--again", action="store_true", help="put rdev there anew")
    add_json(parser)


async def execute(options: argparse.Namespace) -> int:
    """Makes it ready and prints who answers."""
    import json

    from rdev.client.bootstrap.contact import Wishes
    from rdev.client.connection import connect

    host = _host(options)
    _choose(options.transport)
    wishes = Wishes(
        home=options.home,
        python=options.bootstrap_python,
        again=options.again or bool(options.bootstrap_python),
    )
    async with connect(host, wishes=wishes) as connection:
        agent = connection.agent
    if options.transport:
        _keep(host, options.transport)
    print(json.dumps(_described(host, agent), indent=2) if options.json else _line(host, agent))
    return 0


def _host(options: argparse.Namespace) -> str:
    from rdev.client.cli.options import host_of

    return options.host or options.other or host_of(options)


def _choose(transport: str) -> None:
    from rdev.client.transport.settings import TRANSPORT_VARIABLE

    if transport:
        os.environ[TRANSPORT_VARIABLE] = transport


def _keep(host: str, transport: str) -> None:
    from dataclasses import replace

    from rdev.client.known import recall, remember

    known = recall(host)
    if known is not None:
        remember(replace(known, transport=transport))


def _described(host: str, agent: AgentInfo) -> dict[str, str | int | list[str]]:
    return {
        "host": host,
        "hostname": agent.hostname,
        "agent_id": agent.agent_id,
        "version": agent.version,
        "pid": agent.pid,
        "python": agent.python_version,
        "home": agent.home,
        "dist": agent.dist,
        "capabilities": sorted(agent.capabilities),
    }


def _line(host: str, agent: AgentInfo) -> str:
    from rdev.client.ui.escapes import one_line

    return one_line(
        f"{host} is up: rdev {agent.version} on {agent.hostname}, Python {agent.python_version}, "
        f"process {agent.pid}, in {agent.home}"
    )
