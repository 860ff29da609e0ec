"""Whose a job is, where several people share a login: theirs is not ended or typed into unasked.

Nothing here is a boundary, for one login is one domain of trust; it spares people mistakes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from rdev.client.identity import owner
from rdev.client.ui.escapes import one_line
from rdev.protocol.errors import NotOwner
from rdev.wire.job import Job


def is_ours(job: Job) -> bool:
    """True if we started the job, or nobody knows who did.

    Raises:
        ConfigError: The user's configuration cannot be read.
    """
    return not job.spec.owner or job.spec.owner == owner()


async def require_ours(
    job: Job, verb: str, *, confirm: Callable[[str], bool] | None, hint: str | None = None
) -> None:
    """Returns if the job is ours, or if the person says that another's is meant.

    Args:
        job: The job.
        verb: What is about to happen to it, such as `stop`.
        confirm: Asks the person; None when there is nobody to ask.
        hint: What to do instead.

    Raises:
        NotOwner: It is somebody else's.
    """
    if is_ours(job):
        return
    theirs = one_line(job.spec.owner)
    question = f"{job.name} is a job of {theirs}; {verb} it all the same?"
    if confirm is not None and await asyncio.to_thread(confirm, question):
        return
    raise NotOwner(f"{verb} {job.name}", f"it is a job of {theirs}", hint=hint)
