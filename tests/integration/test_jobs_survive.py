"""What a job must not notice: the death of agent, supervisor and keeper, and a full disk."""

import asyncio
import contextlib
import errno
import json
import os
import random
import resource
import signal
import socket
import subprocess
import time
from dataclasses import replace

import pytest
from tests.support.disk import small_disk_in
from tests.support.jobs import await_gone, children_named, jobs_in, lock_holder, tidy
from tests.support.processes import until

from rdev.agent.jobs.store import JobStore
from rdev.agent.jobs.zygote import Zygote
from rdev.protocol.errors import DiskFull
from rdev.supervisor.processes import look_at
from rdev.wire.blocks import read_file, write_file
from rdev.wire.channel import LineBuffer, encode
from rdev.wire.files import output_size, read_status
from rdev.wire.home import boot_id
from rdev.wire.job import CommandKind, JobSpec, JobState, Reason
from rdev.wire.records import Accepted, Launch
from rdev.wire.unix import short_socket_path

NUMBERED = "import sys\nfor i in range({count}):\n    print('line', i)\n"
STEADY = (
    "import sys, time\nfor i in range({count}):\n    print('line', i)\n    time.sleep(0.0005)\n"
)


def numbered(count):
    return b"".join(b"line %d\n" % i for i in range(count))


def kill(pid):
    assert pid > 0
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


@pytest.fixture
async def jobs(tmp_path):
    async with tidy(tmp_path / "jobs") as folder, jobs_in(folder) as jobs:
        yield jobs


async def test_supervisors_killed_while_the_job_prints_lose_no_byte(jobs):
    job = await jobs.python(STEADY.format(count=3000))
    follower = asyncio.ensure_future(jobs.printed(job))
    chance, kills = random.Random(1), 0
    while not jobs.manager.record(job.id).status.state.is_final and kills < 12:
        await until(lambda: jobs.supervisor(job) or not jobs.keeper(job))
        kill(jobs.supervisor(job)) if jobs.supervisor(job) else None
        kills += 1
        await asyncio.sleep(chance.uniform(0.0, 0.1))
    ended = await jobs.end(job)
    assert (ended.state, ended.exit_code) == (JobState.SUCCEEDED, 0)
    assert (await follower).stdout == numbered(3000)
    assert kills >= 5


async def test_a_killed_supervisor_is_back_within_a_second(jobs):
    job = await jobs.start("sleep", "60")
    await jobs.reach(job, JobState.RUNNING)
    before = jobs.supervisor(job)
    begun = time.monotonic()
    kill(before)
    await until(lambda: jobs.supervisor(job) not in (0, before))
    assert time.monotonic() - begun < 1.0
    # The agent's connection is made anew, so commands arrive.
    assert await jobs.manager.peers(job.id) == ()


async def test_an_agent_that_comes_back_adopts_what_runs(tmp_path):
    async with tidy(tmp_path / "jobs") as folder:
        async with jobs_in(folder) as jobs:
            job = await jobs.python(STEADY.format(count=1500) + "sys.exit(5)")
            await jobs.first_bytes(job)
        async with jobs_in(folder) as jobs:
            assert not (await jobs.manager.get(job.id)).state.is_final
            assert (await jobs.end(job)).exit_code == 5
            assert (await jobs.printed(job)).stdout == numbered(1500)


async def test_a_job_that_ends_while_there_is_no_agent_is_known_to_the_next(tmp_path):
    async with tidy(tmp_path / "jobs") as folder:
        async with jobs_in(folder) as jobs:
            job = await jobs.python(NUMBERED.format(count=50_000) + "sys.exit(9)")
            await jobs.reach(job, JobState.RUNNING)
            keeper = jobs.keeper(job)
        await asyncio.to_thread(await_gone, keeper)
        async with jobs_in(folder) as jobs:
            found = await jobs.manager.get(job.id)
            assert (found.state, found.exit_code) == (JobState.FAILED, 9)
            assert (await jobs.printed(job)).stdout == numbered(50_000)


async def test_a_stop_goes_on_when_its_supervisor_is_killed(jobs):
    job = await jobs.start("sh", "-c", "trap '' TERM; echo up; while :; do sleep 0.1; done")
    await jobs.first_bytes(job)
    await jobs.manager.stop(job.id)
    kill(jobs.supervisor(job))
    ended = await jobs.end(job)
    assert (ended.state, ended.reason) == (JobState.CANCELLED, Reason.STOPPED)


async def test_a_stop_reaches_the_next_supervisor_when_this_one_is_dying(jobs):
    for _ in range(5):
        job = await jobs.start("sleep", "600")
        await jobs.reach(job, JobState.RUNNING)
        kill(jobs.supervisor(job))
        await jobs.manager.stop(job.id)
        assert (await jobs.end(job)).state is JobState.CANCELLED


async def test_a_job_whose_keeper_was_killed_runs_on_and_is_lost_at_its_end(jobs):
    job = await jobs.python(STEADY.format(count=600))
    await jobs.first_bytes(job)
    await jobs.reach(job, JobState.RUNNING)
    kill(jobs.keeper(job))
    ended = await jobs.end(job)
    assert (ended.state, ended.reason) == (JobState.LOST, Reason.KEEPER_LOST)
    assert ended.exit_code is None
    assert "keeper was killed" in ended.message
    assert (await jobs.printed(job)).stdout == numbered(600)


async def test_keeper_and_supervisor_killed_together_are_replaced(jobs):
    job = await jobs.python(STEADY.format(count=1200))
    await jobs.first_bytes(job)
    keeper, supervisor = jobs.keeper(job), jobs.supervisor(job)
    kill(keeper)
    kill(supervisor)
    await until(lambda: jobs.keeper(job) not in (0, keeper))
    ended = await jobs.end(job)
    assert ended.state is JobState.LOST
    assert (await jobs.printed(job)).stdout == numbered(1200)


async def test_a_killed_zygote_is_replaced(jobs):
    await jobs.run("true")
    zygotes = children_named("rdev-zygote")
    assert zygotes
    for pid in zygotes:
        kill(pid)
    assert (await jobs.run("true")).state is JobState.SUCCEEDED


async def test_answers_that_nobody_waited_for_are_not_taken_for_later_ones(tmp_path):
    store = JobStore(str(tmp_path))
    store.load()
    job = store.files("0123456789ab")
    launch = Launch("0123456789ab", ("true",), {}, "/", umask=0o077, grace=0.0, timeout=None)
    spec = JobSpec(CommandKind.PROGRAM, "true")
    store.create(Accepted(launch.id, "true", "r", 1.0, boot_id(), spec, ("true",), "/"), launch)
    async with Zygote() as zygote:
        await until(lambda: children_named("rdev-zygote"))
        (pid,) = children_named("rdev-zygote")
        os.kill(pid, signal.SIGSTOP)
        for name in ("missing", "missing too"):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.01):
                    await zygote.launch(str(tmp_path / name))
        os.kill(pid, signal.SIGCONT)
        assert await zygote.launch(job.directory)
    await until(lambda: read_status(job).state.is_final)
    await asyncio.to_thread(await_gone, lock_holder(job.keeper_lock))


async def test_a_job_whose_files_cannot_be_read_is_the_trouble_of_no_other(jobs, caplog):
    job, other = await jobs.start("sleep", "600"), await jobs.start("sleep", "600")
    await jobs.reach(job, JobState.RUNNING)
    supervisor = jobs.supervisor(job)
    state, aside = jobs.files(job).state, jobs.files(job).path("aside")
    os.rename(state, aside)
    os.mkdir(state)
    kill(supervisor)
    await until(lambda: f"job {job.id}: IsADirectoryError" in caplog.text)
    await jobs.manager.stop(other.id)
    assert (await jobs.end(other)).state is JobState.CANCELLED
    os.rmdir(state)
    os.rename(aside, state)
    await jobs.manager.stop(job.id)
    # Its keeper has stumbled over the same file, and has gone on.
    assert (await jobs.end(job)).state is JobState.CANCELLED


async def test_a_job_of_an_earlier_boot_is_lost(tmp_path):
    async with tidy(tmp_path / "jobs") as folder:
        async with jobs_in(folder) as jobs:
            job = await jobs.start("sleep", "600")
            running = await jobs.reach(job, JobState.RUNNING)
            files = jobs.files(job)
            keeper, supervisor = jobs.keeper(job), jobs.supervisor(job)
        for pid in (keeper, supervisor, running.pid):
            kill(pid)
            await asyncio.to_thread(await_gone, pid)
        accepted = Accepted.from_json(read_file(files.spec))
        write_file(files.spec, replace(accepted, boot_id="another").to_json())
        async with jobs_in(folder) as jobs:
            ended = await jobs.end(job)
            assert (ended.state, ended.reason) == (JobState.LOST, Reason.REBOOTED)
        async with jobs_in(folder) as jobs:  # and stays so
            assert (await jobs.manager.get(job.id)).state is JobState.LOST


class Dialer:
    """A process of the job, as far as the supervisor can tell."""

    def __init__(self, files, *, role="loop", pid=77):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(30)
        with short_socket_path(files.socket) as path:
            self.socket.connect(path)
        self.lines = LineBuffer()
        self.waiting = []
        self.say(type="hello", version=1, role=role, rank=0, pid=pid, python="3", script="a.py")

    def say(self, **message):
        self.socket.sendall(encode(message))

    def hear(self):
        while not self.waiting:
            data = self.socket.recv(65536)
            assert data, "the supervisor hung up"
            self.waiting += self.lines.feed(data)
        return json.loads(self.waiting.pop(0))


def recorded(files):
    with open(files.events, encoding="ascii") as file:
        return [json.loads(line) for line in file]


async def test_events_are_recorded_once_across_a_supervisors_death(jobs):
    job = await jobs.start("sleep", "60")
    await jobs.reach(job, JobState.RUNNING)
    files, before = jobs.files(job), jobs.supervisor(job)
    dialer = Dialer(files)
    assert dialer.hear() == {"type": "welcome", "version": 1, "job": job.id, "acknowledged": 0}
    for seq in (1, 2):
        dialer.say(type="event", seq=seq, kind="metric", time=1.0, step=seq, values={"loss": 0.5})
        assert dialer.hear() == {"type": "ack", "seq": seq}
    kill(before)
    await until(lambda: jobs.supervisor(job) not in (0, before))
    await jobs.manager.peers(job.id)
    again = Dialer(files)
    assert again.hear()["acknowledged"] == 2
    for seq in (1, 2, 3):
        again.say(type="event", seq=seq, kind="metric", time=1.0, step=seq, values={"loss": 0.5})
    while again.hear()["seq"] != 3:  # acknowledgements are cumulative
        pass
    assert [event["seq"] for event in recorded(files)] == [1, 2, 3]
    dialer.socket.close()
    again.socket.close()


async def test_a_debugger_stop_shows_until_the_process_goes(jobs):
    job = await jobs.start("sleep", "60")
    await jobs.reach(job, JobState.RUNNING)
    dialer = Dialer(jobs.files(job), role="hook")
    dialer.hear()
    dialer.say(
        type="event",
        seq=1,
        kind="debug_paused",
        time=2.0,
        file="/w/a.py",
        line=7,
        function="f",
        reason="breakpoint",
    )
    dialer.hear()
    record = jobs.manager.record(job.id)
    await until(lambda: record.status.stops)
    stop = (await jobs.manager.get(job.id)).stops[0]
    assert (stop.pid, stop.file, stop.line, stop.since) == (77, "/w/a.py", 7, 2.0)
    dialer.socket.close()
    await until(lambda: not record.status.stops)


async def test_a_timeout_does_not_run_while_the_debugger_holds_the_job(jobs):
    job = await jobs.start("sleep", "600", timeout=1.0)
    await jobs.reach(job, JobState.RUNNING)
    dialer = Dialer(jobs.files(job), role="hook", pid=os.getpid())
    dialer.hear()
    held = {"kind": "debug_paused", "file": "a.py", "line": 7, "function": "f", "reason": "step"}
    dialer.say(type="event", seq=1, time=time.time(), **held)
    dialer.hear()
    supervisor = jobs.supervisor(job)
    kill(supervisor)  # the next one knows
    await until(lambda: jobs.supervisor(job) not in (0, supervisor))
    await jobs.manager.peers(job.id)
    again = Dialer(jobs.files(job), role="hook", pid=os.getpid())
    again.hear()
    await asyncio.sleep(1.5)
    assert (await jobs.manager.get(job.id)).state is JobState.RUNNING
    again.say(type="event", seq=2, time=time.time(), kind="debug_resumed")
    ended = await jobs.end(job)
    assert ended.reason is Reason.TIMEOUT
    assert ended.ended - ended.started > 2.4
    dialer.socket.close()
    again.socket.close()


async def test_a_command_is_routed_to_the_process_that_answers_it(jobs):
    job = await jobs.start("sleep", "60")
    await jobs.reach(job, JobState.RUNNING)
    dialer = Dialer(jobs.files(job))
    dialer.hear()

    def answer():
        command = dialer.hear()
        assert (command["type"], command["name"], command["args"]) == ("command", "set", {"k": 1})
        dialer.say(type="result", id=command["id"], ok=True, value=2)

    asked = jobs.manager.command(job.id, "loop", 0, "set", {"k": 1})
    result, _ = await asyncio.gather(asked, asyncio.to_thread(answer))
    assert result == {"value": 2}
    assert [peer["pid"] for peer in await jobs.manager.peers(job.id)] == [77]
    dialer.socket.close()


async def test_a_supervisor_out_of_descriptors_rests_and_then_lets_in_who_waits(jobs):
    job = await jobs.start("sleep", "600")
    await jobs.reach(job, JobState.RUNNING)
    pid = jobs.supervisor(job)
    before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    used = len(os.listdir(f"/proc/{pid}/fd"))
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (used, before[1]))
    dialer = Dialer(jobs.files(job))
    spent = await ticks_in(pid, seconds=0.5)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, before)
    assert (await asyncio.to_thread(dialer.hear))["type"] == "welcome"
    assert spent < 5
    dialer.socket.close()


async def ticks_in(pid, *, seconds):
    """Processor time that a process takes in so many seconds, in ticks of 10 ms."""

    def spent():
        with open(f"/proc/{pid}/stat", encoding="ascii") as file:
            return sum(map(int, file.read().rpartition(")")[2].split()[11:13]))

    before = spent()
    await asyncio.sleep(seconds)
    return spent() - before


@pytest.fixture
def small_disk(tmp_path):
    with small_disk_in(tmp_path) as disk:
        yield disk


async def test_a_full_disk_costs_the_job_nothing_and_every_byte_is_counted(small_disk, tmp_path):
    done = tmp_path / "done"
    source = (
        "import os, pathlib\n"
        "block = b'x' * 99_999 + b'\\n'\n"
        "for _ in range(200): os.write(1, block)\n"
        "os.write(2, b'the end\\n')\n"
        f"pathlib.Path({str(done)!r}).touch()\n"
    )
    async with tidy(small_disk / "jobs") as folder, jobs_in(folder) as jobs:
        ended = await jobs.end(await jobs.python(source))
        assert (ended.state, ended.exit_code) == (JobState.SUCCEEDED, 0)
        assert done.exists()
        printed = await jobs.printed(ended)
    lost = [piece for piece in printed.lost if piece.stream == "stdout"]
    assert 0 < len(printed.stdout) < 8 << 20
    assert len(printed.stdout) + sum(piece.length for piece in lost) == 20_000_000
    assert {piece.reason for piece in lost} == {os.strerror(errno.ENOSPC).lower()}
    assert ended.streams[0].size == 20_000_000


async def test_a_job_that_finds_no_space_is_not_half_created(small_disk):
    async with tidy(small_disk / "jobs") as folder, jobs_in(folder) as jobs:
        ballast = small_disk / "ballast"
        with ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(bytes(4096))
        with pytest.raises(DiskFull):
            await jobs.start("true")
        assert os.listdir(folder) == []
        assert await jobs.manager.list(ended=True) == []
        ballast.unlink()
        assert (await jobs.run("true")).state is JobState.SUCCEEDED


async def test_a_disk_with_room_again_is_written_again(small_disk):
    source = (
        "import os, sys, time\n"
        "for _ in range(200): os.write(1, b'x' * 100_000)\n"
        "print('full', file=sys.stderr)\n"
        "time.sleep(2.0)\n"  # outlast the pause after a failed write
        "os.write(1, b'room again')\n"
    )
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(6 << 20))
    async with tidy(small_disk / "jobs") as folder, jobs_in(folder) as jobs:
        job = await jobs.python(source)
        await until(lambda: jobs.files(job) and output_size(jobs.files(job), 0, "stderr"))
        ballast.unlink()
        await jobs.end(job)
        printed = await jobs.printed(job)
    assert printed.stdout.endswith(b"x" + b"room again")
    lost = [piece.length for piece in printed.lost if piece.stream == "stdout"]
    assert len(printed.stdout) + sum(lost) == 20_000_010


@pytest.mark.slow
async def test_a_flood_survives_kills_of_agent_and_supervisor(tmp_path):
    source = (
        "import os\n"
        "for i in range(15000): os.write(1, b''.join(b'%d:%d\\n' % (i, j) for j in range(1000)))\n"
    )
    whole = b"".join(b"%d:%d\n" % (i, j) for i in range(15000) for j in range(1000))
    chance, content, kills = random.Random(2), b"", 0
    async with tidy(tmp_path / "jobs") as folder:
        async with jobs_in(folder) as jobs:
            job = await jobs.python(source)
        is_over = False
        while not is_over:
            async with jobs_in(folder) as jobs:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(chance.uniform(0.03, 0.2)):
                        async for piece in jobs.pieces(job, {(0, "stdout"): len(content)}):
                            content += piece.data
                        is_over = True
                if not is_over and (pid := jobs.supervisor(job)):
                    kill(pid)
                    kills += 1
        async with jobs_in(folder) as jobs:
            assert (await jobs.end(job)).exit_code == 0
    assert content == whole
    assert kills > 5


async def test_stopping_a_job_without_keeper_ends_the_job_and_nobody_else(jobs):
    bystander = subprocess.Popen(["sleep", "600"], start_new_session=True)
    job = await jobs.start("sh", "-c", "setsid sleep 600 & echo $!; sleep 600")
    daemon = int(await jobs.first_bytes(job))
    keeper = jobs.keeper(job)
    kill(keeper)
    await asyncio.to_thread(await_gone, keeper)
    await jobs.manager.stop(job.id)
    ended = await jobs.end(job)
    assert (ended.state, ended.reason) == (JobState.LOST, Reason.KEEPER_LOST)
    assert look_at(daemon) is None or look_at(daemon).is_dead
    assert bystander.poll() is None
    bystander.kill()
    bystander.wait()
