"""A host whose agent's socket somebody forwards: `-H unix:PATH`, over a transport that can die."""

import os
import socket
import subprocess
import time

import pytest
from tests.e2e.test_failures import assert_told
from tests.support.relay import relayed

from rdev.wire.home import Home, machine_id
from rdev.wire.unix import short_socket_path

SLOW_COUNT = (
    "for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do echo $i; sleep 0.1; done"
)
COUNTED = "".join(f"{number}\n" for number in range(1, 21))


@pytest.fixture
def relay(rdev, tmp_path):
    assert rdev.command("rdev-agent", "serve", "--detach").returncode == 0
    home = Home(str(rdev.home / ".rdev"), machine_id())
    with relayed(tmp_path / "forwarded.sock", home.socket) as relay:
        yield relay


def test_jobs_are_run_and_listed_through_a_forwarded_socket(rdev, relay):
    done = rdev.run(
        "run", "-q", "-H", relay.host, "--name", "far", "--", "sh", "-c", "echo hi; exit 3"
    )
    assert (done.returncode, done.stdout) == (3, "hi\n")
    assert [job["name"] for job in rdev.json("ps", "-a", "-H", relay.host)] == ["far"]


def test_nothing_is_started_where_nothing_answers(rdev, tmp_path):
    missing = tmp_path / "missing.sock"
    assert_told(rdev.run("ps", "-H", f"unix:{missing}"), 69, str(missing))
    assert_told(rdev.run("run", "-H", f"unix:{missing}", "--", "true"), 255, str(missing))
    assert not (rdev.home / ".rdev").exists()


def test_a_forwarder_with_nothing_behind_it_is_told_at_once(rdev, relay):
    rdev.command("rdev-agent", "stop")
    begin = time.monotonic()
    assert_told(rdev.run("ps", "-H", relay.host), 69)
    assert time.monotonic() - begin < 10
    assert rdev.command("rdev-agent", "status").returncode == 1


def test_a_forwarder_of_another_user_is_not_trusted(rdev, tmp_path):
    if os.geteuid() != 0:
        pytest.skip("serving a socket as another user needs root")
    # The kernel notes who listens at the moment of listen(2).
    with socket.socket(socket.AF_UNIX) as listener:
        path = tmp_path / "foreign.sock"
        with short_socket_path(str(path)) as address:
            listener.bind(address)
        os.seteuid(65534)
        try:
            listener.listen()
        finally:
            os.seteuid(0)
        assert_told(rdev.run("ps", "-H", f"unix:{path}"), 77, "user 65534")


def test_output_is_whole_though_the_transport_dies_under_it(rdev, relay):
    words = ("run", "-q", "-H", relay.host, "--", "sh", "-c", f"{SLOW_COUNT}; exit 5")
    with rdev.started(*words, stderr=subprocess.DEVNULL) as process:
        seen = process.stdout.readline()
        for _ in range(3):
            relay.kill()
            relay.start()
            seen += process.stdout.readline()
        seen += process.stdout.read()
        assert (process.wait(60), seen.decode()) == (5, COUNTED)


@pytest.mark.slow
def test_a_transport_gone_for_good_ends_followers_in_one_line_and_never_with_0(rdev, relay):
    up = ("sh", "-c", "echo up; sleep 600")
    with rdev.started("run", "-q", "-H", relay.host, "--name", "far", "--", *up) as running:
        assert running.stdout.readline() == b"up\n"
        with rdev.started("logs", "-f", "-H", relay.host, "far") as reading:
            assert reading.stdout.readline() == b"up\n"
            relay.kill()
            told = [process.communicate(timeout=100)[1].decode() for process in (running, reading)]
    assert [process.returncode for process in (running, reading)] == [255, 69]
    for said in told:
        assert "it has not answered for 60 s" in said
        assert f" -H {relay.host} " in said, "the hint can be typed as it stands"
        assert (said.count("\n"), said.splitlines()[1][:6]) == (2, "hint: "), said


def test_a_stop_that_is_lost_on_its_way_is_asked_for_again(rdev, tmp_path):
    rdev.run("run", "-d", "--name", "lasting", "--", "sleep", "300")
    home = Home(str(rdev.home / ".rdev"), machine_id())
    with relayed(tmp_path / "loses.sock", home.socket, loses="StopJob") as relay:
        done = rdev.run("stop", "-H", relay.host, "lasting", "--now")
    assert (done.returncode, done.stderr) == (0, "")
    assert rdev.jobs(ended=True)[0]["state"] == "cancelled"
