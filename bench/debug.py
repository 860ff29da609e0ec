"""What the debugger costs a training: step times in each of its states, answers, and the attach.

Step times. Three processes of one interpreter make the same steps in turn, never two at a time: one
without a hook, one with a dormant hook, and one that is attached to and left again and again. A
turn is so short that the machine is as fast in the next one, mostly; the tenth percentile and the
median of its steps are taken over those of the first process in the same turn, and the median over
all turns is the set's. Two processes of one program differ by some percent for as long as they
live, by where their memory lies; so there are several sets of three, and a row is the median over
the sets and its spread. The last row compares a process with itself before its first attach.

Answers. `evaluate` and `next` at a stop, through a session of ours and with stock debugpy on TCP.

The attach. The longest step while a debugger comes in, ours and gdb's injection by stock debugpy.

RDEV_BENCH_SETS and RDEV_BENCH_ROUNDS say how many sets there are, and rounds of all of them;
RDEV_BENCH_GDB=0 leaves out gdb, which takes minutes.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.support.hooked import SessionPipe, hooked_job
from tests.support.interpreters import interpreters

from bench.measure import Figure
from rdev.agent.debug.manager import DebugManager
from rdev.client.debug.session import Breakpoint, DebugClient, Stopped, debugging

SETS = int(os.environ.get("RDEV_BENCH_SETS", "4"))
ROUNDS = int(os.environ.get("RDEV_BENCH_ROUNDS", "8"))
ANSWERS = 200
TURNS = 5  # in each state, each round
SECONDS = 0.06  # of steps in each turn, of each process

# What a process inherits may move its memory, so all inherit the same.
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}

# The steps, by the module that they need. A step of each takes 0.2 to 0.4 ms.
STEPS = {
    "pure Python": """
def step():
    total = 0
    for number in range(4000):
        total += number
    return total
""",
    "numpy": """
import numpy as np
a, b = np.random.rand(64, 64), np.random.rand(64, 64)
def step():
    c = a
    for _ in range(12):
        c = np.tanh(c @ b)
    return c
""",
    "torch": """
import torch
torch.set_num_threads(1)
model = torch.nn.Sequential(torch.nn.Linear(64, 128), torch.nn.ReLU(), torch.nn.Linear(128, 10))
optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
x, y = torch.randn(64, 64), torch.randint(10, (64,))
def step():
    loss = torch.nn.functional.cross_entropy(model(x), y)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss
""",
}

# It makes steps while the file `label` names what is measured, and notes each one's time there.
TRAIN = """
import collections, json, os, time
{step}
open({ready!r}, "w").close()
def never_called():
    return None

def train():
    times = collections.defaultdict(list)
    clock = time.perf_counter
    while True:
        with open({label!r}) as file:
            label = file.read()
        if label == "stop":
            return times
        if label == "idle":
            time.sleep(0.005)
            continue
        for number in range(50):
            begun = clock()
            step()
            times[label].append(clock() - begun)

times = train()
json.dump(times, open({times!r}, "w"))
"""

STATES = (
    "attached, no breakpoint",
    "breakpoint elsewhere",
    "condition that is not met",
    "after detach",
)

# Of the process that will be attached to.
_BEFORE = "before attach"


class Process:
    """One training, and what it is told to measure."""

    def __init__(self, folder: Path, step: str) -> None:
        folder.mkdir()
        self.folder = folder
        self._label, self._times = folder / "label", folder / "times"
        self.measure("idle")
        self._ready = folder / "ready"
        places = {"label": self._label, "times": self._times, "ready": self._ready}
        self.source = TRAIN.format(step=step, **{name: str(path) for name, path in places.items()})
        lines = self.source.splitlines()
        self.step_line = lines.index("            step()") + 1
        self.other_line = lines.index("    return None") + 1

    def measure(self, label: str) -> None:
        made = self._label.with_suffix(".new")
        made.write_text(label)
        made.rename(self._label)

    async def turn(self, label: str) -> None:
        self.measure(label)
        await asyncio.sleep(SECONDS)
        self.measure("idle")
        await asyncio.sleep(0.02)  # it may be in the midst of its 50 steps

    async def ready(self) -> None:
        """Returns once it has imported what it needs."""
        while not self._ready.exists():
            await asyncio.sleep(0.05)

    def times(self) -> dict[str, list[float]]:
        return json.loads(self._times.read_text())


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="rdev-bench-") as name:
        folder = Path(name)
        for version, python in _pythons(folder).items():
            for what in ("pure Python", "numpy", "torch"):
                if _has(python, what):
                    made = Path(tempfile.mkdtemp(dir=folder))
                    asyncio.run(_step_times(made, python, version=version, what=what))
        asyncio.run(_answers(folder))
        asyncio.run(_attach(folder))


def _pythons(folder: Path) -> dict[str, str]:
    """Interpreters with numpy: the one that runs this, and environments made for the others."""
    served = {version: python for version, python in interpreters().items() if version != "3.10"}
    return {
        version: python if python == sys.executable else _with_numpy(python, folder / version)
        for version, python in served.items()
    }


def _with_numpy(python: str, folder: Path) -> str:
    subprocess.run([python, "-m", "venv", folder], check=True)
    made = str(folder / "bin" / "python")
    quiet = ("-q", "--disable-pip-version-check")
    subprocess.run([made, "-m", "pip", "install", *quiet, "numpy"], check=False)
    return made


def _has(python: str, what: str) -> bool:
    module = {"numpy": "numpy", "torch": "torch"}.get(what, "sys")
    command = [python, "-c", f"import {module}"]
    return subprocess.run(command, check=False, capture_output=True).returncode == 0


async def _step_times(folder: Path, python: str, *, version: str, what: str) -> None:
    sets = [await _set(folder / str(number), python, what=what) for number in range(SETS)]
    base = statistics.median(time for times in sets for time in times.base())
    print(f"{version}, {what}: {base * 1e6:.0f} us a step, {SETS} sets")
    for state in ("dormant hook", *STATES):
        _print_row(state, [times.ratios(state) for times in sets])
    _print_row("after detach / before attach", [times.against_itself() for times in sets])
    print(flush=True)


def _print_row(name: str, found: list[tuple[float, float]]) -> None:
    cells = []
    for words, ratios in zip(("p10", "median"), zip(*found, strict=True), strict=True):
        spread = f"({min(ratios):.3f} to {max(ratios):.3f})"
        cells.append(f"{words} {statistics.median(ratios):6.3f} {spread}")
    print(f"  {name:28} {'   '.join(cells)}")


@dataclass(frozen=True)
class Set:
    """The step times of three processes, by the names of their turns."""

    plain: dict[str, list[float]]
    dormant: dict[str, list[float]]
    target: dict[str, list[float]]

    def base(self) -> list[float]:
        return [time for times in self.plain.values() for time in times]

    def ratios(self, state: str) -> tuple[float, float]:
        """The tenth percentile and the median in a state over those without a hook."""
        state, of = (STATES[0], self.dormant) if state == "dormant hook" else (state, self.target)
        turns = [name for name in self.plain if name.rpartition("/")[0] == state]
        pairs = [_ratios(of[name], self.plain[name]) for name in turns]
        tenths, medians = zip(*pairs, strict=True)
        return statistics.median(tenths), statistics.median(medians)

    def against_itself(self) -> tuple[float, float]:
        after, before = self.ratios("after detach"), self.ratios(_BEFORE)
        return after[0] / before[0], after[1] / before[1]


async def _set(folder: Path, python: str, *, what: str) -> Set:
    folder.mkdir()
    plain, dormant, target = trio = [Process(folder / name, STEPS[what]) for name in "pdt"]
    script = plain.folder / "train.py"
    script.write_text(plain.source)
    kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    bare = await asyncio.create_subprocess_exec(
        python, script, cwd=plain.folder, env={**kept, **ENVIRONMENT}
    )
    async with (
        hooked_job(dormant.folder, dormant.source, python=python, environment=ENVIRONMENT) as idle,
        hooked_job(target.folder, target.source, python=python, environment=ENVIRONMENT) as job,
        DebugManager(job) as manager,
    ):
        await asyncio.gather(*(process.ready() for process in trio))
        turns = (f"{number}" for number in itertools.count())

        async def measure(state: str) -> None:
            for _ in range(TURNS):
                turn = f"{state}/{next(turns)}"
                for process in trio:
                    await process.turn(turn)

        rounds = max(1, ROUNDS // SETS)
        for _ in range(rounds):
            await measure(_BEFORE)
        for _ in range(rounds):
            await _round(str(job.folder / "train.py"), manager, target, measure)
        for process in trio:
            process.measure("stop")
        await asyncio.gather(bare.wait(), job.process.wait(), idle.process.wait())
    return Set(*(process.times() for process in trio))


async def _round(
    script: str,
    manager: DebugManager,
    target: Process,
    measure: Callable[[str], Awaitable[None]],
) -> None:
    async with _attached(manager) as client:
        await client.attach([])
        await measure(STATES[0])
        await client.place([Breakpoint(script, target.other_line)])
        await measure(STATES[1])
        await client.place([Breakpoint(script, target.step_line, "number < 0")])
        await measure(STATES[2])
        await client.detach()
    await measure(STATES[3])


def _ratios(times: list[float], base: list[float]) -> tuple[float, float]:
    def tenth(values: list[float]) -> float:
        return statistics.quantiles(values, n=10)[0]

    return tenth(times) / tenth(base), statistics.median(times) / statistics.median(base)


@asynccontextmanager
async def _attached(manager: DebugManager) -> AsyncIterator[DebugClient]:
    async with manager.session("0" * 12, 0) as session, debugging(SessionPipe(session)) as client:
        yield client


async def _answers(folder: Path) -> None:
    ours, stock = Process(folder / "ours", STEPS["pure Python"]), folder / "stock"
    ours.measure("running")
    async with (
        hooked_job(ours.folder, ours.source) as job,
        DebugManager(job) as manager,
        _attached(manager) as client,
    ):
        found = await _at_a_stop(client, str(job.folder / "train.py"), ours.step_line)
    theirs = Process(stock, STEPS["pure Python"])
    theirs.measure("running")
    script = stock / "train.py"
    script.write_text(theirs.source)
    async with _stock(script) as client:
        reference = await _at_a_stop(client, str(script), theirs.step_line)
    for name, figures in found.items():
        other = reference[name]
        print(f"{name}: ours {figures} ms, p95 {_p95(figures):.1f}")
        print(f"{'':{len(name)}}  stock {other} ms, p95 {_p95(other):.1f}")
    print(flush=True)


def _p95(figure: Figure) -> float:
    return statistics.quantiles(figure.values, n=20)[-1]


async def _at_a_stop(client: DebugClient, script: str, line: int) -> dict[str, Figure]:
    await client.attach([Breakpoint(script, line)])
    stop = await _stopped(client)
    frame = (await client.stack(stop.thread))[0]
    evaluate = [await _timed(lambda: client.evaluate("number + 1", frame)) for _ in range(ANSWERS)]
    await client.place([])
    steps = []
    for _ in range(ANSWERS // 4):

        async def step() -> None:
            await client.resume("next", stop.thread)
            await _stopped(client)

        steps.append(await _timed(step))
    await client.detach()
    return {"evaluate": Figure(evaluate), "next    ": Figure(steps)}


async def _stopped(client: DebugClient) -> Stopped:
    async with asyncio.timeout(30):
        halt = await client.halted()
    if not isinstance(halt, Stopped):
        raise TypeError(f"the session ended: {halt}")
    return halt


async def _timed(action: Callable[[], object]) -> float:
    begun = time.perf_counter()
    await action()  # type: ignore[misc]  # every action here is a coroutine function
    return (time.perf_counter() - begun) * 1000


class _TcpPipe:
    """A client's end of stock debugpy's TCP connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    async def receive(self) -> bytes:
        return await self._reader.read(65536)

    async def send(self, data: bytes) -> None:
        self._writer.write(data)
        await self._writer.drain()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@asynccontextmanager
async def _stock(script: Path) -> AsyncIterator[DebugClient]:
    port = _free_port()
    words = ("-X", "frozen_modules=off", "-m", "debugpy", "--listen", f"127.0.0.1:{port}")
    process = await asyncio.create_subprocess_exec(sys.executable, *words, script)
    try:
        reader, writer = await _connected(port)
        async with debugging(_TcpPipe(reader, writer)) as client:
            yield client
        writer.close()
    finally:
        process.kill()
        await process.wait()


async def _connected(port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    deadline = time.monotonic() + 30
    while True:
        try:
            return await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            if time.monotonic() > deadline:
                raise
            await asyncio.sleep(0.05)


async def _attach(folder: Path) -> None:
    """The longest step of a torch training while a debugger comes in."""
    ours: list[float] = []
    taken: list[float] = []
    for number in range(max(1, ROUNDS // 2)):
        process = Process(folder / f"attach-{number}", STEPS["torch"])
        async with hooked_job(process.folder, process.source) as job, DebugManager(job) as manager:
            process.measure("running")
            await process.ready()
            await asyncio.sleep(0.5)
            process.measure("attach")
            begun = time.perf_counter()
            async with _attached(manager) as client:
                await client.attach([])
                taken.append((time.perf_counter() - begun) * 1000)
                await asyncio.sleep(0.5)
                process.measure("running")
                await asyncio.sleep(0.1)
                await client.detach()
            process.measure("stop")
            await job.process.wait()
        ours.append(max(process.times()["attach"]) * 1000)
    print(f"attach: ready after  {Figure(taken)} ms; longest step meanwhile {Figure(ours)} ms")
    if os.environ.get("RDEV_BENCH_GDB") == "0":
        return
    if shutil.which("gdb") is None:
        print("        gdb is not here, so there is no injection to compare with")
        return
    for name, extra in (
        ("gdb injection", {}),
        ("  of few libraries", {"PYDEVD_GDB_SCAN_SHARED_LIBRARIES": FEW_LIBRARIES}),
    ):
        took, longest = await _injected(Path(tempfile.mkdtemp(dir=folder)), extra)
        print(f"{name}: ready after {took:.0f} ms; longest step meanwhile {longest:.0f} ms")


FEW_LIBRARIES = "libdl, libltdl, libc, libfreebl3"


async def _injected(folder: Path, extra: dict[str, str]) -> tuple[float, float]:
    process = Process(folder / "gdb", STEPS["torch"])
    script = process.folder / "train.py"
    script.write_text(process.source)
    training = await asyncio.create_subprocess_exec(sys.executable, script)
    process.measure("running")
    await process.ready()
    await asyncio.sleep(0.5)
    process.measure("attach")
    begun = time.perf_counter()
    words = ("-m", "debugpy", "--listen", f"127.0.0.1:{_free_port()}", "--pid", str(training.pid))
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(60):
            done = await asyncio.create_subprocess_exec(
                sys.executable, *words, env={**os.environ, **extra}, stdout=-3, stderr=-3
            )
            await done.wait()
    took = (time.perf_counter() - begun) * 1000
    await asyncio.sleep(1.0)
    process.measure("stop")
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(20):
            await training.wait()
    if training.returncode is None:
        training.kill()
        await training.wait()
        return took, float("nan")
    return took, max(process.times()["attach"]) * 1000


if __name__ == "__main__":
    main()
