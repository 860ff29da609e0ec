"""What a client concludes about the agent it meets, and how long it tries."""

import pytest

from rdev.client.connection import REQUIRED_PROTOCOL, Backoff, check_version
from rdev.protocol.convert import AgentInfo, agent_from_proto, agent_to_proto
from rdev.protocol.errors import ConnectionLost, VersionSkew

AGENT = AgentInfo(
    agent_id="a", version="0.0.1", protocol=REQUIRED_PROTOCOL, capabilities=frozenset({"jobs"}),
    boot_id="b", machine_id="m", pid=1, uid=2, started=3.5, home="/h", python_version="3.11.7",
)  # fmt: skip


def test_an_agent_survives_the_wire():
    assert agent_from_proto(agent_to_proto(AGENT)) == AGENT


def test_a_newer_agent_is_welcome():
    check_version("gpu", agent_from_proto(agent_to_proto(AGENT)))


def test_an_agent_that_is_too_old_is_named_with_both_releases():
    old = agent_to_proto(AGENT)
    old.protocol = REQUIRED_PROTOCOL - 1
    with pytest.raises(VersionSkew, match=r"gpu.*0\.0\.1.*this is rdev") as caught:
        check_version("gpu", agent_from_proto(old))
    assert "same release" in caught.value.hint
    with pytest.raises(VersionSkew) as caught:
        check_version("local", agent_from_proto(old))
    assert "rdev-agent stop" in caught.value.hint


async def test_trying_ends_after_a_minute_and_begins_anew_when_something_got_through(monkeypatch):
    now = 0.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    monkeypatch.setattr("random.uniform", lambda _low, _high: 0.0)
    delays = Backoff()
    now = 59.0
    await delays.wait()
    delays.reset()
    now = 118.0
    await delays.wait()
    now = 120.0
    with pytest.raises(ConnectionLost, match="60 s"):
        await delays.wait()
