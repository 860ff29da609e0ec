"""Who takes part in the chaos: jobs, those who started them, and those who read along."""

from __future__ import annotations

import hashlib
import json
import random
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from tests.chaos.feeder import pieces
from tests.chaos.program import expected, whole
from tests.support.command import BIN, Rdev

from rdev.wire.files import JobFiles
from rdev.wire.home import Home, machine_id

_HERE = Path(__file__).resolve().parent

# Bytes a second: slow enough that a job is fed throughout a storm.
_RATES = (30_000, 60_000, 120_000)


@dataclass
class Client:
    """A process that receives a job's output into files, until it is killed or told the end."""

    command: list[str | Path]
    folder: Path
    is_mortal: bool
    host: str
    files: tuple[str, str] = ("stdout", "stderr")
    is_successor: bool = False
    process: subprocess.Popen | None = None

    def start(self, person: Rdev, stdin: IO[bytes] | int = subprocess.DEVNULL) -> None:
        with (
            open(self.folder / self.files[0], "ab") as out,
            open(self.folder / self.files[1], "ab") as err,
        ):
            self.process = subprocess.Popen(
                self.command, cwd=self.folder, env=person.environment,
                stdin=stdin, stdout=out, stderr=err,
            )  # fmt: skip

    @property
    def is_running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    @property
    def has_received(self) -> bool:
        return any((self.folder / name).stat().st_size for name in self.files)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


@dataclass
class Part:
    """One job, and all that is known of what it should do.

    Attributes:
        name: The job's.
        seed: Says what it prints.
        code: Its exit code.
        mode: `pipes`, `tty` or `stdin`.
        folder: Where it, and everybody who reads it, leaves traces.
        starter: `rdev run`; its stdout and stderr are the job's.
        feeder: Writes into the starter's stdin, `input_size` bytes in all.
        reader: A client of the SDK which may be killed and is replaced; None for a short job.
    """

    name: str
    seed: int
    code: int
    mode: str
    folder: Path
    starter: Client
    feeder: subprocess.Popen | None = None
    input_size: int = 0
    reader: Client | None = None
    files: JobFiles | None = None

    @property
    def result(self) -> dict:
        return json.loads((self.folder / "result").read_text())

    @property
    def has_started(self) -> bool:
        return (self.folder / "starts").exists()

    @property
    def has_ended(self) -> bool:
        return (self.folder / "result").exists()

    @property
    def told(self) -> int:
        """The exit code that who started it, or went on for that one, ends with."""
        return 0 if self.starter.is_successor or self.mode == "tty" else self.code

    def wanted(self) -> dict[str, tuple[int, str]]:
        """Size and sha256 of each stream, from the seed alone."""
        count = self.result["count"]
        if self.mode == "pipes":
            return expected(self.seed, count)
        nothing = (0, hashlib.sha256().hexdigest())
        if self.mode == "tty":
            return {"stdout": whole(self.seed, count), "stderr": nothing}
        digest = hashlib.sha256()
        for content in pieces(self.seed, self.input_size):
            digest.update(content)
        return {"stdout": (self.input_size, digest.hexdigest()), "stderr": nothing}


class Stage:
    """Builds the parts in one person's home; jobs with an input are fed for so many seconds."""

    def __init__(self, person: Rdev, folder: Path, *, seed: int, fed_seconds: float) -> None:
        self.person = person
        self.home = Home(str(person.home / ".rdev"), machine_id())
        self.folder = folder
        self._chance = random.Random(seed)
        self._count = 0
        self._fed_seconds = fed_seconds

    def part(self, mode: str, *, hosts: tuple[str, str], seconds: float, is_long: bool) -> Part:
        """Starts a job; `hosts` are those that its starter and its reader use."""
        self._count += 1
        name, seed = f"job-{self._count}", self._chance.randrange(1 << 30)
        code = self._count % 120
        folder = self.folder / name
        folder.mkdir()
        rate = self._chance.choice(_RATES)
        wanted = {"folder": str(folder), "mode": mode, "seed": seed, "code": code}
        wanted |= {"seconds": seconds, "rate": rate}
        options = {"tty": ["-t", "-d"], "stdin": ["-i"]}.get(mode, [])
        program = [sys.executable, "-I", "-S", _HERE / "program.py", json.dumps(wanted)]
        run = [BIN / "rdev", "run", "-q", "-H", hosts[0], "--name", name, *options, "--", *program]
        if mode == "tty":  # who has no terminal starts it detached and reads along
            subprocess.run(
                run, cwd=folder, env=self.person.environment, check=True, stdout=subprocess.DEVNULL
            )
            run = [BIN / "rdev", "logs", "-f", "-H", hosts[0], name]
        # Only who has nothing more to feed may be killed without a loss that is the killer's own.
        is_mortal = is_long and mode != "stdin" and self._count % 3 == 0
        starter = Client([*run], folder, is_mortal, hosts[0])
        part = Part(name, seed, code, mode, folder, starter)
        if is_long:
            part.reader = self._reader(part, hosts[1])
        if mode == "stdin":
            self._feed(part, rate=rate)
        starter.start(self.person, part.feeder.stdout if part.feeder else subprocess.DEVNULL)
        if part.feeder:
            part.feeder.stdout.close()  # it is the starter's now
        return part

    def _feed(self, part: Part, *, rate: int) -> None:
        part.input_size = round(rate * self._fed_seconds)
        command = [
            sys.executable,
            _HERE / "feeder.py",
            *map(str, (part.seed, part.input_size, rate)),
        ]
        part.feeder = subprocess.Popen(command, stdout=subprocess.PIPE)

    def _reader(self, part: Part, host: str) -> Client:
        folder = part.folder / "read"
        folder.mkdir()
        command = [sys.executable, _HERE / "reader.py", host, part.name, folder]
        return Client([*command], folder, is_mortal=True, host=host, files=("said", "said"))

    def successor(self, part: Part) -> Client:
        """Who goes on for a killed starter, from the very bytes that it had written."""
        command = [sys.executable, _HERE / "reader.py", part.starter.host, part.name, part.folder]
        return Client(
            [*command], part.folder, is_mortal=True, host=part.starter.host,
            files=("said", "said"), is_successor=True,
        )  # fmt: skip


def received(path: Path, size: int) -> tuple[str, int, bytes]:
    """sha256 and count of the first `size` bytes that clients put into a file, and the rest."""
    digest, count = hashlib.sha256(), 0
    with open(path, "rb") as file:
        while content := file.read(min(1 << 20, size - count)):
            digest.update(content)
            count += len(content)
        return digest.hexdigest(), count, file.read(1 << 16)
