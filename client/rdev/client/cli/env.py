"""The environments of a host, and the one that a job from here would run in.

    rdev env ls       those that are found there: conda, venv, managed, and other Pythons
    rdev env show     what a run here would use, why, and which variables that changes
    rdev env sync     sync the workspace and make its environment, or find out again what
                      activating it changes

`[env]` in rdev.toml says which one is meant, see docs/environments.md.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from rdev.client.cli.options import add_environment, add_host, add_json, add_yes, confirm_of

if TYPE_CHECKING:
    from rdev.client.config import Config
    from rdev.client.environments import HostEnvironment, Shown
    from rdev.client.sync.root import Workspace


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the options."""
    add_host(parser)
    add_json(parser)
    parser.add_argument(
        "action", nargs="?", choices=("ls", "show", "sync"), default="ls", help="see above"
    )
    add_environment(parser)
    add_yes(parser)


async def execute(options: argparse.Namespace) -> int:
    """Lists, shows or makes."""
    import os

    from rdev.client.sync.root import find_workspace

    workspace = find_workspace(os.getcwd())
    settings = _settings(options, workspace)
    if options.action == "show":
        return await _show(options, workspace, settings)
    if options.action == "sync":
        return await _sync(options, workspace, settings)
    return await _list(options, workspace, settings)


def _settings(options: argparse.Namespace, workspace: Workspace) -> Config:
    from dataclasses import replace

    from rdev.client import config

    settings = config.load(workspace.root)
    settings = replace(settings, host=options.host or settings.host)
    return settings.with_environment(python=options.python, env=options.env)


async def _list(options: argparse.Namespace, workspace: Workspace, settings: Config) -> int:
    import json

    from rdev.client.connection import connect
    from rdev.client.environments import Environments
    from rdev.protocol.errors import WorkspaceNotFound

    async with connect(settings.host) as connection:
        environments = Environments(connection)
        try:
            found = await environments.list(workspace_id=workspace.id)
        except WorkspaceNotFound:  # it was never synced there
            found = await environments.list()
    if options.json:
        print(json.dumps([each.as_json() for each in found], indent=2))
    else:
        print(_table(found))
    return 0


def _table(found: list[HostEnvironment]) -> str:
    from rdev.client.ui.columns import aligned
    from rdev.client.ui.escapes import one_line

    rows = [("NAME", "KIND", "PYTHON", "TORCH", "PREFIX")]
    rows += [
        (each.name, each.kind, each.version or "-", each.torch or "-", each.prefix)
        for each in found
    ]
    return aligned([[one_line(cell) for cell in row] for row in rows])


async def _show(options: argparse.Namespace, workspace: Workspace, settings: Config) -> int:
    import json

    from rdev.client.connection import connect
    from rdev.client.environments import Environments, wanted
    from rdev.protocol.errors import WorkspaceNotFound

    python, choice = wanted(settings.host, workspace.root, settings)
    async with connect(settings.host) as connection:
        environments = Environments(connection)
        try:
            shown = await environments.show(python, choice, workspace_id=workspace.id)
        except WorkspaceNotFound:
            if choice.managed:  # which one that is, only the workspace says
                raise
            shown = await environments.show(python, choice, workspace_id="")
    print(json.dumps(_shown_json(shown), indent=2) if options.json else _shown_text(shown))
    return 0


def _shown_json(shown: Shown) -> dict[str, object]:
    return {
        "environment": shown.environment.as_json() if shown.environment else None,
        "why": shown.why,
        "variables": shown.variables,
        "removed": list(shown.removed),
    }


def _shown_text(shown: Shown) -> str:
    from rdev.client.ui.escapes import one_line

    found = shown.environment
    if found is None:
        return f"no Python: {shown.why}"
    version = f" {found.version}" if found.version else ""
    lines = [
        found.words,
        f"  python  {found.python or 'none'}{version}",
        f"  torch   {found.torch or 'none'}",
        f"  prefix  {found.prefix}",
        f"  why     {shown.why}",
    ]
    lines += [f"  sets    {name}={value}" for name, value in sorted(shown.variables.items())]
    lines += [f"  drops   {name}" for name in shown.removed]
    return "\n".join(one_line(line) for line in lines)


async def _sync(options: argparse.Namespace, workspace: Workspace, settings: Config) -> int:
    import json

    from rdev.client.connection import connect, persisting
    from rdev.client.environments import Environments, wanted
    from rdev.client.sync.root import require_marked
    from rdev.client.ui.output import say
    from rdev.client.workspaces import sync_workspace

    require_marked(workspace)
    python, choice = wanted(settings.host, workspace.root, settings)
    async with connect(settings.host) as connection:
        await sync_workspace(connection, workspace, confirm=confirm_of(options))
        environments = Environments(connection)
        made = await persisting(
            connection,
            lambda: environments.sync(
                python, choice, workspace_id=workspace.id, tell=say, refresh=True
            ),
        )
    if options.json:
        print(json.dumps(made.as_json() if made else None))
    else:
        print(f"{made.words} at {made.prefix}" if made else "the host has no Python")
    return 0
