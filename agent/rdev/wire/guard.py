"""How an agent is started again: the record by which the supervisors of live jobs guard it.

    <host>/run/agent.json    who serves and how to start it again    agent, while it serves
    <host>/run/guard.lock    locked by whoever is starting an agent

The agent removes its record when it is meant to end; where a record is left, its agent was killed.
The lock's descriptor is handed to the new process, so the lock is held until that process serves,
says there why it does not, or dies.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from rdev.wire.blocks import FilesError, read_file, write_file


@dataclass(frozen=True, slots=True)
class AgentRecord:
    """The agent that serves, and how it is started.

    Attributes:
        pid: Its process.
        ticks: When that started, in clock ticks since boot.
        served: When it began to serve, on CLOCK_MONOTONIC.
        argv: Its command line; `--ready-fd N` may be added.
        environment: The environment it was started in, the login's.
        directory: Its working directory.
        umask: The login's file mode mask.
        log: The file that its stdout and stderr go to.
    """

    pid: int
    ticks: int
    served: float
    argv: tuple[str, ...]
    environment: Mapping[str, str]
    directory: str
    umask: int
    log: str

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> AgentRecord:
        """From the object in the file."""
        known = {field.name: body[field.name] for field in fields(cls)}
        return cls(**{**known, "argv": tuple(body["argv"])})


def host_of(job_directory: str) -> str:
    """The folder of the machine that a job's directory lies in."""
    return os.path.dirname(os.path.dirname(os.path.abspath(job_directory)))


def record_path(host: str) -> str:
    """The agent's record in a machine's folder."""
    return os.path.join(host, "run", "agent.json")


def guard_lock(host: str) -> str:
    """The lock of whoever starts an agent."""
    return os.path.join(host, "run", "guard.lock")


def write_agent(host: str, record: AgentRecord) -> None:
    """Records the agent that serves; it is guarded from here on.

    Raises:
        OSError: It cannot be written.
    """
    write_file(record_path(host), asdict(record))


def read_agent(host: str) -> AgentRecord | None:
    """The recorded agent; None if there is none or its record cannot be understood."""
    try:
        return AgentRecord.from_json(read_file(record_path(host)))
    except (FilesError, OSError, KeyError, TypeError):
        return None


def forget_agent(host: str, pid: int) -> None:
    """Removes the record if it is that process's: its end is meant."""
    record = read_agent(host)
    if record is not None and record.pid == pid:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(record_path(host))
