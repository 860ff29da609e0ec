"""Make a folder a workspace: write an rdev.toml that says so, and says what can be configured."""

from __future__ import annotations

import argparse
import os

_TEMPLATE = """\
# rdev finds the root of your workspace by this file; every key is optional.

# host = "local"            # where jobs run without -H
# python = ""               # interpreter for scripts; by default the host chooses
# timeout = 3600            # seconds after which a job is stopped
# grace = 10                # seconds between TERM and KILL when a job is stopped
# retries = 0               # how often a job is started again after a failure
# keep_children = false     # spare what a job leaves behind when it ends by itself
# log_full = "drop"         # when its output cannot be kept: "drop", "block" or "stop"

# [env]                     # the environment of the host that jobs run in
# name = "vision"           # conda's or a virtual one, or its folder; by default the host looks
# prelude = "module load cuda/12.4"
# manage = true             # let rdev make it from uv.lock, pylock.toml or requirements.txt

# [environment]             # variables for every job
# OMP_NUM_THREADS = "4"

# [workspace]
# id = "my-project"         # meets the same workspace from every clone
# path = "~/my-project"     # its folder on the host; one that exists is adopted
# links = {data = "/datasets/x"}    # links that the host makes in that folder
"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the options."""
    parser.add_argument("folder", nargs="?", default=".", help="the folder; here by default")


async def execute(options: argparse.Namespace) -> int:
    """Writes the file."""
    path = _write(options.folder)
    print(f"made {path}; `rdev run SCRIPT` starts a job from here")
    return 0


def _write(folder: str) -> str:
    from rdev.client.sync.root import refuse_unsafe_root
    from rdev.protocol.errors import UsageError

    root = os.path.realpath(folder)
    refuse_unsafe_root(root)
    path = os.path.join(root, "rdev.toml")
    try:
        with open(path, "x", encoding="utf-8") as file:
            file.write(_TEMPLATE)
    except FileExistsError:
        hint = "edit it; docs/configuration.md explains it"
        raise UsageError("make the workspace", f"{path} exists", hint=hint) from None
    return path
