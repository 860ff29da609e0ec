"""What is evaluated at a stop and does not return: it is interrupted, and the job is right."""

from __future__ import annotations

import asyncio
import os
import signal
from contextlib import asynccontextmanager

import pytest
from tests.support.hooked import SessionPipe, adapters, hooked_job
from tests.support.interpreters import interpreters

from rdev.agent.debug.manager import DebugManager
from rdev.client.debug.session import Breakpoint, Stopped, debugging
from rdev.protocol.errors import DebuggerUnavailable

DEADLINE = 60.0

# On one of them always, on the others with all that is slow.
ON_EACH = [
    pytest.param(path, id=v, marks=[] if v == "3.11" else [pytest.mark.slow])
    for v, path in interpreters().items()
    if v in ("3.11", "3.12", "3.13")
]

# Its numbers come out otherwise if anything lands in its own code, which would say so, too.
TRAIN = """\
import os, signal, sys, threading, time

heard = []
for number in {signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2}:
    signal.signal(number, lambda *_: heard.append(1))

def train(name):
    total, step = 0.5, 0
    while not os.path.exists("stop"):
        total = total * 1.0000001 + step  # line 10
        step += 1
        time.sleep(0.001)
    results[name] = (total, step)

results = {}
threads = [threading.Thread(target=train, args=("beside",))]
for thread in threads:
    thread.start()
train("main")
for thread in threads:
    thread.join()

for name, (total, steps) in results.items():
    again = 0.5
    for step in range(steps):
        again = again * 1.0000001 + step
    print(name, "right" if again.hex() == total.hex() else "wrong")
unhandled = [n for n in signal.valid_signals() if callable(signal.getsignal(n))]
print(heard, sorted(unhandled) == [signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2])
"""
RIGHT = "[] True\nbeside right\nmain right"

# Each tells by a file that it runs.
BEGIN = "open('begun', 'w').close()"
LOOP = f"{BEGIN}\nwhile True: pass"
SLEEP = f"({BEGIN}, __import__('time').sleep(10000))"
LOCK = f"l = __import__('threading').Lock(); l.acquire(); {BEGIN}; l.acquire()"
# Nobody writes into it: C code that does not come back.
PIPE = f"({BEGIN}, open('pipe').read(), 7)"


@pytest.fixture
def pipe(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    return tmp_path / "pipe"


@asynccontextmanager
async def held(manager, job, *, thread="main", lease=None):
    """A session whose job is held in one of its threads; its client, and the frame there."""
    async with (
        manager.session("0" * 12, 0, lease=lease) as session,
        debugging(SessionPipe(session)) as client,
    ):
        here = Breakpoint(str(job.folder / "train.py"), 10, f"name == {thread!r}")
        [placed] = await client.attach([here])
        assert placed.verified
        async with asyncio.timeout(DEADLINE):
            halt = await client.halted()
        assert isinstance(halt, Stopped), halt
        yield client, (await client.stack(halt.thread))[0]


@asynccontextmanager
async def evaluating(job, client, frame, expression):
    """The expression runs in the block, at the end of which it must be over; how is yielded."""
    outcome: asyncio.Future = asyncio.get_running_loop().create_future()

    async def ask():
        try:
            outcome.set_result((await client.evaluate(expression, frame)).value)
        except DebuggerUnavailable as error:
            outcome.set_result(error.cause)

    async with asyncio.timeout(DEADLINE), asyncio.TaskGroup() as group:
        group.create_task(ask())
        while not (job.folder / "begun").exists():
            await asyncio.sleep(0.01)
        yield outcome
        await outcome
    (job.folder / "begun").unlink()


async def end(job):
    assert "\n".join(sorted((await job.end()).splitlines())) == RIGHT


@pytest.mark.parametrize("python", ON_EACH)
async def test_an_interrupted_evaluation_leaves_the_stop_and_the_training_as_they_were(
    tmp_path, python
):
    async with hooked_job(tmp_path, TRAIN, python=python) as job, DebugManager(job) as manager:
        for thread, expressions in (("main", (LOOP, SLEEP, LOCK)), ("beside", (LOOP,))):
            async with held(manager, job, thread=thread) as (client, frame):
                for expression in expressions:
                    async with evaluating(job, client, frame, expression) as outcome:
                        assert await client.interrupt(DEADLINE)
                    assert outcome.result().splitlines()[-1] == "Interrupted", outcome.result()
                    assert (await client.evaluate("name", frame)).value == repr(thread)
                await client.detach()
        await job.event("debug_resumed", 2)
        assert job.count("debug_paused") == job.count("debug_resumed") == 2
        await end(job)


@pytest.mark.parametrize("how", ["lease", "detached", "adapter_lost"])
@pytest.mark.parametrize("python", ON_EACH)
async def test_whoever_leaves_an_evaluation_that_runs_lets_the_training_go_on(
    tmp_path, python, how
):
    async with hooked_job(tmp_path, TRAIN, python=python) as job, DebugManager(job) as manager:
        for number, expression in enumerate((SLEEP, LOOP), 1):
            async with held(manager, job) as (client, frame):
                async with evaluating(job, client, frame, expression):
                    if how == "lease":
                        await job.command("0" * 12, "hook", 0, "lease", {"seconds": 0.0})
                    elif how == "detached":
                        await client.detach()
                    else:
                        os.kill(adapters()[0], signal.SIGKILL)
                resumed = await job.event("debug_resumed", number)
                assert resumed["cause"] == how
            await job.event("debug_detached", number)
        await end(job)


@pytest.mark.slow
async def test_c_code_that_does_not_return_is_named_and_the_job_is_not_said_to_go_on(
    tmp_path, pipe
):
    text = "(open('begun', 'w').close(), open('pipe').read(), 7)"
    async with hooked_job(tmp_path, TRAIN) as job, DebugManager(job) as manager:
        async with (
            held(manager, job, thread="beside") as (client, frame),
            evaluating(job, client, frame, PIPE) as outcome,
        ):
            assert not await client.interrupt(0.1)
            threads = (await job.command("0", "hook", 0, "stack"))["threads"]
            [beside] = [each for each in threads if each["paused"] and not each["main"]]
            assert beside["frames"][0] == ["", 0, f"evaluating `{text}`"]
            client.abandon()
            assert "left" in await outcome
        assert job.answers["detach"]["evaluating"] == text
        assert job.count("debug_resumed") == 0
        with pytest.raises(DebuggerUnavailable, match="it is still in `"):
            async with manager.session("0" * 12, 0):
                pass
        pipe.open("w").close()
        await job.event("debug_resumed")
        async with held(manager, job) as (client, frame):
            assert (await client.evaluate("6 * 7", frame)).value == "42"
            await client.detach()
        await end(job)


async def test_what_an_expression_prints_is_shown_and_what_other_threads_print_is_not(tmp_path):
    async with hooked_job(tmp_path, TRAIN) as job, DebugManager(job) as manager:
        async with held(manager, job) as (client, frame):
            shown = []
            client.show_printed(shown.append)
            assert (await client.evaluate("print('one', end='')", frame)).value == ""
            await client.evaluate("for i in range(3): print(i)", frame)
            await client.evaluate(
                "import threading; t = threading.Thread(target=print, args=('beside',)); "
                "t.pydev_do_not_trace = t.is_pydev_daemon_thread = True; t.start(); t.join(); "
                "import sys; print('two', file=sys.stderr)",
                frame,
            )
            assert shown == ["one", "0", "1", "2", "two"]
            await client.detach()
        printed = await job.end()
        assert all(line in printed for line in ("one", "0\n1\n2\n", "beside\n", "two\n"))


async def test_an_evaluation_that_takes_long_is_told_of_in_no_more_than_a_line(tmp_path):
    async with hooked_job(tmp_path, TRAIN) as job, DebugManager(job) as manager:
        told: list[str] = []
        async with (
            manager.session("0" * 12, 0) as session,
            debugging(SessionPipe(session), told.append) as client,
        ):
            here = Breakpoint(str(job.folder / "train.py"), 10, "name == 'main'")
            await client.attach([here])
            async with asyncio.timeout(DEADLINE):
                halt = await client.halted()
            frame = (await client.stack(halt.thread))[0]
            await client.evaluate(
                "import sys; d = sys.modules['_pydevd_bundle.pydevd_constants']"
                ".get_global_debugger(); d.writer.add_command(d.cmd_factory"
                ".make_evaluation_timeout_msg(d, 'x', None)); d.writer.add_command(d.cmd_factory"
                ".make_skipped_step_in_because_of_filters(d, sys._getframe()))",
                frame,
            )
            await client.detach()
        assert told == ["not stepped into, as no code of yours: <string> in <module>"]
        await end(job)
