"""The real `rdev` and `rdev-agent` commands, in a home of the test's own."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

from rdev.agent import lifecycle
from rdev.client.connection import connect
from rdev.client.hosts import LOCAL
from rdev.client.jobs import Jobs
from rdev.client.ui.jobs import as_json
from rdev.protocol.errors import RdevError
from rdev.wire.home import Home, machine_id
from rdev.wire.job import CommandKind, JobSpec

BIN = Path(sys.executable).parent

# Long enough for a loaded two-core machine; no test waits this long when all is well.
DEADLINE = 60.0


@dataclass
class Rdev:
    """Runs commands for one person: a laptop and, at `local`, a GPU machine."""

    home: Path
    cwd: Path

    @property
    def environment(self) -> dict[str, str]:
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("RDEV_", "VIRTUAL_ENV"))}
        return kept | {
            "HOME": str(self.home),
            "RDEV_HOME": str(self.home / ".rdev"),
            "RDEV_SESSION": "0",
            "XDG_CONFIG_HOME": str(self.home / "config"),
            "XDG_STATE_HOME": str(self.home / "state"),
            "XDG_CACHE_HOME": str(self.home / "cache"),
            "PATH": f"{BIN}:{os.environ['PATH']}",
        }

    def run(self, *words: str, cwd: Path | None = None, **options) -> subprocess.CompletedProcess:
        """Runs `rdev WORDS` to its end."""
        return self.command("rdev", *words, cwd=cwd, **options)

    def command(
        self, program: str, *words: str, cwd: Path | None = None, text: bool = True, **options
    ) -> subprocess.CompletedProcess:
        return subprocess.run(
            [BIN / program, *words],
            cwd=cwd or self.cwd,
            env=self.environment | options.pop("env", {}),
            stdin=options.pop("stdin", subprocess.DEVNULL),
            capture_output=True,
            text=text,
            timeout=options.pop("timeout", DEADLINE),
            check=False,
            **options,
        )

    @contextlib.contextmanager
    def started(self, *words: str, **options) -> Iterator[subprocess.Popen]:
        """Starts `rdev WORDS` and kills it when the block ends before it does.

        Args:
            words: Of the command.
            options: Of Popen, and `before`: what executes it in its own place.
        """
        options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
        process = subprocess.Popen(
            [*options.pop("before", ()), BIN / "rdev", *words],
            cwd=self.cwd,
            env=self.environment | options.pop("env", {}),
            stdin=options.pop("stdin", subprocess.DEVNULL),
            **options,
        )
        try:
            yield process
        finally:
            process.kill()
            for pipe in (process.stdin, process.stdout, process.stderr):
                if pipe is not None:
                    pipe.close()
            process.wait()

    def json(self, *words: str):
        """What `rdev WORDS --json` prints."""
        done = self.run(*words, "--json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def jobs(self, *, ended: bool = False) -> list[dict]:
        """What `rdev ps --json` prints, with `-a` if ended ones count: to look, not to test it."""

        async def ask() -> list[dict]:
            async with connect(LOCAL) as connection:
                return [as_json(job) for job in await Jobs(connection).list(ended=ended)]

        with self._in_its_place():
            return asyncio.run(ask())

    def start_job(self, program: str, *arguments: str) -> str:
        """Starts a job in the home as `rdev run -d` would, to have one; its id."""

        async def ask() -> str:
            async with connect(LOCAL) as connection:
                jobs = Jobs(connection)
                made = await jobs.create(JobSpec(CommandKind.PROGRAM, program, arguments))
                return (await jobs.until_started(made.id)).id

        with self._in_its_place():
            return asyncio.run(ask())

    def await_state(self, state: str) -> None:
        """Returns once the latest job is in it; fails if it has ended otherwise."""
        deadline = time.monotonic() + DEADLINE
        while (job := self.jobs(ended=True)[0])["state"] != state:
            assert job["ended"] is None, job
            assert time.monotonic() < deadline, job
            time.sleep(0.02)

    def write(self, path: str, text: str) -> Path:
        """Writes a file of the workspace."""
        target = self.cwd / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)
        return target

    @property
    def agent_pid(self) -> int:
        """Process id of the agent that serves."""
        return lifecycle.serving_pid(Home(str(self.home / ".rdev"), machine_id()))

    def kill_agent(self) -> None:
        """Kills the agent as a crash would, and returns when it is gone."""
        handle = os.pidfd_open(self.agent_pid)
        try:
            signal.pidfd_send_signal(handle, signal.SIGKILL)
            assert select.select([handle], [], [], DEADLINE)[0], "the agent survived SIGKILL"
        finally:
            os.close(handle)

    def tidy(self) -> None:
        """Ends what the test left: live jobs first, then the agent."""
        end_all(self.home / ".rdev", self.environment)

    def clear(self) -> None:
        """Leaves of the home only its agent, without a job or a workspace, and its session."""
        with self._in_its_place():
            asyncio.run(_end_jobs(forget=True))
        kept = {"": (".rdev", "state"), ".rdev/workspaces": (), "state": ("rdev",)}
        for folder, names in {**kept, "state/rdev": ("session",)}.items():
            for path in (self.home / folder).glob("*"):
                if path.name in names:
                    continue
                shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()

    def _in_its_place(self) -> AbstractContextManager[object]:
        """Inside the block this process's environment is the person's."""
        return patch.dict(os.environ, self.environment, clear=True)


def end_all(root: Path, environment: Mapping[str, str]) -> None:
    """Ends all jobs and the agent of a home, for a person with that environment.

    In this process, not by commands: it comes after every test.
    """
    home = Home(str(root), machine_id())
    if not os.path.exists(home.host):
        return
    # An agent that was killed may be about to come back: this brings one or waits for it.
    if (os.path.isdir(home.jobs) and os.listdir(home.jobs)) or os.path.exists(home.local):
        own = {**environment, "RDEV_HOME": str(root)}
        with patch.dict(os.environ, own, clear=True), contextlib.suppress(RdevError):
            asyncio.run(_end_jobs())
    if (pid := lifecycle.holder(home) or lifecycle.call_off(home)) is not None:
        lifecycle.end(pid)
        lifecycle.call_off_others(home)


async def _end_jobs(*, forget: bool = False) -> None:
    async with connect(LOCAL) as connection:
        jobs = Jobs(connection)
        left = await jobs.list(ended=forget)
        for job in left:
            await jobs.stop(job.id, now=True)
        for job in left:
            await jobs.wait(job.id)
            if forget:
                await jobs.delete(job.id)
