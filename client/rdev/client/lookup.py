"""Finding the job, or the host, that a person means."""

from __future__ import annotations

import contextlib
import os

from rdev.client.connection import Connection
from rdev.client.hosts import LOCAL, endpoint_of, phrase
from rdev.client.jobs import Jobs
from rdev.client.sync.root import find_workspace
from rdev.protocol.errors import JobNotFound, RdevError
from rdev.wire.job import Job

# So many hosts are named to whom looks for a job on this machine.
_MOST_HOSTS = 3


async def find_job(connection: Connection, reference: str) -> Job:
    """The job with this name, id, id prefix or `@-N`, looked for in the current workspace first.

    Args:
        connection: Where to look.
        reference: What was typed; empty means the workspace's latest job.

    Raises:
        JobNotFound: There is none.
    """
    try:
        return await Jobs(connection).get(reference, workspace_id=_current_workspace_id())
    except JobNotFound as error:
        hint = f"`{phrase('ps -a', connection.host)}` lists all jobs{elsewhere(connection.host)}"
        raise JobNotFound(error.action, error.cause, hint=hint) from None


def elsewhere(host: str) -> str:
    """Words for whoever finds nothing on this machine and may have meant another; may be empty."""
    from rdev.client.known import known_hosts

    others = [known.host for known in known_hosts()] if host == LOCAL else []
    if not others:
        return ""
    named = " or ".join(f"`-H {other}`" for other in others[:_MOST_HOSTS])
    return f" of this machine; {named} asks another"


def names_host(word: str) -> bool:
    """Whether a word is surely a host's name: of one that was met or named, or of no job's form."""
    from rdev.client.entries import entries
    from rdev.client.known import recall

    if endpoint_of(word) is not None or "@" in word[1:] or "://" in word:
        return True
    return recall(word) is not None or any(entry.name == word for entry in entries())


async def ssh_knows(word: str) -> bool:
    """Whether the ssh configuration has an address for a word, which it has not for any word."""
    from rdev.client.transport.settings import settings_of
    from rdev.client.transport.sshconfig import ask_ssh

    with contextlib.suppress(RdevError, OSError):
        settings = settings_of(word)
        config = await ask_ssh(settings.config, settings.destination)
        return config.get("hostname", word).lower() != word.lower()
    return False


def _current_workspace_id() -> str:
    # A job is also looked for from a home folder, which may not be a workspace itself.
    try:
        return find_workspace(os.getcwd()).id
    except RdevError:
        return ""
