"""Say which release of rdev this is; `rdev doctor` says what the agent runs."""

from __future__ import annotations

import argparse

from rdev.client.cli.options import add_json


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the options."""
    add_json(parser)


async def execute(options: argparse.Namespace) -> int:
    """Prints."""
    import importlib.metadata
    import json
    import platform

    release = importlib.metadata.version("rdev")
    python = platform.python_version()
    if options.json:
        print(json.dumps({"rdev": release, "python": python, "platform": platform.platform()}))
    else:
        print(f"rdev {release} (Python {python}, {platform.system()} {platform.machine()})")
    return 0
