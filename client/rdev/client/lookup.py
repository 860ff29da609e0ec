"""Finding the job that a person means."""

from __future__ import annotations

import os

from rdev.client.connection import Connection
from rdev.client.jobs import Jobs
from rdev.client.sync.root import find_workspace
from rdev.protocol.errors import RdevError
from rdev.wire.job import Job


async def find_job(connection: Connection, reference: str) -> Job:
    """The job with this name, id, id prefix or `@-N`, looked for in the current workspace first.

    Args:
        connection: Where to look.
        reference: What was typed; empty means the workspace's latest job.

    Raises:
        JobNotFound: There is none.
    """
    return await Jobs(connection).get(reference, workspace_id=_current_workspace_id())


def _current_workspace_id() -> str:
    # A job is also looked for from a home folder, which may not be a workspace itself.
    try:
        return find_workspace(os.getcwd()).id
    except RdevError:
        return ""
