"""The real `rdev` and `rdev-agent` commands, in a home of the test's own."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

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
        return json.loads(self.command("rdev-agent", "status", "--json").stdout)["pid"]

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
        if not (self.home / ".rdev").exists():
            return
        # An agent that was killed may be about to come back: `ps` brings one or waits for it.
        places = (".rdev/hosts/*/jobs/*", ".rdev/hosts/*/local")
        if any(any(self.home.glob(place)) for place in places):
            for job in json.loads(self.run("ps", "--json").stdout or "[]"):
                self.run("stop", job["id"], "--now")
        self.command("rdev-agent", "stop")
