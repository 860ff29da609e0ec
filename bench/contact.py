"""A command on an ssh host: `rdev run -H HOST`, cold and warm, beside plain and mastered ssh.

All on one OpenSSH server on loopback, interleaved. ssh is measured at its best: no rc file is read.
A cold contact finds nothing of rdev on the host; the laptop has its wheels already. One over a new
connection logs in and meets the agent by a bridge. A warm one finds the connection and goes
straight to the agent: by the session that runs commands in the background, or in a process of its
own. A job's own start, from the request that the agent accepts to the command that is executed, is
told by the jobs.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from pathlib import Path

from tests.support.sshd import HOST, Server, sshd

from bench.measure import Figure, table
from bench.process import with_children

ROUNDS = int(os.environ.get("RDEV_BENCH_ROUNDS", "15"))
COLD_ROUNDS = max(1, ROUNDS // 5)
BIN = Path(sys.executable).parent
PYTHON = "/usr/bin/python3" if os.path.exists("/usr/bin/python3") else sys.executable
SCRIPT = "print('trained')\n"

MASTERED, COLD, WARM = "ssh, mastered", "rdev run, first contact", "rdev run, warm"
NEW, ALONE = "rdev run, new connection", "rdev run, warm, no session"


def main() -> None:
    # Under a short path of our own: sockets have short names, and ssh's master needs one too.
    with (
        tempfile.TemporaryDirectory(prefix="rdev-bench-") as name,
        sshd(lines=["SetEnv SHLVL=2"]) as server,
    ):
        bench = _Bench(Path(name), server)
        try:
            bench.measure()
        finally:
            bench.leave()
            bench.end()
        bench.print()


class _Bench:
    """A laptop, a host, and what was measured."""

    def __init__(self, folder: Path, server: Server) -> None:
        self._ssh = server.ssh
        self._master = [*server.ssh, "-o", f"ControlPath={folder}/master"]
        self._project = folder / "project"
        self._project.mkdir()
        (self._project / "rdev.toml").touch()
        (self._project / "train.py").write_text(SCRIPT)
        (folder / "config" / "rdev").mkdir(parents=True)
        configured = f'[hosts.{HOST}]\nhome = "{folder}/remote"\n'
        (folder / "config" / "rdev" / "config.toml").write_text(configured)
        self._state = folder / "state"
        self._remote = folder / "remote"
        self._environment = (
            os.environ
            | server.environment
            | {
                "HOME": str(folder),
                "RDEV_HOME": str(folder / "local"),
                "XDG_CONFIG_HOME": str(folder / "config"),
                "XDG_STATE_HOME": str(self._state),
                "XDG_CACHE_HOME": str(folder / "cache"),
                "XDG_RUNTIME_DIR": str(folder),
            }
        )
        self._environment.pop("PYTHONDONTWRITEBYTECODE", None)
        self._times: dict[str, list[float]] = {}
        self._cpu: dict[str, list[float]] = {}
        self._starts: list[float] = []

    def measure(self) -> None:
        opening = ("-o", "ControlMaster=yes", "-o", "ControlPersist=yes")
        self._run([*self._master, *opening, HOST, "true"])
        self._contact()  # fetches the wheels
        for _ in range(COLD_ROUNDS):
            self.leave()
            self._timed(COLD, self._contact)
        script = str(self._project / "train.py")
        warm: dict[str, Callable[[], object]] = {
            NEW: self._rdev("--", "true"),
            "ssh": self._doing(*self._ssh, HOST, "true"),
            MASTERED: self._doing(*self._master, HOST, "true"),
            WARM: self._rdev("--", "true"),
            ALONE: self._rdev("--", "true", alone=True),
            "ssh, mastered, python": self._doing(*self._master, HOST, PYTHON, script),
            "rdev run, warm, python": self._rdev("--python", PYTHON, "train.py"),
            "rdev run, local": self._doing(BIN / "rdev", "run", "-q", "--", "true"),
            "rdev version": self._doing(BIN / "rdev", "version"),
        }
        for number in range(-2, ROUNDS):  # two rounds to warm all up
            for name, act in warm.items():
                if name == NEW:
                    self._run([BIN / "rdev", "down", HOST])
                if number < 0:
                    act()
                else:
                    self._timed(name, act)
        told = self._run([BIN / "rdev", "ps", "-a", "-H", HOST, "--json"])
        self._starts = [
            (_moment(job["started"]) - _moment(job["created"])) * 1000
            for job in json.loads(told.stdout)
            if job["started"]
        ]

    def leave(self) -> None:
        """Takes rdev off the host and off this machine, and ends the connections."""
        for host in (HOST, "local"):
            self._run([BIN / "rdev", "down", host, "--purge"])

    def end(self) -> None:
        """Ends the session, which would notice by itself, but later."""
        for pid in self._sessions():
            os.kill(pid, signal.SIGTERM)

    def print(self) -> None:
        rows = [(name, Figure(values)) for name, values in self._times.items()]
        figures = dict(rows)
        print(f"{ROUNDS} interleaved rounds on loopback, {COLD_ROUNDS} first contacts\n")
        print(table("ms", rows, base=figures[MASTERED]))
        used = [(name, Figure(values)) for name, values in self._cpu.items()]
        print("\nCPU of the laptop's own processes; a shared connection's is in none\n")
        print(table("ms", used, base=dict(used)[MASTERED]))
        start = Figure(self._starts)
        print(f"\njob start: {start} ms")
        limit = 1.5 * figures[MASTERED].median + start.median
        warm = figures[WARM].median
        print(f"1.5 x mastered ssh + job start: {limit:.1f} ms; warm takes {warm:.1f} ms, ", end="")
        print(f"{warm / limit:.2f} of it")

    def _contact(self) -> None:
        self._rdev("--", "true")()

    def _rdev(self, *words: str, alone: bool = False) -> Callable[[], object]:
        before = ("env", "RDEV_SESSION=0") if alone else ()
        return self._doing(*before, BIN / "rdev", "run", "-q", "-H", HOST, *words)

    def _doing(self, *command: object) -> Callable[[], object]:
        return lambda: self._run(command)

    def _run(self, command: Sequence[object]) -> subprocess.CompletedProcess[bytes]:
        done = subprocess.run(
            list(map(str, command)),
            cwd=self._project,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
        )
        if done.returncode:
            raise SystemExit(done.stderr.decode(errors="replace"))
        return done

    def _timed(self, name: str, act: Callable[[], object]) -> None:
        used = self._used()
        begun = time.perf_counter()
        act()
        self._times.setdefault(name, []).append((time.perf_counter() - begun) * 1000)
        spent = self._used() - used
        if spent > 0:  # a session that ended meanwhile took with it what it had used
            self._cpu.setdefault(name, []).append(spent * 1000)

    def _used(self) -> float:
        """Seconds of CPU of processes that we waited for, and of sessions with their workers."""
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        sessions = sum(map(with_children, self._sessions()))
        return used.ru_utime + used.ru_stime + sessions / os.sysconf("SC_CLK_TCK")

    def _sessions(self) -> Iterator[int]:
        for lock in (self._state / "rdev" / "session").glob("*.lock"):
            pid = lock.read_text(encoding="ascii").strip()
            if pid and os.path.exists(f"/proc/{pid}"):
                yield int(pid)


def _moment(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


if __name__ == "__main__":
    if shutil.which("ssh") is None:
        raise SystemExit("ssh is missing")
    main()
