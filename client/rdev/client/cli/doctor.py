"""Check the laptop, the way to a host, and the host; each finding comes with its remedy.

Exit code: 0 when all is well, 1 when something needs attention.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from rdev.client.cli.options import add_host, add_json, host_of

if TYPE_CHECKING:
    from rdev.protocol.finding import Finding


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the options."""
    add_host(parser)
    parser.add_argument("target", nargs="?", metavar="HOST", help="the same as -H HOST")
    add_json(parser)


async def execute(options: argparse.Namespace) -> int:
    """Checks and prints."""
    import json

    from rdev.client.checkup import check_up

    findings = await check_up(_host(options))
    if options.json:
        print(json.dumps([item.as_json() for item in findings], indent=2))
    else:
        print("\n".join(_line(item) for item in findings))
    return 0 if all(item.ok for item in findings) else 1


def _host(options: argparse.Namespace) -> str:
    from rdev.client.hosts import LOCAL
    from rdev.protocol.errors import ConfigError

    try:
        return options.target or host_of(options)
    except ConfigError:  # a finding of its own
        return LOCAL


def _line(finding: Finding) -> str:
    from rdev.client.ui.escapes import one_line  # a host's words may be in it

    mark = "ok  " if finding.ok else "FAIL"
    line = f"{mark}  {one_line(finding.what)}: {one_line(finding.found)}"
    return line if finding.ok else f"{line}\n      remedy: {one_line(finding.remedy)}"
