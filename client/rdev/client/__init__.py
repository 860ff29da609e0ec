"""The SDK of rdev: connect to a host, sync a workspace, run, follow and debug jobs.

    async with connect("local") as connection:
        workspace = find_workspace("train.py")
        receipt = await sync_workspace(connection, workspace)
        job = await Jobs(connection).create(JobSpec(CommandKind.SCRIPT, "train.py", ...))
        async for item in Logs(connection).tail(job.id, follow=True): ...

Everything is asynchronous, and raises the classes of `rdev.protocol.errors`. Names are imported
when they are first used, because the command line comes through here and must start fast.
"""

from __future__ import annotations

TYPE_CHECKING = False  # known to type checkers by name; typing costs 3 ms

if TYPE_CHECKING:
    from rdev.client.config import Config as Config
    from rdev.client.connection import Connection as Connection
    from rdev.client.connection import connect as connect
    from rdev.client.events import Events as Events
    from rdev.client.follow import Sink as Sink
    from rdev.client.follow import follow as follow
    from rdev.client.input import Input as Input
    from rdev.client.jobs import Jobs as Jobs
    from rdev.client.launch import Launch as Launch
    from rdev.client.launch import launch as launch
    from rdev.client.logs import Chunk as Chunk
    from rdev.client.logs import Gap as Gap
    from rdev.client.logs import Logs as Logs
    from rdev.client.sync.receipt import Receipt as Receipt
    from rdev.client.sync.root import Workspace as Workspace
    from rdev.client.sync.root import find_workspace as find_workspace
    from rdev.client.workspaces import sync_workspace as sync_workspace
    from rdev.protocol.errors import RdevError as RdevError
    from rdev.wire.events import Event as Event
    from rdev.wire.job import CommandKind as CommandKind
    from rdev.wire.job import Job as Job
    from rdev.wire.job import JobSpec as JobSpec
    from rdev.wire.job import JobState as JobState
    from rdev.wire.job import Window as Window

_HOMES = {
    "Chunk": "rdev.client.logs",
    "CommandKind": "rdev.wire.job",
    "Config": "rdev.client.config",
    "Connection": "rdev.client.connection",
    "Event": "rdev.wire.events",
    "Events": "rdev.client.events",
    "Gap": "rdev.client.logs",
    "Input": "rdev.client.input",
    "Job": "rdev.wire.job",
    "JobSpec": "rdev.wire.job",
    "JobState": "rdev.wire.job",
    "Jobs": "rdev.client.jobs",
    "Launch": "rdev.client.launch",
    "Logs": "rdev.client.logs",
    "RdevError": "rdev.protocol.errors",
    "Receipt": "rdev.client.sync.receipt",
    "Sink": "rdev.client.follow",
    "Window": "rdev.wire.job",
    "Workspace": "rdev.client.sync.root",
    "connect": "rdev.client.connection",
    "find_workspace": "rdev.client.sync.root",
    "follow": "rdev.client.follow",
    "launch": "rdev.client.launch",
    "sync_workspace": "rdev.client.workspaces",
}

__all__ = [
    "Chunk",
    "CommandKind",
    "Config",
    "Connection",
    "Event",
    "Events",
    "Gap",
    "Input",
    "Job",
    "JobSpec",
    "JobState",
    "Jobs",
    "Launch",
    "Logs",
    "RdevError",
    "Receipt",
    "Sink",
    "Window",
    "Workspace",
    "connect",
    "find_workspace",
    "follow",
    "launch",
    "sync_workspace",
]


def __getattr__(name: str) -> object:
    """Imports a public name at its first use (PEP 562)."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_HOMES[name]), name)
