"""Processes that rdev did not start, entered for real: none of them may come to harm."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest
from tests.support.interpreters import interpreters

import rdev.hook
from rdev.agent.debug import entering
from rdev.agent.debug.preflight import Found, libc_of, look, refusal, rights
from rdev.agent.debug.strangers import Strangers
from rdev.agent.debug.symbols import addresses
from rdev.client.bootstrap.install import _is_used_here
from rdev.protocol.errors import (
    DebuggerUnavailable,
    JobConflict,
    JobNotFound,
    PermissionRefused,
    RdevError,
    TimedOut,
)

pytestmark = pytest.mark.skipif(
    os.uname().machine != "x86_64", reason="strangers are entered on x86-64"
)

ROOT = Path(__file__).resolve().parents[2]
SERVED = {v: path for v, path in interpreters().items() if v in ("3.11", "3.12", "3.13")}
DEADLINE = 60.0

# Results in vector registers and in general ones, timers that interrupt system calls, sleeps,
# another thread that wants the lock, and memory that is taken and given back.
BUSY = """
    import array, hashlib, math, os, signal, sys, threading, time
    ticks = 0
    def tick(*_):
        global ticks
        ticks += 1
    signal.signal(signal.SIGALRM, tick)
    signal.setitimer(signal.ITIMER_REAL, 0.003, 0.003)
    going = True
    def beside():
        while going:
            hashlib.sha256(b"y" * 100_000).digest()
    thread = threading.Thread(target=beside)
    thread.start()
    block = bytes(range(256)) * 400
    want = hashlib.sha256(block).hexdigest()
    numbers = [n / 7 for n in range(2000)]
    total = math.fsum(map(math.sqrt, numbers))
    print("begun", flush=True)
    rounds = 0
    while not os.path.exists("stop"):
        assert hashlib.sha256(block).hexdigest() == want
        assert math.fsum(map(math.sqrt, numbers)) == total
        assert sum(array.array("d", numbers)) == sum(numbers)
        began = time.monotonic()
        time.sleep(0.001)
        assert time.monotonic() - began >= 0.001
        rounds += 1
    signal.setitimer(signal.ITIMER_REAL, 0)
    going = False
    thread.join()
    print("right", rounds > 10, ticks > 10)
"""


class NoJobs:
    """An agent without jobs."""

    async def get(self, reference):
        raise JobNotFound(f"find the job {reference!r}", "no job has that id")

    async def peers(self, job_id):
        return await self.get(job_id)


@contextlib.contextmanager
def running(folder: Path, source: str, *, python: str = sys.executable, words=()):
    script = folder / "script.py"
    script.write_text(textwrap.dedent(source))
    process = subprocess.Popen(
        [*words, python, script],
        cwd=folder,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "begun\n"
        yield process
    finally:
        process.kill()
        process.communicate()


def finished(process: subprocess.Popen, folder: Path) -> str:
    (folder / "stop").touch()
    output, _ = process.communicate(timeout=DEADLINE)
    assert process.returncode == 0, (process.returncode, output)
    return output


def asked(found: Found, source: str = "pass\n", **places: int) -> dict[str, object]:
    """Has a process run a line, once; what its tracer says."""
    order = {
        "pid": found.pid,
        "ticks": found.ticks,
        "vector": found.vector.hex(),
        "source": source,
        "places": entering._places(found) | places,
    }
    done = subprocess.run(
        [sys.executable, "-I", entering._TRACER],
        input=json.dumps(order) + "\n",
        stdout=subprocess.PIPE,
        text=True,
        timeout=2 * DEADLINE,
        check=True,
    )
    return json.loads(done.stdout)


def asleep(found: Found, seconds: float) -> dict[str, int]:
    """Places of which the second call is a sleep in C, which ends well."""
    libc = libc_of(found.files)
    assert libc is not None
    [sleep] = addresses(libc.path, libc.start, ("usleep",)).values()
    return {"add_pending_call": sleep, "run_simple_string": int(seconds * 1e6)}


def mapped_bytes(pid: int) -> int:
    lines = Path(f"/proc/{pid}/maps").read_text().splitlines()
    ranges = [line.split()[0].split("-") for line in lines]
    return sum(int(end, 16) - int(start, 16) for start, end in ranges)


def until(condition) -> None:
    deadline = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.002)


@pytest.mark.parametrize(
    ("version", "rounds"),
    [
        pytest.param(version, 10 if path == sys.executable else 20, marks=marks)
        for version, path in SERVED.items()
        for marks in ([() if path == sys.executable else pytest.mark.slow])
    ]
    + [pytest.param("3.11", 100, marks=pytest.mark.slow)],
)
def test_a_busy_process_is_entered_again_and_again_and_computes_what_it_would(
    tmp_path, version, rounds
):
    with running(tmp_path, BUSY, python=SERVED[version]) as process:
        told = tmp_path / "told"
        found = look(process.pid)
        assert refusal(found, rights()) is None
        for _ in range(rounds):
            assert "stopped" in asked(found, f"open({str(told)!r}, 'a').write('x')\n")
        deadline = time.monotonic() + DEADLINE
        while not told.exists() or len(told.read_text()) < rounds:
            assert time.monotonic() < deadline
            assert process.poll() is None
            time.sleep(0.01)
        assert finished(process, tmp_path) == "right True True\n"


# Its main thread sits in C until it is sent a line, twice.
READS = """
    import sys
    print("begun", flush=True)
    sys.stdin.readline()
    print("read", flush=True)
    sys.stdin.readline()
"""


def let_read(process: subprocess.Popen) -> None:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write("\n")
    process.stdin.flush()
    assert process.stdout.readline() == "read\n"


def test_a_process_that_became_another_program_since_it_was_looked_at_is_left_alone(tmp_path):
    source = """
        import os, sys
        print("begun", flush=True)
        sys.stdin.readline()
        os.execv("/bin/sh", ["sh", "-c", "echo read; read line; exit 7"])
    """
    with running(tmp_path, source) as process:
        before = look(process.pid)
        let_read(process)
        assert look(process.pid).ticks == before.ticks  # by which the process is known
        assert asked(before)["error"] == "it has become another program meanwhile"
        process.communicate("\n", timeout=DEADLINE)
        assert process.returncode == 7


def test_a_process_that_was_stopped_since_it_was_looked_at_stays_so(tmp_path):
    with running(tmp_path, READS) as process:
        before = look(process.pid)
        process.send_signal(signal.SIGSTOP)
        os.waitpid(process.pid, os.WUNTRACED)
        assert asked(before)["error"] == "it was stopped by a signal"
        assert look(process.pid).state == "T"
        process.send_signal(signal.SIGCONT)
        let_read(process)
        process.communicate("\n", timeout=DEADLINE)
        assert process.returncode == 0


def test_a_stop_signal_in_the_middle_of_a_call_waits_for_its_end(tmp_path):
    with running(tmp_path, READS) as process:
        found = look(process.pid)

        def stop() -> None:
            # 230 is the system call that sleeps: the thread is in our call.
            system_call = Path(f"/proc/{process.pid}/syscall")
            until(lambda: system_call.read_text().startswith("230 "))
            process.send_signal(signal.SIGSTOP)

        stopper = threading.Thread(target=stop)
        stopper.start()
        answer = asked(found, **asleep(found, 1.0))
        stopper.join(DEADLINE)
        assert "stopped" in answer, answer
        until(lambda: look(process.pid).state == "T")
        process.send_signal(signal.SIGCONT)
        let_read(process)
        process.communicate("\n", timeout=DEADLINE)
        assert process.returncode == 0


@pytest.mark.slow
def test_a_call_that_does_not_return_is_taken_back(tmp_path):
    with running(tmp_path, READS) as process:
        found = look(process.pid)
        answer = asked(found, **asleep(found, 600.0))
        assert answer["error"] == "the call does not return: another thread keeps a lock"
        let_read(process)
        process.communicate("\n", timeout=DEADLINE)
        assert process.returncode == 0


def test_a_queue_that_is_full_is_said_and_no_memory_stays_behind(tmp_path):
    source = """
        import ctypes, sys, threading
        kind = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p)
        nothing = kind(lambda _: 0)
        def fill():
            while ctypes.pythonapi.Py_AddPendingCall(nothing, None) == 0:
                pass
            print("begun", flush=True)
        threading.Timer(0.2, fill).start()
        sys.stdin.readline()
        print("read", flush=True)
        sys.stdin.readline()
    """
    with running(tmp_path, source) as process:
        found = look(process.pid)
        # The thread that has filled it is over, and its stack no more in the map.
        until(lambda: len(os.listdir(f"/proc/{process.pid}/task")) == 1)
        before = mapped_bytes(process.pid)
        assert asked(found)["error"] == "its queue of pending calls is full"
        assert mapped_bytes(process.pid) == before
        let_read(process)
        process.communicate("\n", timeout=DEADLINE)
        assert process.returncode == 0


async def test_whoever_waits_behind_one_who_gave_up_reaches_the_process(tmp_path):
    with running(tmp_path, READS) as process:
        async with Strangers(str(tmp_path / "strangers"), NoJobs(), patience=2.0) as strangers:
            first = asyncio.create_task(strangers.reach(process.pid))
            second = asyncio.create_task(strangers.reach(process.pid))
            with pytest.raises(TimedOut):
                await first
            let_read(process)
            reached = await second
            answer = await strangers.command(reached.job.id, "hook", 0, "status")
            assert answer["pid"] == process.pid
        # Nothing of it is left for the loop's end, which would say so with a traceback.
        assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_a_main_thread_that_executes_no_python_is_asked_once_however_often_one_tries(
    tmp_path,
):
    with running(tmp_path, READS) as process:
        sizes = []
        async with Strangers(str(tmp_path / "strangers"), NoJobs(), patience=0.1) as strangers:
            for _ in range(3):
                with pytest.raises(TimedOut, match="its main thread executes no Python"):
                    await strangers.reach(process.pid)
                sizes.append(mapped_bytes(process.pid))
        assert len(set(sizes)) == 1
        let_read(process)


async def test_a_main_thread_that_waits_for_a_disk_this_moment_is_entered_the_next(tmp_path):
    # Until its child has opened the file, the parent is in the kernel's uninterruptible sleep.
    source = """
        import os
        print("begun", flush=True)
        opening = [(os.POSIX_SPAWN_OPEN, 0, "pipe", os.O_RDONLY, 0)]
        child = os.posix_spawn("/bin/true", ["true"], {}, file_actions=opening)
        os.waitpid(child, 0)
        while not os.path.exists("stop"):
            pass
    """
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with running(tmp_path, source) as process:
        until(lambda: look(process.pid).state == "D")
        async with Strangers(str(tmp_path / "strangers"), NoJobs()) as strangers:
            reaching = asyncio.create_task(strangers.reach(process.pid))
            done, _ = await asyncio.wait([reaching], timeout=0.3)
            assert not done
            pipe.open("w").close()
            await reaching
            assert finished(process, tmp_path) == ""


async def test_the_release_that_a_dormant_hook_is_of_is_not_removed_as_unused(tmp_path):
    link = tmp_path / "release"
    link.symlink_to(Path(rdev.hook.__file__).parents[1])
    source = """
        import os, time
        print("begun", flush=True)
        while not os.path.exists("stop"):
            time.sleep(0.01)
    """
    with running(tmp_path, source) as process:

        def is_used() -> bool:
            return _is_used_here(str(link), processes=lambda: [str(process.pid)])

        assert not is_used()
        async with Strangers(str(tmp_path / "strangers"), NoJobs()) as strangers:
            await strangers.reach(process.pid)
            until(is_used)
        assert finished(process, tmp_path) == ""


@pytest.mark.slow
async def test_a_child_that_inherited_the_hook_is_named_with_its_parent(tmp_path):
    source = """
        import os, time
        print("begun", flush=True)
        while not os.path.exists("fork"):
            time.sleep(0.01)
        child = os.fork()
        while not os.path.exists("stop"):
            time.sleep(0.01)
        if child:
            os.waitpid(child, 0)
    """
    with running(tmp_path, source) as process:
        async with Strangers(str(tmp_path / "strangers"), NoJobs()) as strangers:
            reached = await strangers.reach(process.pid)
            (tmp_path / "fork").touch()
            async with asyncio.timeout(DEADLINE):
                while len(peers := await strangers.peers(reached.job.id)) < 2:
                    await asyncio.sleep(0.01)
            [child] = {int(peer["pid"]) for peer in peers} - {process.pid}
            with pytest.raises(DebuggerUnavailable, match=f"process {process.pid} has forked it"):
                await strangers.reach(child)
            finished(process, tmp_path)


async def test_a_main_thread_that_executes_no_python_is_waited_for_and_entered_later(tmp_path):
    with running(tmp_path, READS) as process:
        async with Strangers(str(tmp_path / "strangers"), NoJobs(), patience=0.5) as strangers:
            with pytest.raises(TimedOut, match="its main thread executes no Python") as caught:
                await strangers.reach(process.pid)
            assert caught.value.hint == (
                "the hook comes in when that ends; the same command attaches then"
            )
            let_read(process)
            reached = await strangers.reach(process.pid)
            answer = await strangers.command(reached.job.id, "hook", 0, "status")
            assert answer["pid"] == process.pid
            with pytest.raises(JobConflict, match="rdev did not start it"):
                await strangers.stop(reached.job.id)
        process.communicate("\n", timeout=DEADLINE)
        assert process.returncode == 0


@pytest.mark.slow
async def test_an_agent_after_the_first_finds_the_hook_that_the_process_has(tmp_path):
    source = """
        import os, time
        print("begun", flush=True)
        while not os.path.exists("stop"):
            time.sleep(0.01)
        print("environment", "RDEV_JOB_SOCKET" in os.environ, breakpoint is not None)
    """
    folder = tmp_path / "strangers"
    with running(tmp_path, source) as process:
        async with Strangers(str(folder), NoJobs()) as strangers:
            first = await strangers.reach(process.pid)
            again = await strangers.reach(process.pid)
            assert again == first
            assert first.is_stranger
        [left] = folder.iterdir()
        assert left.stat().st_mode & 0o777 == 0o700
        before = Path(f"/proc/{process.pid}/maps").read_text().count("\n")
        async with Strangers(str(folder), NoJobs()) as strangers:
            later = await strangers.reach(process.pid)
            assert later.job.id == first.job.id
            [peer] = await strangers.peers(later.job.id)
            assert peer["pid"] == process.pid
            # It was not entered a second time: that leaves a page behind.
            assert Path(f"/proc/{process.pid}/maps").read_text().count("\n") <= before
            assert finished(process, tmp_path) == "environment False True\n"
            assert (await strangers.get(later.job.id)).state.is_final
        assert list(folder.iterdir()) == []


@pytest.mark.parametrize("number", range(4))  # a race, which one try may miss
@pytest.mark.slow
async def test_a_process_that_forks_all_the_time_answers_afterwards(tmp_path, number):
    source = """
        import os
        print("begun", flush=True)
        while not os.path.exists("stop"):
            child = os.fork()
            if not child:
                os._exit(0)
            assert os.waitpid(child, 0)[1] == 0
    """
    with running(tmp_path, source) as process:
        async with Strangers(str(tmp_path / "strangers"), NoJobs()) as strangers:
            reached = await strangers.reach(process.pid)
            answer = await strangers.command(reached.job.id, "hook", 0, "status", timeout=5.0)
            assert answer["pid"] == process.pid
            finished(process, tmp_path)


@pytest.mark.slow
async def test_the_hook_of_another_agent_is_left_alone(tmp_path):
    source = """
        import os, time
        print("begun", flush=True)
        while not os.path.exists("stop"):
            time.sleep(0.01)
    """
    with running(tmp_path, source) as process:
        async with (
            Strangers(str(tmp_path / "one"), NoJobs()) as one,
            Strangers(str(tmp_path / "other"), NoJobs()) as other,
        ):
            reached = await one.reach(process.pid)
            with pytest.raises(DebuggerUnavailable, match="it has the hook of another agent"):
                await other.reach(process.pid)
            answer = await one.command(reached.job.id, "hook", 0, "status")
            assert answer["pid"] == process.pid
            assert finished(process, tmp_path) == ""


async def _refused(folder: Path, pid: int) -> str:
    async with Strangers(str(folder), NoJobs()) as strangers:
        with pytest.raises(RdevError) as caught:
            await strangers.reach(pid)
    return caught.value.cause


async def test_what_is_no_file_has_no_source_and_nobody_waits_for_it(tmp_path):
    os.mkfifo(tmp_path / "pipe.py")
    with running(tmp_path, READS) as process:
        async with Strangers(str(tmp_path / "s"), NoJobs(), patience=0.1) as strangers:
            with pytest.raises(TimedOut):
                await strangers.reach(process.pid)
            [job_id] = strangers._known
            text = await strangers.source(job_id, str(tmp_path / "script.py"))
            assert text is not None
            assert b"readline" in text
            for name in ("pipe.py", "", "none.py"):
                try:
                    assert await strangers.source(job_id, str(tmp_path / name)) is None
                finally:  # whoever waits for a writer can go on
                    with contextlib.suppress(OSError):
                        os.close(os.open(tmp_path / "pipe.py", os.O_WRONLY | os.O_NONBLOCK))


async def test_a_site_without_hooks_has_none_in_strangers_either(tmp_path):
    with running(tmp_path, "print('begun', flush=True); input()") as process:
        async with Strangers(str(tmp_path / "s"), NoJobs(), is_allowed=False) as strangers:
            with pytest.raises(PermissionRefused, match="`hook = false`"):
                await strangers.reach(process.pid)


async def test_a_process_that_stands_still_or_is_traced_is_left_as_it_is(tmp_path):
    source = "print('begun', flush=True); input()"
    with running(tmp_path, source) as process:
        process.send_signal(signal.SIGSTOP)
        os.waitpid(process.pid, os.WUNTRACED)
        assert await _refused(tmp_path / "s", process.pid) == "it was stopped by a signal"
        process.send_signal(signal.SIGCONT)
        tracing = (
            "import sys; from rdev.agent.debug import tracer;"
            "tracer._ptrace(tracer._SEIZE, int(sys.argv[1]));"
            "print('traces', flush=True); sys.stdin.readline()"
        )
        tracer = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", tracing, str(process.pid)),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert tracer.stdout is not None
        assert await tracer.stdout.readline() == b"traces\n"
        cause = await _refused(tmp_path / "s", process.pid)
        assert cause == f"process {tracer.pid} traces it already, as strace and gdb do"
        await tracer.communicate(b"\n")
        process.communicate("\n", timeout=DEADLINE)
        assert process.returncode == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="a mount namespace takes root")
async def test_a_process_in_a_container_is_refused(tmp_path):
    source = "print('begun', flush=True); input()"
    with running(tmp_path, source, words=("unshare", "--mount")) as process:
        cause = await _refused(tmp_path / "s", process.pid)
        assert cause == "it runs in a container, or sees other files than the agent"
