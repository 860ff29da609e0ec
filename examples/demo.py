"""Sixty seconds of rdev on this machine: train, watch, put a breakpoint into a running job.

It runs the commands that it prints, in a home of its own that is removed afterwards.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

BIN = Path(sys.executable).parent
EXAMPLES = Path(__file__).resolve().parent
PLAIN = EXAMPLES / "plain_digits.py"


def main() -> int:
    """Runs the demo; the exit code is 0 when every command did what it should."""
    # A short path: the names of unix sockets are limited to about a hundred bytes.
    with tempfile.TemporaryDirectory(prefix="rdev-demo-") as home:
        demo = Demo(home)
        try:
            demo.train()
            demo.debug()
            demo.close()
        finally:
            demo.end()
        return demo.failures


class Demo:
    """Shows and runs commands."""

    def __init__(self, home: str) -> None:
        self.environment = os.environ | {
            "RDEV_HOME": f"{home}/rdev",
            "XDG_STATE_HOME": home,
            "XDG_CACHE_HOME": home,
            "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
        }
        self.failures = 0

    def train(self) -> None:
        """A training under rdev: the receipt, live metrics among its output, a plot."""
        say("A training with rdev.loop: synced, started under a supervisor, followed live.")
        self.run("rdev run --detach --name digits examples/digits.py")
        self.run("rdev logs --follow --metrics digits")
        self.run("rdev wait digits")
        self.run("rdev metrics --plot digits")

    def debug(self) -> None:
        """A breakpoint in a script that knows nothing of rdev, while it trains."""
        say("A plain script, already running: stop it, look at a local, let it go on.")
        self.run("rdev run --detach --name plain examples/plain_digits.py")
        stop = f"examples/{PLAIN.name}:{_line_of('optimizer.zero_grad()')}"
        self.run(f"rdev debug plain {stop} --command where --command 'print loss'")
        self.run("rdev wait plain")
        self.run("rdev logs --lines 1 plain")
        say("Both jobs, with the snapshot each was started from.")
        self.run("rdev ps --all")

    def run(self, command: str) -> None:
        """Shows a command, runs it, and counts it if it fails."""
        print(f"\n$ {command}", flush=True)
        done = subprocess.run(
            ["sh", "-c", command], cwd=EXAMPLES.parent, env=self.environment, check=False
        )
        if done.returncode:
            self.failures += 1
            print(f"(exit code {done.returncode})", flush=True)

    def close(self) -> None:
        """Says what to do next."""
        if not self.failures:
            say("That agent was the demo's own, and is gone. Yours starts with `rdev run SCRIPT`.")

    def end(self) -> None:
        """Ends what still runs, and the agent."""
        for command in ("rdev stop --now digits", "rdev stop --now plain", "rdev-agent stop"):
            subprocess.run(
                ["sh", "-c", command], env=self.environment, capture_output=True, check=False
            )


def say(words: str) -> None:
    """Prints a heading."""
    print(f"\n# {words}", flush=True)


def _line_of(text: str) -> int:
    for number, line in enumerate(PLAIN.read_text().splitlines(), 1):
        if line.strip() == text:
            return number
    raise SystemExit(f"{PLAIN} has no line {text!r}")


if __name__ == "__main__":
    sys.exit(main())
