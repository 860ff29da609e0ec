"""The command line by which the release on a host is run."""

from rdev.client.bootstrap.words import agent_command
from rdev.client.known import KnownHost


def known(dist: str, bridge: str) -> KnownHost:
    return KnownHost("gpu1", "a", "m", "/home/ann/.rdev", bridge, dist, "1.0-abc")


def test_a_release_in_the_home_is_run_as_it_is():
    host = known(
        "/home/ann/.rdev/dist/1.0-abc", "/home/ann/.rdev/dist/1.0-abc/bin/rdev-agent bridge"
    )
    line = agent_command(host, "purge", "--json")
    assert line == (
        "env RDEV_HOME\\=/home/ann/.rdev /home/ann/.rdev/dist/1.0-abc/bin/rdev-agent purge --json"
    )


def test_a_release_outside_the_home_is_looked_at_first():
    guard = "/usr/bin/python3.11 -I /home/ann/.rdev/dist/start.py"
    program = "/var/tmp/rdev-1000-x/1.0-abc/bin/rdev-agent"
    line = agent_command(known("/var/tmp/rdev-1000-x/1.0-abc", f"{guard} {program} bridge"), "stop")
    assert line == f"env RDEV_HOME\\=/home/ann/.rdev {guard} {program} stop"


def test_a_bridge_of_another_kind_is_no_guard():
    line = agent_command(known("/d/1.0-abc", "env X=1 python3 -m rdev.agent.bridge"), "stop")
    assert line == "env RDEV_HOME\\=/home/ann/.rdev /d/1.0-abc/bin/rdev-agent stop"
