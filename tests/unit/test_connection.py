"""Where a client looks for an agent, what it concludes about the one it meets, how long it tries."""

import random

import pytest

from rdev.client.connection import REQUIRED_PROTOCOL, Backoff, check_version
from rdev.client.hosts import LOCAL, endpoint_of
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
    assert "rdev-agent upgrade" in caught.value.hint


async def test_trying_ends_a_minute_after_the_break_however_long_all_was_quiet(monkeypatch):
    now = 0.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    monkeypatch.setattr("random.uniform", lambda _low, _high: 0.0)
    delays = Backoff()
    now = 1000.0
    await delays.wait()
    now = 1059.0
    await delays.wait()
    delays.answered()
    now = 1100.0
    await delays.wait()
    now = 1159.0
    await delays.wait()
    now = 1161.0
    with pytest.raises(ConnectionLost, match="60 s"):
        await delays.wait()


def test_delays_grow_from_50_ms_to_5_s_and_no_two_clients_keep_in_step():
    random.seed(0)
    clients = [Backoff() for _ in range(50)]
    rounds = [[client.next_delay() for client in clients] for _ in range(12)]
    assert all(0.05 <= delay <= 5.0 for delays in rounds for delay in delays)
    assert max(rounds[0]) <= 0.1
    assert min(rounds[-1]) >= 2.5
    assert all(max(delays) > 1.5 * min(delays) for delays in rounds)
    clients[0].reset()
    assert clients[0].next_delay() <= 0.1


def test_an_agent_is_started_on_this_machine_and_never_behind_a_forwarded_socket(monkeypatch):
    monkeypatch.setenv("RDEV_HOME", "/r")
    monkeypatch.setenv("HOME", "/h")
    here = endpoint_of(LOCAL)
    assert here.socket == here.home.socket
    there = endpoint_of("unix:~/volume/agent.sock")
    assert (there.socket, there.home) == ("/h/volume/agent.sock", None)
    assert endpoint_of("gpu1") is None
