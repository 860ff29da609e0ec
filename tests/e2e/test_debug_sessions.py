"""Debug sessions of a real agent: connections that break, an agent that dies, and other users."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import pytest
from tests.support.command import DEADLINE, Rdev
from tests.support.guest import SYSTEM_PYTHON, Guest, guest
from tests.support.jobs import lock_holder
from tests.support.relay import relayed
from tests.support.terminal import in_terminal

from rdev.client.connection import connect
from rdev.client.debug.remote import attached
from rdev.client.debug.session import Breakpoint, DebugClient, Stopped, debugging
from rdev.client.debug.terms import Terms
from rdev.client.jobs import Jobs
from rdev.wire.files import JobFiles
from rdev.wire.home import Home, machine_id
from rdev.wire.job import DebugStop, JobState

# Line 4 is inside the step.
TRAIN = """\
import pathlib, time

def step(number):
    loss = number * 2
    return loss

number = 0
while True:
    step(number)
    number += 1
    pathlib.Path("steps").write_text(str(number))
    time.sleep(0.002)
"""
STEP = 4


@pytest.fixture(scope="module")
def person() -> Iterator[Rdev]:
    """Somebody whose home every user can pass through, with an agent and a training."""
    folder = Path(tempfile.mkdtemp(prefix="rdev-debug-", dir="/var/tmp"))
    folder.chmod(0o755)
    rdev = Rdev(folder / "home", folder / "project")
    try:
        for path in (rdev.home, rdev.cwd):
            path.mkdir()
            path.chmod(0o755)
        (rdev.cwd / "rdev.toml").touch()
        rdev.write("train.py", TRAIN)
        started = rdev.run("run", "-d", "train.py")
        assert started.returncode == 0, started.stderr
        yield rdev
        rdev.tidy()
    finally:
        shutil.rmtree(folder)


@pytest.fixture
def environment(person, monkeypatch):
    """This process is the person's."""
    for name in [name for name in os.environ if name.startswith("RDEV_")]:
        monkeypatch.delenv(name)
    for name, value in person.environment.items():
        monkeypatch.setenv(name, value)


async def hit(client: DebugClient, job) -> Stopped:
    await client.attach([Breakpoint(f"{job.directory}/train.py", STEP)])
    async with asyncio.timeout(DEADLINE):
        stop = await client.halted()
    assert isinstance(stop, Stopped)
    return stop


async def value(client: DebugClient, expression: str) -> str:
    frame = (await client.stack(1))[0]
    return (await client.evaluate(expression, frame)).value


async def recorded(jobs: Jobs) -> DebugStop:
    """The stop of the job once its record tells of it."""
    async for job in jobs.watch((await jobs.get()).id):
        if job.stops:
            return job.stops[0]
    raise AssertionError("the job has ended")


async def test_a_connection_that_breaks_at_a_stop_returns_to_the_same_stop(
    person, environment, tmp_path
):
    told: list[str] = []
    with relayed(
        tmp_path / "relay.sock", Home(str(person.home / ".rdev"), machine_id()).socket
    ) as relay:
        async with connect(relay.host) as connection:
            jobs = Jobs(connection)
            job = await jobs.get()
            async with (
                attached(connection, job.id, tell=told.append) as pipe,
                debugging(pipe) as client,
            ):
                await hit(client, job)
                number = await value(client, "number")
                stop = await recorded(jobs)
                for pause in (0.0, 1.0):
                    relay.kill()
                    asking = asyncio.create_task(value(client, "number"))
                    await asyncio.sleep(pause)
                    relay.start()
                    assert await asking == number
                [same] = (await jobs.get()).stops
                assert same.since == stop.since
                await client.resume("next", 1)
                assert isinstance(await client.halted(), Stopped)
    # A break of a few milliseconds is told of or not.
    assert told[-2:] == [
        f"the connection to {relay.host} broke; the debugger waits there",
        f"back at {relay.host}: the debugger goes on where it was",
    ]
    await running(person)


async def running(person: Rdev) -> None:
    """Waits until nothing holds the job."""
    async with connect("local") as connection:
        async for job in Jobs(connection).watch((await Jobs(connection).get()).id):
            assert job.state is JobState.RUNNING
            if not job.stops:
                return


async def test_an_agent_that_dies_at_a_stop_lets_the_job_go_and_the_client_is_told(
    person, environment
):
    async with connect("local") as connection:
        job = await Jobs(connection).get()
        async with attached(connection, job.id) as pipe, debugging(pipe) as client:
            await hit(client, job)
            await asyncio.to_thread(person.kill_agent)
            async with asyncio.timeout(DEADLINE):
                ended = await client.over()
            assert ended.cause == "the agent was restarted, and the debugger left"
        # At once again, by whoever asks for it.
        async with attached(connection, job.id) as pipe, debugging(pipe) as client:
            await hit(client, job)
    await running(person)
    first, second = causes(person)[-2:]
    # The adapter may see its client go, and leave, before it is gone itself.
    assert first in ("adapter_lost", "detached")
    assert second == "detached"


def causes(person: Rdev) -> list[str]:
    """Why each stop of the job ended."""
    lines = person.run("events", "--kind", "debug_resumed").stdout.splitlines()
    return [json.loads(line)["cause"] for line in lines]


def adapter_of(agent: int) -> int:
    """The debug adapter that an agent has started."""
    children = Path(f"/proc/{agent}/task/{agent}/children").read_text().split()
    [found] = [p for p in children if b"adapter.py" in Path(f"/proc/{p}/cmdline").read_bytes()]
    return int(found)


def said(stream: IO[bytes], wanted: bytes, seen: bytes = b"") -> bytes:
    """Reads until it says so."""
    os.set_blocking(stream.fileno(), False)
    deadline = time.monotonic() + DEADLINE
    while wanted not in seen:
        assert time.monotonic() < deadline, seen
        seen += stream.read() or b""
        time.sleep(0.02)
    return seen


# An adapter that dies, by itself or with its agent, lets the job go at once. One that hangs with its
# agent does not, and the lease does.
@pytest.mark.parametrize(
    ("blow", "lease", "cause", "why"),
    [
        (signal.SIGKILL, 60.0, "adapter_lost", "its debugger went away"),
        (signal.SIGSTOP, 2.0, "lease", "nothing was asked of its debugger in time"),
    ],
    ids=["agent and adapter killed", "agent and adapter hang"],
)
def test_when_everybody_is_killed_at_a_stop_the_job_goes_on_and_says_so(
    person, blow, lease, cause, why
):
    job = person.jobs()[0]
    steps = Path(job["directory"]) / "steps"
    words = ("debug", f"train.py:{STEP}", "--lease", f"{lease:g}s")
    with (
        person.started("logs", "-f") as following,
        person.started(*words, stdin=subprocess.PIPE) as client,
        contextlib.ExitStack() as handles,
    ):
        said(client.stdout, b"paused at")
        told = said(following.stderr, b"is paused at")
        supervisor = lock_holder(
            JobFiles(f"{person.home}/.rdev/hosts/{machine_id()}/jobs/{job['id']}").supervisor_lock
        )
        agent = person.agent_pid
        pids = (adapter_of(agent), agent, supervisor, client.pid)
        struck = [os.pidfd_open(pid) for pid in pids]
        for handle in struck:
            handles.callback(os.close, handle)
        held = steps.read_text()
        for handle, number in zip(
            struck, (blow, blow, signal.SIGKILL, signal.SIGKILL), strict=True
        ):
            signal.pidfd_send_signal(handle, number)
        deadline = time.monotonic() + DEADLINE / 2
        while steps.read_text() in ("", held):
            assert time.monotonic() < deadline, "the job is held for good"
            time.sleep(0.02)
        for handle in struck[:2]:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(handle, signal.SIGKILL)
        told = said(following.stderr, b"goes on after", told)
    assert re.search(rf"rdev: train goes on after \d+ s: {why}\n", told.decode()), told
    assert causes(person)[-1] == cause
    assert "PAUSED" not in person.run("ps").stdout
    [now] = person.jobs()
    assert (now["pid"], now["state"], now["paused"]) == (job["pid"], "running", []), now


@pytest.mark.slow
def test_a_debugger_that_was_killed_leaves_its_stop_to_the_next_one_of_the_same_person(person):
    words = ("debug", "train", f"train.py:{STEP}")
    with person.started(*words, stdin=subprocess.PIPE) as client:
        said(client.stdout, b"paused at")
        steps = (Path(person.jobs()[0]["directory"]) / "steps").read_text()
        began = time.monotonic()
        refused = person.run("debug", "train")
        assert refused.returncode != 0
        assert time.monotonic() - began < 5.0
        assert re.search(rf"@\S+ \(process {client.pid} there\) is attached to it", refused.stderr)
        assert f"`kill -HUP {client.pid}` there" in refused.stderr
        client.kill()
        client.wait()
    with in_terminal(person, "debug", "train", "train.py:5") as terminal:
        terminal.expect(b"its stop goes on here")
        terminal.expect(b"breakpoint 1 at train.py:5")
        terminal.expect(b"paused at train.py:4 in step()")
        assert (Path(person.jobs()[0]["directory"]) / "steps").read_text() == steps
        terminal.type(b"c\r")
        terminal.expect(b"paused at train.py:5 in step()")
        terminal.type(b"c\r")
        terminal.expect(b"paused at train.py:5 in step()")
        terminal.process.kill()
        terminal.wait()
    # A script's commands are for its own FILE:LINE.
    done = person.run("debug", "train", f"train.py:{STEP}", "--command", "p number")
    assert done.returncode == 0, done.stderr
    assert "paused at train.py:5" not in done.stdout
    assert f"paused at train.py:{STEP}" in done.stdout


@pytest.mark.parametrize(
    "way",
    [
        "window closed",
        pytest.param("hung up", marks=pytest.mark.slow),
        pytest.param("terminated", marks=pytest.mark.slow),
    ],
)
def test_a_terminal_that_is_lost_leaves_its_stop_and_one_that_is_ended_does_not(person, way):
    words = ("debug", "train", f"train.py:{STEP}")
    with in_terminal(person, *words) as terminal:
        terminal.expect(b"paused at train.py:4")
        terminal.expect(b"(rdev) ")
        steps = (Path(person.jobs()[0]["directory"]) / "steps").read_text()
        if way == "window closed":
            with open(os.devnull, "rb") as nothing:
                os.dup2(nothing.fileno(), terminal.descriptor)
        else:
            terminal.process.send_signal(signal.SIGHUP if way == "hung up" else signal.SIGTERM)
        terminal.process.wait(DEADLINE)
    is_kept = way != "terminated"
    done = person.run(*words[:2], stdin=None, input="p 'seen ' + str(number)\n")
    assert done.returncode == 0, done.stderr
    assert ("its stop goes on here" in done.stdout) is is_kept
    assert (f"'seen {steps}'\n" in done.stdout) is is_kept


@pytest.mark.slow
async def test_who_follows_the_job_is_told_of_its_stop_and_why_it_ended(person, environment):
    with person.started("logs", "-f") as following:
        os.set_blocking(following.stderr.fileno(), False)
        async with connect("local") as connection:
            job = await Jobs(connection).get()
            terms = Terms(lease=15.0)  # in which `ps` answers on a busy machine, too
            async with (
                attached(connection, job.id, terms=terms) as pipe,
                debugging(pipe) as client,
            ):
                await hit(client, job)
                held = person.run("ps").stdout
                async with asyncio.timeout(DEADLINE):
                    await client.over()
        assert re.search(r"PAUSED train.py:4 for [0-9.]+s \([0-9.]+s left\)", held)
        told = b""
        async with asyncio.timeout(DEADLINE):
            while told.count(b"\n") < 2:
                told += following.stderr.read() or b""
                await asyncio.sleep(0.02)
    first, second = told.decode().splitlines()
    assert re.fullmatch(
        r"rdev: train is paused at train.py:4 by the debugger \(goes on by itself in \d+ s\)", first
    )
    assert re.fullmatch(
        r"rdev: train goes on after \d+ s: nothing was asked of its debugger in time", second
    )
    assert causes(person)[-1] == "lease"


LOOKS = """import json, os, socket, sys

def errno(action):
    try:
        action()
    except OSError as error:
        return type(error).__name__
    return "no error"

def connects(path):
    with socket.socket(socket.AF_UNIX) as tried:
        tried.connect(path)

def port(number):
    with socket.create_connection(("127.0.0.1", number), 5) as tried:
        tried.settimeout(5)
        try:
            tried.sendall(b"Content-Length: 2\\r\\n\\r\\n{}")
            return len(tried.recv(100))
        except ConnectionError:
            return 0

asked = json.load(sys.stdin)
tables = [line.split() for name in ("tcp", "tcp6") for line in open("/proc/net/" + name)]
print(json.dumps({
    "sockets": {path: errno(lambda: connects(path)) for path in asked["sockets"]},
    "abstract": [line.split()[-1] for line in open("/proc/net/unix") if line.split()[-1][0] == "@"],
    "listeners": [row[9] for row in tables if row[3] == "0A"],
    "environ": {pid: errno(lambda: open(f"/proc/{pid}/environ").read()) for pid in asked["pids"]},
    "fd": {pid: errno(lambda: os.listdir(f"/proc/{pid}/fd")) for pid in asked["pids"]},
    "cmdline": {pid: open(f"/proc/{pid}/cmdline").read() for pid in asked["pids"]},
    "port": port(asked["port"]),
}))
"""


def look_as(other: Guest, asked: str) -> str:
    """Runs `LOOKS` as another user; not by a fork of this process, in which gRPC has threads."""
    ids = ("--reuid", str(other.uid), "--regid", str(other.gid), "--clear-groups", "--reset-env")
    command = ["setpriv", *ids, SYSTEM_PYTHON, "-c", LOOKS]
    done = subprocess.run(
        command, input=asked, capture_output=True, text=True, timeout=DEADLINE, check=True
    )
    return done.stdout


def ours(person: Rdev) -> list[int]:
    """All processes that belong to the person's agent and its job, and the adapters."""
    words = (str(person.home).encode(), str(person.cwd).encode())
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            text = (entry / "cmdline").read_bytes() + (entry / "environ").read_bytes()
        except OSError:  # it has gone, or is the machine's own
            continue
        if any(word in text for word in words):
            found.append(int(entry.name))
    return found


def sockets_of(pid: int) -> set[str]:
    """Inodes of a process's sockets."""
    found = set()
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        try:
            link = os.readlink(entry)
        except FileNotFoundError:
            continue
        if link.startswith("socket:["):
            found.add(link[8:-1])
    return found


async def test_a_second_user_of_the_machine_finds_nothing_to_attach_to(person, environment):
    with guest() as other, person.started("debug", "--listen", text=True) as laptop:
        heading = await asyncio.to_thread(laptop.stdout.readline)
        port = int(re.search(r"127\.0\.0\.1:(\d+)", heading)[1])
        async with connect("local") as connection:
            job = await Jobs(connection).get()
            async with attached(connection, job.id) as pipe, debugging(pipe) as client:
                await hit(client, job)
                pids = ours(person)
                adapters = [
                    p for p in pids if b"adapter.py" in Path(f"/proc/{p}/cmdline").read_bytes()
                ]
                assert len(adapters) == 1
                paths = [str(path) for path in person.home.rglob("*") if path.is_socket()]
                assert any(path.endswith("agent.sock") for path in paths)
                assert any(path.endswith("job.sock") for path in paths)
                asked = {"pids": pids, "sockets": paths, "port": port}
                looked = await asyncio.to_thread(look_as, other, json.dumps(asked))
                seen = json.loads(looked)
                held = [sockets_of(pid) for pid in pids if pid != laptop.pid]
        laptop.send_signal(signal.SIGINT)
    assert set(seen["sockets"].values()) == {"PermissionError"}, seen["sockets"]
    assert set(seen["environ"].values()) == {"PermissionError"}
    assert set(seen["fd"].values()) == {"PermissionError"}
    for line in seen["cmdline"].values():
        assert not re.search(r"[0-9a-f]{32}", line), "a token is on a command line"
    assert not set().union(*held) & set(seen["listeners"]), "somebody of ours listens on TCP"
    home = str(person.home)
    assert not [name for name in seen["abstract"] if home in name]
    assert seen["port"] == 0, "the laptop's port says nothing to another user"
    await running(person)


async def test_terminate_ends_the_job_only_for_whoever_asked_for_that(person, environment):
    async with connect("local") as connection:
        job = await Jobs(connection).get()
        async with attached(connection, job.id) as pipe, debugging(pipe) as client:
            await hit(client, job)
            await client.kill()
        await running(person)
        terms = Terms(allow_kill=True)
        async with attached(connection, job.id, terms=terms) as pipe, debugging(pipe) as client:
            await hit(client, job)
            await client.kill()
        async with asyncio.timeout(DEADLINE):
            ended = await Jobs(connection).wait(job.id)
        assert ended.state is JobState.CANCELLED
