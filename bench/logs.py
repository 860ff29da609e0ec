"""A job's output, followed live: rdev beside a plain pipe and `ssh host cmd` over a mastered one.

The same program writes 400 MB in blocks, 100 MB with one write a line, and lines one at a time. It
says `ready`, waits until it is followed, and begins; so starting is not measured, and the clock
runs from its first write to the last byte read. Ways take turns within each round.

rdev is measured on the unix socket, read by the SDK in this process and by the command
`rdev logs -f`; both read gRPC directly, see rdev.protocol.polling, which a program that uses the
SDK has to ask for. By `-H` the command follows the same job through ssh: straight from the agent's
socket, or by a bridge. ssh is measured at its best, see bench.sshd.
"""

from __future__ import annotations

import asyncio
import os
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bench.measure import Figure, table
from bench.sshd import BRIDGED, HOST, sshd
from rdev.protocol.polling import poll_directly

poll_directly()  # before anything imports gRPC

# ruff: noqa: E402
from rdev.client.connection import Connection, connect
from rdev.client.jobs import Jobs
from rdev.client.known import KnownHost, remember
from rdev.client.logs import Chunk, Logs
from rdev.wire.job import CommandKind, JobSpec

ROUNDS = int(os.environ.get("RDEV_BENCH_ROUNDS", "7"))
BIN = Path(sys.executable).parent
PYTHON = os.path.realpath(sys.executable)
READY = b"ready\n"
FAR = [f"rdev logs -f -H {host}" for host in (HOST, BRIDGED)]

# The writer, for every way the same: it notes when it began and what it cost.
WRITER = """
import os, sys, time
go, kind = sys.argv[1], sys.argv[2]
os.write(1, b"ready\\n")
while not os.path.exists(go): time.sleep(0.001)
begin, spent, write = time.monotonic(), time.process_time(), os.write
if kind == "blocks":
    block = (b"x" * 99 + b"\\n") * 655 + b"y" * 36
    for _ in range(6400):
        view = memoryview(block)
        while view: view = view[write(1, view):]
elif kind == "lines":
    line = b"x" * 99 + b"\\n"
    for _ in range(1_000_000): write(1, line)
else:
    for _ in range(400):
        write(1, b"%d\\n" % time.monotonic_ns())
        time.sleep(0.005)
with open(go + ".new", "w") as file: print(begin, time.process_time() - spent, file=file)
os.rename(go + ".new", go + ".done")
"""
SIZES = {"blocks": 6400 * 65536, "lines": 100_000_000}


@dataclass
class Run:
    """One writer, followed: how much it wrote, and when it began and the last byte was read."""

    size: int
    read: float
    arrivals: list[tuple[int, bytes]]
    begin: float = 0.0
    cpu: float = 0.0

    @property
    def rate(self) -> float:
        """Megabytes a second."""
        return self.size / (self.read - self.begin) / 1e6

    @property
    def latencies(self) -> list[float]:
        """Milliseconds from each write to its reading."""
        found = []
        for arrived, content in self.arrivals:
            found += [(arrived - int(line)) / 1e6 for line in content.split()]
        return found


Follow = Callable[[list[str], str], "Run"]


@dataclass
class Results:
    """Figures of one way, over the rounds."""

    rates: dict[str, list[float]] = field(default_factory=lambda: {"blocks": [], "lines": []})
    cpu: dict[str, list[float]] = field(default_factory=lambda: {"blocks": [], "lines": []})
    median: list[float] = field(default_factory=list)
    high: list[float] = field(default_factory=list)

    def add(self, kind: str, run: Run) -> None:
        if kind == "latency":
            ordered = sorted(run.latencies)
            self.median.append(statistics.median(ordered))
            self.high.append(ordered[len(ordered) * 95 // 100])
        else:
            self.rates[kind].append(run.rate)
            self.cpu[kind].append(run.cpu)


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="rdev-bench-") as name:
        folder = Path(name)
        os.environ |= {"RDEV_HOME": str(folder / "rdev"), "HOME": name}
        os.chdir(folder)
        with sshd() as server:
            os.environ |= {**server.environment, "XDG_STATE_HOME": str(folder / "state")}
            _know_host(os.environ["RDEV_HOME"])
            try:
                asyncio.run(_measure(folder, server.ssh))
            finally:
                subprocess.run([BIN / "rdev-agent", "stop"], capture_output=True, check=False)


def _know_host(home: str) -> None:
    """By ssh the same agent is reached as without; rdev shares the connection that ssh has open."""
    bridge = shlex.join(["env", f"RDEV_HOME={home}", sys.executable, "-Im", "rdev.agent.bridge"])
    for host in (HOST, BRIDGED):
        known = KnownHost(
            host=host, agent_id="", machine_id="", home=home, bridge=bridge, dist="", release=""
        )
        remember(known)


async def _measure(folder: Path, ssh: list[str]) -> None:
    async with connect("local") as connection:
        ways: dict[str, Follow] = {
            "plain pipe": _through_pipe,
            "ssh": lambda argv, go: _through_pipe([*ssh, "bench", shlex.join(argv)], go),
        }
        results = {name: Results() for name in (*ways, "rdev, SDK", "rdev logs -f", *FAR)}
        for turn in range(-1, ROUNDS):  # one round to warm all up
            for kind in ("blocks", "lines", "latency"):
                for name, result in results.items():
                    go = str(folder / f"go.{name}.{kind}.{turn}".replace(" ", "-"))
                    argv = [PYTHON, "-I", "-S", "-c", WRITER, go, kind]
                    if name in ways:
                        run = await asyncio.to_thread(ways[name], argv, go)
                    else:
                        run = await _through_job(connection, argv, go, name=name)
                    _note(run, go, kind)
                    if turn >= 0:
                        result.add(kind, run)
        starts = await _starts(connection)
    _print(results, starts)


def _note(run: Run, go: str, kind: str) -> None:
    while not os.path.exists(go + ".done"):
        time.sleep(0.001)
    begin, cpu = Path(go + ".done").read_text(encoding="ascii").split()
    run.begin, run.cpu = float(begin), float(cpu)
    if kind in SIZES and run.size != SIZES[kind]:
        raise SystemExit(f"{run.size} bytes of {SIZES[kind]} came through")


def _touch(path: str) -> None:
    with open(path, "wb"):
        pass


def _through_pipe(argv: Sequence[str], go: str) -> Run:
    with subprocess.Popen(argv, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        descriptor = process.stdout.fileno()
        if os.read(descriptor, len(READY)) != READY:
            raise SystemExit(f"{argv[0]} did not come to run the program")
        _touch(go)
        size, arrivals = 0, []
        while content := os.read(descriptor, 1 << 20):
            size += len(content)
            if len(content) < 100:
                arrivals.append((time.monotonic_ns(), content))
            read = time.monotonic()
        return Run(size, read, arrivals)


async def _through_job(connection: Connection, argv: list[str], go: str, *, name: str) -> Run:
    jobs = Jobs(connection)
    spec = JobSpec(CommandKind.PROGRAM, argv[0], tuple(argv[1:]), hook=False)
    job = await jobs.create(spec)
    try:
        if "SDK" not in name:
            command = [str(BIN / "rdev"), *name.split()[1:], job.id]
            return await asyncio.to_thread(_through_pipe, command, go)
        size, arrivals, read = -len(READY), [], 0.0
        async for chunk in Logs(connection).tail(job.id, follow=True):
            if not isinstance(chunk, Chunk):
                raise SystemExit(f"the host lost bytes: {chunk}")
            if size < 0:
                _touch(go)
            elif len(chunk.data) < 100:
                arrivals.append((time.monotonic_ns(), chunk.data))
            size += len(chunk.data)
            read = time.monotonic()
        return Run(size, read, arrivals)
    finally:
        await jobs.wait(job.id)
        await jobs.delete(job.id)


async def _starts(connection: Connection) -> list[float]:
    """Milliseconds from the acceptance of a job to the execution of its command."""
    jobs, took = Jobs(connection), []
    for _ in range(5 * ROUNDS):
        job = await jobs.create(JobSpec(CommandKind.PROGRAM, "true", hook=False))
        job = await jobs.wait(job.id)
        took.append((job.started - job.created) * 1000)
        await jobs.delete(job.id)
    return took


def _print(results: dict[str, Results], starts: list[float]) -> None:
    print(f"{ROUNDS} interleaved rounds on loopback\n")
    for kind, what in (
        ("blocks", "419 MB in blocks of 64 KiB"),
        ("lines", "100 MB, a write a line"),
    ):
        rows = [(name, Figure(result.rates[kind])) for name, result in results.items()]
        print(f"{what}; the ratio is to ssh\n")
        print(table("MB/s", rows, base=dict(rows)["ssh"]))
        rows = [(n, Figure([v * 1000 for v in r.cpu[kind]])) for n, r in results.items()]
        print("\nthe writer's CPU; the ratio is to the plain pipe\n")
        print(table("ms", rows, base=rows[0][1]), end="\n\n")
    for what in ("median", "high"):
        print(f"line latency, {'p50' if what == 'median' else 'p95'} of each round\n")
        rows = [(n, Figure([v * 1000 for v in getattr(r, what)])) for n, r in results.items()]
        print(table("us", rows, base=dict(rows)["ssh"]), end="\n\n")
    figure = Figure(starts)
    print(f"job start, from accepting the request to executing the command: {figure} ms")


if __name__ == "__main__":
    main()
