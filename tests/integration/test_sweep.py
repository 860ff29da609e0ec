"""What a stop ends and what it leaves alone, among real daemons, a real tmux and a real agent."""

import asyncio
import contextlib
import os
import secrets
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tests.support.jobs import DEADLINE, await_gone, jobs_in, tidy

from rdev.supervisor.processes import look_at
from rdev.wire.job import JobState

GRACE = 1.0

DAEMONS = """
import os, signal, time
def daemon():
    ready, tell = os.pipe()
    if os.fork() == 0:
        os.setsid()
        if os.fork(): os._exit(0)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        os.write(tell, b"%d" % os.getpid())
        time.sleep(600)
    os.wait()
    return os.read(ready, 99).decode()
print("daemons", *(daemon() for _ in range(30)), flush=True)
"""

# Started in the job as a person would, and one that has left the tmux it was started in.
TMUX = """
import subprocess, sys
pane = "sh -c 'echo $$; (setsid sh -c \\"echo \\\\$\\\\$; exec sleep 600\\" &); exec sleep 600' > " + sys.argv[2]
subprocess.run(["tmux", "-L", sys.argv[1], "new-session", "-d", pane], check=True)
open(sys.argv[2], "a").close()
while len(open(sys.argv[2]).read().split()) < 2: time.sleep(0.01)
shown = ["tmux", "-L", sys.argv[1], "display-message", "-p", "#{pid}"]
server = subprocess.run(shown, check=True, capture_output=True, text=True).stdout
print("tmux", server.strip(), *open(sys.argv[2]).read().split(), flush=True)
"""

AGENT = """
environment = {**os.environ, "RDEV_HOME": sys.argv[3]}
serve = [sys.argv[4], "serve", "--detach"]
served = subprocess.run(serve, check=True, env=environment, capture_output=True, text=True).stdout
print("agent", served.split()[1], flush=True)
"""

STAY = "print('end', flush=True)\ntime.sleep(600)\n"


@pytest.fixture
async def jobs(tmp_path):
    # Where an agent has them, so that a supervisor knows which agent is its own.
    folder = tmp_path / "home" / "hosts" / "machine" / "jobs"
    folder.parent.mkdir(parents=True)
    for private in (folder.parent, folder.parents[1], folder.parents[2]):
        private.chmod(0o700)
    async with tidy(folder) as folder, jobs_in(folder) as jobs:
        yield jobs


async def told(jobs, job):
    """What the job printed until it had all that it wanted, by first word."""
    text = b""
    async with asyncio.timeout(DEADLINE):
        async for piece in jobs.pieces(job):
            text += piece.data
            if text.endswith(b"end\n"):
                return {line.split()[0]: line.split()[1:] for line in text.decode().splitlines()}
    raise AssertionError(f"the job ended: {text.decode()}")


def is_there(pid):
    found = look_at(int(pid))
    return found is not None and not found.is_dead


def gone_at(pids):
    """When the last of these has ended, on CLOCK_MONOTONIC."""
    with contextlib.ExitStack() as stack:
        handles = set()
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                handle = os.pidfd_open(int(pid))
                stack.callback(os.close, handle)
                handles.add(handle)
        while handles:
            ready = select.select(list(handles), [], [], DEADLINE)[0]
            assert ready, "some did not end"
            handles -= set(ready)
    return time.monotonic()


@pytest.fixture
def tmux_name():
    name = f"rdev-{secrets.token_hex(4)}"
    yield name
    subprocess.run(["tmux", "-L", name, "kill-server"], capture_output=True, check=False)


AGENT_PROGRAM = str(Path(sys.executable).with_name("rdev-agent"))


async def test_thirty_stubborn_daemons_are_gone_in_time_and_nobody_else(jobs, tmp_path, tmux_name):
    neighbour = await jobs.start("sh", "-c", "setsid sleep 600 & echo $!; sleep 600")
    daemon_of_neighbour = int(await jobs.first_bytes(neighbour))
    job = await jobs.start(
        sys.executable,
        "-c",
        DAEMONS + TMUX + AGENT + STAY,
        tmux_name,
        str(tmp_path / "pids"),
        str(tmp_path / "nested"),
        AGENT_PROGRAM,
        grace=GRACE,
    )
    seen = await told(jobs, job)
    (agent,), (server, *inside) = seen["agent"], seen["tmux"]
    try:
        gone = asyncio.ensure_future(asyncio.to_thread(gone_at, seen["daemons"]))
        begun = time.monotonic()
        await jobs.manager.stop(job.id)
        assert await gone - begun < GRACE + 0.5
        ended = await jobs.end(job)
        assert ended.state is JobState.CANCELLED
        assert all(is_there(pid) for pid in (agent, server, *inside))
        assert sorted(ended.spared) == [f"rdev-agent ({agent})", f"tmux: server ({server})"]
        assert is_there(daemon_of_neighbour)
        assert not (await jobs.manager.get(neighbour.id)).state.is_final
    finally:
        end(agent, *inside)


async def test_a_stop_of_everything_ends_those_too_and_not_the_agent_that_serves_the_job(
    jobs, tmp_path, tmux_name
):
    # The second is of the home that the job itself is of, as one that its supervisor brought back.
    both = f"{AGENT}sys.argv[3] = sys.argv[5]\n{AGENT}".replace('"agent"', "sys.argv[3]")
    job = await jobs.start(
        sys.executable,
        "-c",
        "import os, time\n" + TMUX + both + STAY,
        tmux_name,
        str(tmp_path / "pids"),
        str(tmp_path / "nested"),
        AGENT_PROGRAM,
        str(tmp_path / "home"),
    )
    seen = await told(jobs, job)
    (nested,), (ours,) = seen[str(tmp_path / "nested")], seen[str(tmp_path / "home")]
    try:
        await jobs.manager.stop(job.id, is_all=True)
        ended = await jobs.end(job)
        assert (ended.state, ended.spared) == (JobState.CANCELLED, ())
        assert not any(is_there(pid) for pid in (nested, *seen["tmux"]))
        assert is_there(ours)
    finally:
        end(nested, ours, *seen["tmux"])


async def test_an_agent_that_serves_the_job_is_spared_without_a_word(jobs, tmp_path):
    source = "import os, subprocess, sys, time\n" + AGENT + STAY
    home = str(tmp_path / "home")
    job = await jobs.start(sys.executable, "-c", source, "", "", home, AGENT_PROGRAM)
    (ours,) = (await told(jobs, job))["agent"]
    try:
        await jobs.manager.stop(job.id)
        assert (await jobs.end(job)).spared == ()
        assert is_there(ours)
    finally:
        end(ours)


async def test_a_job_that_says_so_leaves_its_children_when_it_ends_by_itself(jobs):
    for keeps in (True, False):
        job = await jobs.run("sh", "-c", "sleep 600 & echo $!", keep_children=keeps)
        child = int((await jobs.printed(job)).stdout)
        assert is_there(child) is keeps
        end(child)


async def test_a_stopped_job_takes_its_children_along_whatever_it_said(jobs):
    job = await jobs.start("sh", "-c", "sleep 600 & echo $!; wait", keep_children=True)
    child = int(await jobs.first_bytes(job))
    await jobs.manager.stop(job.id)
    await jobs.end(job)
    assert not is_there(child)


def end(*pids):
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(pid), signal.SIGKILL)
        await_gone(int(pid))
