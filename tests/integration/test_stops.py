"""Jobs that are stopped, signalled or out of time."""

import asyncio
import os
import signal
import socket
import time

import pytest
from tests.support.jobs import DEADLINE, await_gone, jobs_in, tidy

from rdev.protocol.errors import InvalidRequest, JobNotRunning
from rdev.supervisor.processes import look_at
from rdev.wire.files import read_exit
from rdev.wire.job import JobState, Reason
from rdev.wire.unix import short_socket_path


@pytest.fixture
async def jobs(tmp_path):
    async with tidy(tmp_path / "jobs") as folder, jobs_in(folder) as jobs:
        yield jobs


async def test_a_stopped_job_gets_term_and_its_grace(jobs):
    source = (
        "import signal, sys, time\n"
        "signal.signal(15, lambda *_: (print('bye'), sys.exit(3)))\n"
        "print('up')\n"
        "while True: time.sleep(60)\n"
    )
    job = await jobs.python(source, grace=30.0)
    await jobs.first_bytes(job)
    assert (await jobs.manager.stop(job.id)).state is JobState.STOPPING
    await jobs.manager.stop(job.id)  # again is harmless, and no second TERM
    ended = await jobs.end(job)
    assert (ended.state, ended.reason) == (JobState.CANCELLED, Reason.STOPPED)
    assert ended.exit_code == 3
    assert (await jobs.printed(job)).stdout == b"up\nbye\n"
    assert (await jobs.manager.stop(job.id)).state is JobState.CANCELLED


async def test_a_job_that_ignores_term_is_killed_after_its_grace_and_not_before(jobs):
    job = await jobs.start("sh", "-c", "trap '' TERM; echo up; while :; do sleep 0.1; done")
    await jobs.first_bytes(job)
    begun = time.monotonic()
    await jobs.manager.stop(job.id)
    ended = await jobs.end(job)
    assert (ended.state, ended.signal) == (JobState.CANCELLED, signal.SIGKILL)
    assert 1.0 <= time.monotonic() - begun < 10.0


async def test_daemons_that_ignore_term_are_gone_after_a_stop(jobs):
    source = (
        "import os, signal, time\n"
        "for _ in range(30):\n"
        "    if os.fork() == 0:\n"
        "        os.setsid()\n"
        "        if os.fork(): os._exit(0)\n"
        "        signal.signal(15, signal.SIG_IGN)\n"
        "        os.write(1, b'%d\\n' % os.getpid())\n"
        "        time.sleep(600)\n"
        "time.sleep(600)\n"
    )
    job = await jobs.python(source)
    pids = b""
    async for piece in jobs.pieces(job):
        pids += piece.data
        if pids.count(b"\n") == 30:
            break
    await jobs.manager.stop(job.id)
    ended = await jobs.end(job)
    assert ended.state is JobState.CANCELLED
    assert [pid for pid in pids.split() if is_there(int(pid))] == []


async def test_a_job_that_ends_takes_its_children_along_but_no_daemon(jobs, tmp_path):
    # The daemon is one before the job ends, however long it takes to become one.
    source = (
        'sleep 600 & echo $!; setsid sh -c \'echo > "$0"; exec sleep 600\' "$0" >/dev/null 2>&1 &'
        ' echo $!; until [ -e "$0" ]; do sleep 0.01; done'
    )
    job = await jobs.start("sh", "-c", source, str(tmp_path / "is a daemon"))
    await jobs.end(job)
    child, daemon = (int(word) for word in (await jobs.printed(job)).stdout.split())
    try:
        assert not is_there(child)
        assert is_there(daemon)
    finally:
        os.kill(daemon, signal.SIGKILL)
        await asyncio.to_thread(await_gone, daemon)


async def test_a_stop_hastens_the_end_of_what_an_ended_job_has_left(jobs):
    job = await jobs.start("sh", "-c", "(trap '' TERM; sleep 600) & exit 0", grace=600.0)
    async with asyncio.timeout(DEADLINE):
        while read_exit(jobs.files(job), attempt=1) is None:
            await asyncio.sleep(0.01)  # other processes set no event of ours
    assert (await jobs.reach(job, JobState.RUNNING)).state is JobState.RUNNING
    await jobs.manager.stop(job.id)  # its grace goes on
    await jobs.manager.stop(job.id, now=True)
    ended = await jobs.end(job)
    assert (ended.state, ended.reason, ended.exit_code) == (JobState.SUCCEEDED, Reason.EXITED, 0)


async def test_a_job_within_a_job_survives_the_outer_ones_stop(jobs, tmp_path):
    inner = tmp_path / "inner"
    source = (
        "import asyncio, pathlib, sys\n"
        f"sys.path[:0] = {[str(p) for p in _roots()]!r}\n"
        "from tests.support.jobs import jobs_in\n"
        "async def main():\n"
        f"    async with jobs_in(pathlib.Path({str(inner)!r})) as jobs:\n"
        "        job = await jobs.start('sleep', '600')\n"
        "        print(job.id, flush=True)\n"
        "        await asyncio.sleep(600)\n"
        "asyncio.run(main())\n"
    )
    async with tidy(inner):
        outer = await jobs.python(source)
        inner_id = (await jobs.first_bytes(outer)).decode().strip()
        await jobs.manager.stop(outer.id)
        assert (await jobs.end(outer)).state is JobState.CANCELLED
        async with jobs_in(inner) as nested:
            found = await nested.manager.get(inner_id)
            assert (await nested.reach(found, JobState.RUNNING)).state is JobState.RUNNING


def is_there(pid):
    found = look_at(pid)
    return found is not None and not found.is_dead


def _roots():
    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    return [root, *(os.path.join(root, part) for part in ("agent", "client", "protos"))]


@pytest.mark.parametrize("number", [0, -1, 32, 65, 1000])
async def test_a_signal_that_there_is_not(jobs, number):
    job = await jobs.start("sleep", "600")
    await jobs.reach(job, JobState.RUNNING)
    with pytest.raises(InvalidRequest, match=f"send the signal {number}: "):
        await jobs.manager.signal(job.id, number)


async def test_a_timeout_stops_the_job(jobs):
    job = await jobs.run("sleep", "60", timeout=0.3)
    assert (job.state, job.reason) == (JobState.FAILED, Reason.TIMEOUT)
    assert 0.3 <= job.ended - job.started < 10.0


async def test_a_timeout_and_a_grace_of_a_month_are_waited_for(jobs):
    month = 30 * 86400.0
    job = await jobs.start("sh", "-c", "echo here; sleep 60", timeout=month, grace=month)
    await jobs.reach(job, JobState.RUNNING)
    supervisor = jobs.supervisor(job)
    await jobs.manager.stop(job.id)
    ended = await jobs.end(job)
    assert ended.state is JobState.CANCELLED
    assert (await jobs.printed(job)).stdout == b"here\n"
    assert supervisor


@pytest.mark.parametrize(
    "line",
    [
        b"[" * 200_000,
        b'{"type":"event","kind":"x","time":1,"seq":1e999}',
        b'{"type":"event","kind":"x","time":NaN,"seq":1}',
        b'{"type":"hello","role":7,"rank":1e99,"pid":[],"script":"\\udce9"}',
    ],
    ids=["brackets", "sequence", "time", "hello"],
)
async def test_no_line_on_its_socket_ends_a_supervisor(jobs, line):
    job = await jobs.start("sleep", "60")
    await jobs.reach(job, JobState.RUNNING)
    before = jobs.supervisor(job)
    with socket.socket(socket.AF_UNIX) as peer:
        with short_socket_path(jobs.files(job).socket) as path:
            peer.connect(path)
        peer.sendall(b'{"type":"hello","role":"loop","pid":1}\n' + line + b"\n")
        peer.shutdown(socket.SHUT_WR)
        peer.settimeout(DEADLINE)
        while peer.recv(4096):
            pass
    await jobs.manager.peers(job.id)
    assert jobs.supervisor(job) == before
    await jobs.manager.stop(job.id, now=True)


async def test_a_signal_reaches_the_whole_group(jobs):
    source = "trap 'echo outer' USR1; sh -c 'trap \"echo inner\" USR1; echo up; sleep 2 & wait; wait' & wait; wait"
    job = await jobs.start("sh", "-c", source)
    await jobs.first_bytes(job)
    await jobs.manager.signal(job.id, signal.SIGUSR1)
    await jobs.end(job)
    lines = (await jobs.printed(job)).stdout.split()
    assert {b"outer", b"inner"} <= set(lines)
    with pytest.raises(JobNotRunning):
        await jobs.manager.signal(job.id, signal.SIGUSR1)


async def test_a_job_interrupted_on_request_counts_as_stopped(jobs):
    job = await jobs.start("sh", "-c", "echo up; exec sleep 60")
    await jobs.first_bytes(job)
    await jobs.manager.signal(job.id, signal.SIGINT)
    ended = await jobs.end(job)
    assert (ended.state, ended.reason) == (JobState.CANCELLED, Reason.STOPPED)
    assert (ended.exit_code, ended.signal) == (130, signal.SIGINT)
