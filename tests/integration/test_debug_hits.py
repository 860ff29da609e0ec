"""What a breakpoint stops and what it does not: the table of docs/debugging.md, tried for real."""

from __future__ import annotations

import asyncio
import importlib.util
from pathlib import Path

import pytest
from tests.support.hooked import SessionPipe, hooked_job
from tests.support.interpreters import interpreters

from rdev.agent.debug.manager import DebugManager
from rdev.client.debug.session import Breakpoint, Stopped, debugging

DOCS = Path(__file__).resolve().parents[2] / "docs" / "debugging.md"
SERVED = {v: path for v, path in interpreters().items() if v not in ("3.10", "3.14")}

# Each line with a comment `# at: CASE` is tried.
JOB = """
import asyncio, importlib, multiprocessing, os, sys, threading, time

def main_step():
    return 1  # at: the main thread

def new_thread():
    return 1  # at: a thread that starts after the attach

def old_thread():
    while not os.path.exists("stop"):
        time.sleep(0.01)  # at: a thread that ran before the attach

async def task():
    await asyncio.sleep(0)
    return 1  # at: an asyncio task

def batches():
    yield 1
    yield 2  # at: a generator

def forked():
    return 1  # at: a process forked after the attach

def running_worker():
    while not os.path.exists("stop"):
        time.sleep(0.01)  # at: a process forked before the attach

TORCH

if __name__ == "__main__":
    fork = multiprocessing.get_context("fork")
    worker = fork.Process(target=running_worker, daemon=True)
    worker.start()
    threading.Thread(target=old_thread, daemon=True).start()
    rounds = 0
    while not os.path.exists("stop"):
        main_step()
        thread = threading.Thread(target=new_thread)
        thread.start()
        thread.join()
        asyncio.run(task())
        list(batches())
        if TORCH_IS_HERE:
            torch_step()
        if os.path.exists("late"):
            import late
            late.step()
            child = fork.Process(target=forked)
            child.start()
            child.join(5)
            child.kill()
        rounds += 1
        with open("rounds.new", "w") as file:
            file.write(str(rounds))
        os.replace("rounds.new", "rounds")
        time.sleep(0.01)
"""

TORCH = """
import torch
torch.set_num_threads(1)

class Double(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x * 2

    @staticmethod
    def backward(ctx, gradient):
        return gradient * 2  # at: backward() of an autograd.Function, on the CPU

def hook(gradient):
    return gradient * 1  # at: a backward hook, on the CPU

def torch_step():
    x = torch.ones(2, requires_grad=True)
    x.register_hook(hook)
    Double.apply(x).sum().backward()
"""

LATE = "def step():\n    return 1  # at: a module that is imported after the attach\n"


def sources(*, has_torch: bool) -> tuple[str, str]:
    text = JOB.replace("TORCH_IS_HERE", str(has_torch))
    return text.replace("TORCH", TORCH if has_torch else ""), LATE


def cases(path: Path) -> dict[str, Breakpoint]:
    lines = enumerate(path.read_text().splitlines(), 1)
    return {
        line.partition("# at: ")[2]: Breakpoint(str(path), number)
        for number, line in lines
        if "# at: " in line
    }


async def rounds(folder: Path, *, more: int) -> None:
    """The job has been through all its cases so many times more."""

    def count() -> int:
        return int((folder / "rounds").read_text()) if (folder / "rounds").exists() else 0

    wanted = count() + more
    async with asyncio.timeout(60):
        while count() < wanted:
            await asyncio.sleep(0.05)


async def hit(client, wanted: dict[str, Breakpoint], folder: Path) -> set[str]:
    """The cases that stop; each one's breakpoint is taken out once it has."""
    left, seen = dict(wanted), set()
    await client.attach(list(left.values()))
    (folder / "late").touch()
    while True:
        halting = asyncio.create_task(client.halted())
        passing = asyncio.create_task(rounds(folder, more=4))
        await asyncio.wait({halting, passing}, return_when=asyncio.FIRST_COMPLETED)
        passing.cancel()
        if not halting.done():
            halting.cancel()
            return seen
        halt = halting.result()
        if not isinstance(halt, Stopped):
            continue
        frame = (await client.stack(halt.thread))[0]
        case = next(
            (c for c, b in left.items() if (b.path, b.line) == (frame.path, frame.line)), ""
        )
        seen.add(case)
        left.pop(case, None)
        await client.place(list(left.values()))
        await client.resume("continue", halt.thread)


def documented(version: str) -> dict[str, str]:
    """The table's column of an interpreter."""
    text = DOCS.read_text().partition("<!-- hits: begin -->")[2].partition("<!-- hits: end -->")[0]
    rows = [
        [c.strip() for c in row.strip("|").split("|")] for row in text.split("\n") if "|" in row
    ]
    column = rows[0].index(version)
    return {row[0]: row[column] for row in rows[2:]}


@pytest.mark.slow
@pytest.mark.parametrize("version", SERVED)
async def test_what_a_breakpoint_stops_is_what_the_docs_say(tmp_path, version):
    has_torch = version == "3.11" and importlib.util.find_spec("torch") is not None
    source, late = sources(has_torch=has_torch)
    (tmp_path / "late.py").write_text(late)
    async with (
        hooked_job(tmp_path, source, python=SERVED[version]) as job,
        DebugManager(job) as manager,
    ):
        await rounds(tmp_path, more=1)
        wanted = cases(tmp_path / "train.py") | cases(tmp_path / "late.py")
        async with (
            manager.session("0" * 12, 0) as session,
            debugging(SessionPipe(session)) as client,
        ):
            seen = await hit(client, wanted, tmp_path)
            await client.detach()
        await job.end()
    told = documented(version)
    found = {case: "yes" if case in seen else "no" for case in wanted}
    assert found == {case: told.get(case) for case in wanted}
