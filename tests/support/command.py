"""The real `rdev` and `rdev-agent` commands, in a home of the test's own."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

from rdev.agent import lifecycle
from rdev.client.connection import connect
from rdev.client.hosts import LOCAL
from rdev.client.jobs import Jobs
from rdev.protocol.errors import RdevError
from rdev.wire.home import Home, machine_id

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
        """Starts `rdev WORDS` and kills it when the block ends before it does."""
        options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
        process = subprocess.Popen(
            [BIN / "rdev", *words],
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


async def _end_jobs() -> None:
    async with connect(LOCAL) as connection:
        jobs = Jobs(connection)
        left = await jobs.list()
        for job in left:
            await jobs.stop(job.id, now=True)
        for job in left:
            await jobs.wait(job.id)
