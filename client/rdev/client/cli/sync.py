"""Bring the host's copy of this workspace up to date, or say how it stands.

    rdev sync                sync now
    rdev sync flush          the same
    rdev sync --watch        sync now, then on every save, until Ctrl-C
    rdev sync status         say what a sync would leave out; send nothing
    rdev sync why PATH       say whether a path travels, and by which rule

Exit code: 0 when all of it travels as it should, 1 when `why` finds that the path does not travel.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from rdev.client.cli.options import add_host, add_json, add_yes, confirm_of, host_of

if TYPE_CHECKING:
    from rdev.client.sync.root import Workspace


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the options."""
    add_host(parser)
    add_json(parser)
    parser.add_argument(
        "action", nargs="?", choices=("flush", "status", "why"), default="flush", help="see above"
    )
    parser.add_argument("path", nargs="?", metavar="PATH", help="for `why`")
    parser.add_argument("-w", "--watch", action="store_true", help="go on syncing on every save")
    add_yes(parser)


async def execute(options: argparse.Namespace) -> int:
    """Syncs or explains."""
    import os

    from rdev.client.sync.root import find_workspace, require_marked
    from rdev.protocol.errors import UsageError

    if (options.action == "why") != (options.path is not None):
        raise UsageError("explain a path", "`rdev sync why` takes one PATH, and nothing else does")
    if options.watch and options.action != "flush":
        raise UsageError("watch the workspace", f"--watch does not go with {options.action}")
    if options.action == "why":
        return _why(options)
    workspace = find_workspace(os.getcwd())
    if options.action == "status":
        return await _status(options, workspace)
    require_marked(workspace)
    if options.watch:
        return await _watch(options, workspace)
    return await _sync(options, workspace)


def _why(options: argparse.Namespace) -> int:
    import json
    import os
    from dataclasses import asdict

    from rdev.client.sync.explain import explain
    from rdev.client.sync.root import find_workspace
    from rdev.protocol.errors import UsageError

    whole = os.path.join(os.path.realpath(os.path.dirname(options.path) or "."), "")
    whole += os.path.basename(options.path)
    workspace = find_workspace(os.getcwd())
    path = os.path.relpath(whole, workspace.root)
    if path == os.curdir or path.startswith(os.pardir):
        raise UsageError(f"explain {options.path}", "it is not inside the workspace")
    fate = explain(workspace.root, path, links=workspace.links)
    print(json.dumps({"path": path, **asdict(fate)}) if options.json else fate.said_of(path))
    return 0 if fate.travels and fate.exists else 1


async def _status(options: argparse.Namespace, workspace: Workspace) -> int:
    import asyncio
    import json

    from rdev.client.sync.receipt import status_json, status_lines
    from rdev.client.sync.scan import Scanner

    scanner = Scanner(workspace.root, confirm=lambda _question: True, links=workspace.links)
    scan = await asyncio.to_thread(scanner.scan)
    if options.json:
        print(json.dumps(status_json(workspace, scan)))
    else:
        print("\n".join(status_lines(workspace, scan)))
    return 0


async def _sync(options: argparse.Namespace, workspace: Workspace) -> int:
    import json

    from rdev.client.connection import connect
    from rdev.client.workspaces import sync_workspace

    async with connect(host_of(options, workspace.root)) as connection:
        receipt = await sync_workspace(connection, workspace, confirm=confirm_of(options))
    print(json.dumps(receipt.as_json()) if options.json else receipt)
    return 0


async def _watch(options: argparse.Namespace, workspace: Workspace) -> int:
    import asyncio
    import contextlib
    import json
    import signal
    import sys

    from rdev.client.connection import connect
    from rdev.client.workspaces import watch_workspace

    def on_trouble(message: str) -> None:
        print(f"rdev: {message}", file=sys.stderr, flush=True)

    async with connect(host_of(options, workspace.root)) as connection:
        receipts = watch_workspace(
            connection, workspace, confirm=confirm_of(options), on_trouble=on_trouble
        )
        with contextlib.suppress(TimeoutError):
            # The scope's end is Ctrl-C, which is how a watch is meant to end.
            async with asyncio.timeout(None) as scope, contextlib.aclosing(receipts):
                loop = asyncio.get_running_loop()

                def end() -> None:
                    if scope.when() is None:
                        scope.reschedule(loop.time())

                loop.add_signal_handler(signal.SIGINT, end)
                async for receipt in receipts:
                    print(json.dumps(receipt.as_json()) if options.json else receipt, flush=True)
    return 0
