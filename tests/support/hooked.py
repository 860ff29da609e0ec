"""A job of one real process whose supervisor is a small real server of the job channel.

It drives the hook and the debug manager without agent and supervisor around them.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
import sys
import textwrap
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from rdev.hook import PLANT
from rdev.protocol.errors import JobConflict
from rdev.wire import channel
from rdev.wire.job import CommandKind, Job, JobSpec, JobState
from rdev.wire.unix import short_socket_path


class HookedJob:
    """One process, its channel, and what the debug manager asks of the jobs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.events: list[dict[str, Any]] = []
        self.hello: dict[str, Any] = {}
        self.hellos: list[dict[str, Any]] = []
        self._changed = asyncio.Condition()
        self._writers: dict[int, asyncio.StreamWriter] = {}
        self._answers: dict[str, asyncio.Future[dict[str, Any]]] = {}
        self._ids = itertools.count(1)
        self.process: asyncio.subprocess.Process
        self.server: asyncio.Server
        self.spec = JobSpec(kind=CommandKind.SCRIPT, target="train.py")
        self.argv: tuple[str, ...] = ()
        self.orders: list[dict[str, Any]] = []  # what each command carried
        self.answers: dict[str, dict[str, Any]] = {}  # the last answer to each

    async def get(self, reference: str) -> Job:
        running = self.process.returncode is None
        return Job(
            id=reference,
            name="train",
            spec=self.spec,
            state=JobState.RUNNING if running else JobState.SUCCEEDED,
            pid=self.process.pid,
            argv=self.argv,
            directory=str(self.folder),
        )

    async def peers(self, job_id):
        del job_id  # there is one job
        return [{"role": "hook", "rank": 0, "pid": pid} for pid in self._writers]

    async def command(self, job_id, role, rank, name, args=None, *, pid=None, timeout=30.0):
        del job_id, role, rank, pid  # there is one process
        self.orders.append(dict(args or {}))
        writer = self._writers.get(self.process.pid)
        if writer is None:
            raise JobConflict("route the job", "no hook of rank 0 is connected")
        number = str(next(self._ids))
        answer: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._answers[number] = answer
        message = {"type": "command", "id": number, "name": name, "args": dict(args or {})}
        writer.write(channel.encode(message))
        await writer.drain()
        async with asyncio.timeout(timeout):
            result = await answer
        if not result["ok"]:
            raise JobConflict("route the job", result["cause"])
        self.answers[name] = result
        return result

    def record(self, job_id: str) -> Any:
        del job_id  # there is one job
        return SimpleNamespace(files=SimpleNamespace(directory=str(self.folder)))

    async def until(self, condition, seconds: float = 20.0) -> None:
        """Waits for the channel to bring about a condition."""
        async with asyncio.timeout(seconds), self._changed:
            await self._changed.wait_for(condition)

    def count(self, kind: str) -> int:
        return sum(event["kind"] == kind for event in self.events)

    async def end(self) -> str:
        """Tells the endless script to end; what it printed."""
        (self.folder / "stop").touch()
        async with asyncio.timeout(30):
            output, _ = await self.process.communicate()
        assert self.process.returncode == 0, output.decode()
        return output.decode()

    def abandon(self) -> None:
        """The supervisor is gone, with its connections, and no other one comes."""
        self.server.close()
        for writer in self._writers.values():
            writer.transport.abort()

    async def event(self, kind: str, count: int = 1) -> dict[str, Any]:
        """Waits for the count-th event of a kind."""

        def found() -> list[dict[str, Any]]:
            return [event for event in self.events if event["kind"] == kind]

        await self.until(lambda: len(found()) >= count)
        return found()[count - 1]

    async def serve(self, reader, writer) -> None:
        buffer = channel.LineBuffer()
        pid = 0
        try:
            while data := await reader.read(65536):
                for line in buffer.feed(data):
                    message = channel.decode(line)
                    pid = message.get("pid", pid) if message["type"] == "hello" else pid
                    await self._take(message, writer)
        except ConnectionError:
            pass
        finally:
            if self._writers.get(pid) is writer:
                del self._writers[pid]
            # A child of the process that has come and gone owes no answer.
            owed = self._answers.values() if pid == self.process.pid else ()
            for answer in owed:
                if not answer.done():
                    answer.set_exception(JobConflict("route the job", "the process has gone"))
            writer.close()

    async def _take(self, message, writer) -> None:
        async with self._changed:
            if message["type"] == "hello":
                self.hellos.append(message)
                if message["role"] == "hook":
                    self._writers[message["pid"]] = writer
                if message["pid"] == self.process.pid:
                    self.hello = message
                welcome = {"type": "welcome", "version": 1, "job": "0" * 12, "acknowledged": 0}
                writer.write(channel.encode(welcome))
            elif message["type"] == "event":
                self.events.append(message)
                writer.write(channel.encode({"type": "ack", "seq": message["seq"]}))
            elif message["type"] == "result":
                answer = self._answers.pop(message["id"])
                if not answer.done():  # nobody waits for it any more
                    answer.set_result(message)
            self._changed.notify_all()


@asynccontextmanager
async def hooked_job(
    folder: Path,
    source: str,
    *,
    python: str = sys.executable,
    options: tuple[str, ...] = (),
    environment: dict[str, str] | None = None,
    connected: bool = True,
):
    """Runs `source` as an unprepared script under a hook."""
    script = folder / "train.py"
    script.write_text(textwrap.dedent(source))
    job = HookedJob(folder)
    arrived: asyncio.Event = asyncio.Event()

    async def serve(reader, writer):
        await arrived.wait()
        await job.serve(reader, writer)

    with short_socket_path(str(folder / "job.sock")) as path:
        server = job.server = await asyncio.start_unix_server(serve, path=path)
    variables = {key: os.environ[key] for key in ("PATH", "HOME") if key in os.environ}
    variables |= {
        "PYTHONPATH": PLANT,
        "RDEV_JOB_SOCKET": str(folder / "job.sock"),
        "RDEV_JOB_ID": "0" * 12,
        "RDEV_HOOK_DEBUG": "1",
        **(environment or {}),
    }
    job.argv = (python, *options, str(script))
    job.process = await asyncio.create_subprocess_exec(
        *job.argv,
        env=variables,
        cwd=folder,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    arrived.set()
    try:
        if connected:
            await job.until(lambda: job.hello)
        yield job
    finally:
        if job.process.returncode is None:
            job.process.send_signal(signal.SIGKILL)
        await job.process.communicate()
        server.close()
        await server.wait_closed()


class SessionPipe:
    """A client's end of a debug session without a network between."""

    def __init__(self, session) -> None:
        self._session = session

    async def receive(self) -> bytes:
        return await self._session.read()

    async def send(self, data: bytes) -> None:
        await self._session.write(data)


def children(pid: int) -> list[int]:
    return [int(p) for p in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def adapters() -> list[int]:
    """Debug adapters that this process has started."""
    mine = children(os.getpid())
    return [p for p in mine if b"adapter.py" in Path(f"/proc/{p}/cmdline").read_bytes()]
