"""`rdev-agent bridge` as a real process, between pipes that stand for ssh."""

import json
import os
import select
import signal
import socket
import stat
import subprocess
import sys
import time

import pytest

from rdev.client.transport.contract import AT, FAILED, READY

DEADLINE = 30.0

# How HTTP/2 begins: the client's preface and empty settings.
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0"


@pytest.fixture
def bridge(rdev):
    """Starts bridges as sshd does, with one socket for stdin and stdout; they end with the test."""
    started = []

    def start(*words: str):
        ours, theirs = socket.socketpair()
        command = [sys.executable, "-I", "-m", "rdev.agent.bridge", *words]
        process = subprocess.Popen(
            command, stdin=theirs, stdout=theirs, stderr=subprocess.PIPE, env=rdev.environment
        )
        theirs.close()
        ours.settimeout(DEADLINE)
        started.append((process, ours))
        return process, ours

    yield start
    for process, ours in started:
        process.kill()
        process.wait()
        process.stderr.close()
        ours.close()


def line_of(ours) -> bytes:
    seen = b""
    while not seen.endswith(b"\n") or not seen.strip():
        data = ours.recv(1)
        assert data, seen
        seen += data
    return seen.strip()


def assert_ready(ours) -> str:
    """It said where the agent's socket is, and that it is ready."""
    where = line_of(ours)
    assert where.startswith(AT)
    assert line_of(ours) == READY
    return where.removeprefix(AT).decode()


def test_it_starts_an_agent_and_is_its_socket(rdev, bridge):
    process, ours = bridge()
    path = assert_ready(ours)
    assert stat.S_ISSOCK(os.stat(path).st_mode)
    ours.sendall(PREFACE)
    assert len(ours.recv(9)) == 9  # a frame: the agent's own settings
    ours.shutdown(socket.SHUT_WR)
    while ours.recv(65536):
        pass
    assert process.wait(DEADLINE) == 0
    assert rdev.agent_pid


def test_a_bridge_to_an_agent_that_serves_imports_little():
    # Each first contact waits for it: these cost more than all else it does.
    script = (
        "import sys; before = set(sys.modules); import rdev.agent.bridge;"
        "print(*set(sys.modules) - before)"
    )
    command = [sys.executable, "-I", "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    dear = {"asyncio", "dataclasses", "hashlib", "inspect", "json", "re", "socket", "subprocess"}
    assert not dear & set(done.stdout.split())


def test_what_is_no_http_ends_it_quietly(rdev, bridge):
    process, ours = bridge()
    assert_ready(ours)
    ours.sendall(b"some rc file asked: are you sure? (y/n)\n" * 10)
    while ours.recv(65536):
        pass
    assert process.wait(DEADLINE) == 0
    assert process.stderr.read() == b""


def test_a_second_one_finds_the_same_agent(rdev, bridge):
    _, ours = bridge()
    assert_ready(ours)
    pid = rdev.agent_pid
    _, more = bridge()
    assert_ready(more)
    assert rdev.agent_pid == pid


def test_it_ends_with_the_agent(rdev, bridge):
    process, ours = bridge()
    assert_ready(ours)
    rdev.kill_agent()
    assert process.wait(DEADLINE) == 0
    while ours.recv(65536):
        pass


def test_it_ends_with_ssh_though_the_agent_hangs(rdev, bridge):
    process, ours = bridge()
    assert_ready(ours)
    pid = rdev.agent_pid
    os.kill(pid, signal.SIGSTOP)
    try:
        ours.close()
        assert process.wait(DEADLINE) == 0
    finally:
        os.kill(pid, signal.SIGCONT)


def test_it_says_why_there_is_no_agent(rdev, bridge, tmp_path):
    open_to_all = tmp_path / "open"
    open_to_all.mkdir(mode=0o755)
    process, ours = bridge("--home", str(open_to_all))
    line = line_of(ours)
    assert line.startswith(FAILED)
    assert json.loads(line.removeprefix(FAILED))["reason"] == "PERMISSION"
    assert process.wait(DEADLINE) == 1
    assert process.stderr.read() == b""


def test_no_message_is_lost_on_the_way(rdev, bridge):
    _, ours = bridge()
    assert_ready(ours)
    ours.sendall(PREFACE)
    # The agent acknowledges each. (Pings it answers too, but hangs up on who sends many.)
    settings, acknowledged = b"\0\0\0\4\0\0\0\0\0", b"\0\0\0\4\1\0\0\0\0"
    answered, sent = b"", 0
    while answered.count(acknowledged) < 2000:
        if sent < 2000:
            ours.sendall(settings * 100)
            sent += 100
        while select.select([ours], [], [], 0 if sent < 2000 else DEADLINE)[0]:
            data = ours.recv(65536)
            assert data, "it hung up"
            answered += data
            if answered.count(acknowledged) >= sent:
                break


def test_it_starts_fast(rdev, bridge):
    _, ours = bridge()
    line_of(ours)
    took = []
    for _ in range(5):
        began = time.monotonic()
        subprocess.run([sys.executable, "-I", "-c", "pass"], check=True)
        bare = time.monotonic() - began
        began = time.monotonic()
        _, ours = bridge()
        line_of(ours)
        took.append((time.monotonic() - began) / bare)
    assert min(took) < 6, took  # measured: 2.5; with all that `rdev-agent serve` imports: 12


def test_it_imports_nothing_large():
    code = "import sys, rdev.agent.bridge; print(*sorted(sys.modules))"
    loaded = subprocess.run(
        [sys.executable, "-I", "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    assert not {"grpc", "google.protobuf", "asyncio", "argparse", "logging"} & set(loaded)
