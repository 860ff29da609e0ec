"""Maps the wire's messages about agents to dataclasses and back; times and durations too."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from rdev.v1 import agent_pb2

# Among the capabilities: the machine is for submitting jobs to others, and has no GPU.
LOGIN_NODE = "login-node"

# Likewise: the login's shell does not say what a login has, so that jobs get what the agent has.
LOGIN_UNKNOWN = "login-unknown"


@dataclass(frozen=True, slots=True)
class AgentInfo:
    """Who answers at a host.

    Attributes:
        agent_id: Random id made at the agent's first start.
        version: Release of rdev.
        protocol: Revision of the wire.
        capabilities: Features it offers.
        boot_id: Kernel boot id of its machine.
        machine_id: Id of its machine.
        pid: Its process.
        uid: User that it and its jobs run as.
        started: Seconds since the epoch.
        home: Its state folder.
        python_version: Of the Python that runs it.
        dist: Folder of its release, where a first contact put it; else empty.
        hostname: Its machine's.
        home_id: Of the folder of releases, which machines that share a home have in common.
    """

    agent_id: str
    version: str
    protocol: int
    capabilities: frozenset[str]
    boot_id: str
    machine_id: str
    pid: int
    uid: int
    started: float
    home: str
    python_version: str
    dist: str = ""
    hostname: str = ""
    home_id: str = ""


def timestamp(seconds: float) -> Timestamp | None:
    """Seconds since the epoch as a Timestamp; 0, which means "not yet", as none."""
    if not seconds:
        return None
    value = Timestamp()
    value.FromDatetime(datetime.fromtimestamp(seconds, UTC))
    return value


def seconds_since_epoch(value: Timestamp) -> float:
    """The inverse of `timestamp`; an unset one is 0."""
    return value.seconds + value.nanos / 1e9


def duration(seconds: float) -> Duration:
    """Seconds as a Duration."""
    value = Duration()
    value.FromTimedelta(timedelta(seconds=seconds))
    return value


def seconds_of(value: Duration) -> float:
    """The inverse of `duration`."""
    return value.seconds + value.nanos / 1e9


def agent_to_proto(info: AgentInfo) -> agent_pb2.Agent:
    """The message for `info`."""
    return agent_pb2.Agent(
        agent_id=info.agent_id,
        version=info.version,
        protocol=info.protocol,
        capabilities=sorted(info.capabilities),
        boot_id=info.boot_id,
        machine_id=info.machine_id,
        pid=info.pid,
        uid=info.uid,
        started=timestamp(info.started),
        home=info.home,
        python_version=info.python_version,
        dist=info.dist,
        hostname=info.hostname,
        home_id=info.home_id,
    )


def agent_from_proto(message: agent_pb2.Agent) -> AgentInfo:
    """The inverse of `agent_to_proto`."""
    return AgentInfo(
        agent_id=message.agent_id,
        version=message.version,
        protocol=message.protocol,
        capabilities=frozenset(message.capabilities),
        boot_id=message.boot_id,
        machine_id=message.machine_id,
        pid=message.pid,
        uid=message.uid,
        started=seconds_since_epoch(message.started),
        home=message.home,
        python_version=message.python_version,
        dist=message.dist,
        hostname=message.hostname,
        home_id=message.home_id,
    )
