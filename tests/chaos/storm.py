"""The storm: seeded random SIGKILLs at whatever carries a job's output, and the reckoning after it.

calm: jobs start -> storm: kills, successors, short jobs -> the jobs are told to end, kills go on
-> calm: everybody is let finish -> every byte, exit code and start is compared
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import select
import signal
import subprocess
import time
from collections.abc import Callable

from tests.chaos.cast import Client, Part, Stage
from tests.chaos.reckoning import Reckoning
from tests.chaos.report import Report
from tests.support.command import BIN, DEADLINE
from tests.support.jobs import lock_holder
from tests.support.relay import Relay

from rdev.wire.files import JobFiles
from rdev.wire.home import answers
from rdev.wire.unix import connect

# How often everybody is looked at; re-adoption is measured this finely.
_TICK = 0.004

# A killed agent whose supervisors do not bring it back within this is a failure of theirs.
_AGENT_DEADLINE = 20.0

# Who is struck together, and how often in relation to the others.
_STRIKES = {
    ("supervisor",): 6,
    ("agent",): 3,
    ("client",): 4,
    ("transport",): 3,
    ("agent", "supervisor"): 3,
    ("agent", "transport"): 1,
    ("supervisor", "supervisor", "supervisor"): 1,
    ("supervisor", "newborn"): 3,
    ("client", "supervisor", "transport"): 1,
    ("agent", "client", "supervisor", "transport"): 2,
}


class Storm:
    """Kills what a stage's parts depend on."""

    def __init__(self, stage: Stage, relay: Relay, *, seed: int, goal: int, pause: float) -> None:
        self.report = Report()
        self._stage = stage
        self._relay = relay
        self._chance = random.Random(seed)
        self._goal = goal
        self._pause = pause
        self._parts: list[Part] = []
        self._plans: list[tuple[float, Callable[[], None]]] = []
        self._agent_gone: float | None = None
        self._dead_agent = 0
        self._orphans: dict[str, tuple[JobFiles, float, int]] = {}
        self._ambushes: dict[str, int] = {}
        self._known: set[str] = set()

    def run(self, *, jobs: int, modes: tuple[str, ...]) -> Report:
        begin = time.monotonic()
        self._begin(jobs, modes)
        until_strike, is_ending = time.monotonic(), False
        while sum(self.report.kills.values()) < self._goal:
            self._tick()
            if not is_ending and sum(self.report.kills.values()) > 0.85 * self._goal:
                is_ending = self._end_jobs()
            if time.monotonic() >= until_strike:
                self._strike()
                until_strike = time.monotonic() + self._chance.expovariate(1 / self._pause)
        self._end_jobs()
        self._calm()
        Reckoning(self.report).of(self._parts, self._stage.person.json("ps", "-a"))
        self.report.seconds = time.monotonic() - begin
        return self.report

    # --- the calm before

    def _begin(self, count: int, modes: tuple[str, ...]) -> None:
        for number in range(count):
            hosts = (self._relay.host, "local") if number % 2 else ("local", self._relay.host)
            mode = modes[number % len(modes)]
            self._parts.append(self._stage.part(mode, hosts=hosts, seconds=3600, is_long=True))
        self._wait(self._have_started, "the jobs start")
        for part in self._parts:
            part.files = self._files(part)
            part.reader.start(self._stage.person)

    def _have_started(self) -> bool:
        # Who reads along is connected once it has read something.
        waited = [p for p in self._parts if not (p.has_started and p.starter.has_received)]
        for part in waited:
            said = part.folder / part.starter.files[1]
            assert part.starter.is_running, f"{part.name} did not start: {said.read_text()}"
        return not waited

    def _files(self, part: Part) -> JobFiles:
        for entry in os.listdir(self._stage.home.jobs):
            files = JobFiles(os.path.join(self._stage.home.jobs, entry))
            with contextlib.suppress(OSError), open(files.spec, encoding="utf-8") as file:
                if json.load(file)["name"] == part.name:
                    self._known.add(entry)
                    return files
        raise AssertionError(f"{part.name} has no folder")

    # --- strikes

    def _strike(self) -> None:
        kinds = self._chance.choices(list(_STRIKES), list(_STRIKES.values()))[0]
        if not self._chance.randrange(6):
            self._start_short()
        for kind in kinds:
            getattr(self, f"_kill_{kind}")()

    def _kill_supervisor(self) -> None:
        live = [part for part in self._parts if part.files and not part.has_ended]
        if live and (part := self._chance.choice(live)).files.directory not in self._orphans:
            self._kill_supervisor_of(part.files)

    def _kill_newborn(self) -> None:
        """Kills the successors of a supervisor that was just killed, as soon as they show."""
        for directory in self._orphans:
            self._ambushes[directory] = self._chance.randrange(1, 4)

    def _kill_agent(self) -> None:
        """Kills the agent, also one that is about to come back."""
        pid = self._agent_pid()
        if pid in (0, self._dead_agent) or not _kill(pid):
            return
        self.report.kills["agent" if self._agent_gone is None else "agent in start-up"] += 1
        self._agent_gone, self._dead_agent = time.monotonic(), pid

    def _agent_pid(self) -> int:
        with open(self._stage.home.lock, encoding="ascii") as file:
            return int(file.read() or 0)

    def _kill_transport(self) -> None:
        if self._relay.pid:
            self._relay.kill()
            self.report.kills["transport"] += 1
            self._plan(self._chance.uniform(0, 0.6), self._relay.start)

    def _kill_client(self) -> None:
        clients = [(part, client) for part in self._parts for client in _mortals(part)]
        if not clients:
            return
        part, client = self._chance.choice(clients)
        client.kill()
        self.report.kills["client"] += 1
        if client is part.starter:
            part.starter = self._stage.successor(part)
        heir = part.starter if client is not part.reader else part.reader
        self._plan(self._chance.uniform(0, 0.5), lambda: heir.start(self._stage.person))

    def _start_short(self) -> None:
        """A job that ends in the storm; its first supervisors are killed while they start."""
        seconds = self._chance.uniform(0, 3)
        part = self._stage.part("pipes", hosts=("local", "local"), seconds=seconds, is_long=False)
        self._parts.append(part)

    # --- time

    def _tick(self) -> None:
        time.sleep(_TICK)
        now = time.monotonic()
        due = [plan for at, plan in self._plans if at <= now]
        self._plans = [(at, plan) for at, plan in self._plans if at > now]
        for plan in due:
            plan()
        self._look_for_agent(now)
        self._look_for_supervisors(now)
        self._look_for_new_jobs()

    def _look_for_agent(self, now: float) -> None:
        if self._agent_gone is None:
            return
        if answers(self._stage.home):
            self.report.return_.append(now - self._agent_gone)
            self._agent_gone = None
        elif now - self._agent_gone > _AGENT_DEADLINE:
            self.report.faults.append("the agent was not brought back")
            self._start_agent()

    def _look_for_supervisors(self, now: float) -> None:
        for directory, (files, since, before) in list(self._orphans.items()):
            pid = lock_holder(files.supervisor_lock)
            if pid in (0, before):
                if not lock_holder(files.keeper_lock):
                    del self._orphans[directory]  # its job has ended
                continue
            if self._ambushes.get(directory):
                self._ambushes[directory] -= 1
                self._kill_supervisor_of(files, kind="supervisor in start-up")
            elif _answers(files):
                self.report.adoption.append(now - since)
                del self._orphans[directory]

    def _look_for_new_jobs(self) -> None:
        with contextlib.suppress(FileNotFoundError):
            for entry in set(os.listdir(self._stage.home.jobs)) - self._known:
                files = JobFiles(os.path.join(self._stage.home.jobs, entry))
                if not lock_holder(files.supervisor_lock):
                    continue
                self._known.add(entry)
                self._ambushes[files.directory] = self._chance.randrange(3)
                self._kill_supervisor_of(files, kind="supervisor in start-up")

    def _kill_supervisor_of(self, files: JobFiles, *, kind: str = "supervisor") -> None:
        pid = lock_holder(files.supervisor_lock)
        if pid and _kill(pid):
            self.report.kills[kind] += 1
            self._orphans[files.directory] = (files, time.monotonic(), pid)

    def _plan(self, delay: float, action: Callable[[], None]) -> None:
        self._plans.append((time.monotonic() + delay, action))

    def _wait(self, condition: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + 2 * DEADLINE
        while not condition():
            assert time.monotonic() < deadline, f"not in time: {what}; {self._state()}"
            self._tick()

    def _state(self) -> list[str]:
        return [
            f"{part.name} {part.mode}: starter {part.starter.process.poll()}, "
            f"started {part.has_started}, ended {part.has_ended}, "
            f"reader running {bool(part.reader and part.reader.is_running)}"
            for part in self._parts
        ]

    def _start_agent(self) -> None:
        command = [BIN / "rdev-agent", "serve", "--detach"]
        environment = self._stage.person.environment
        subprocess.run(command, env=environment, capture_output=True, check=False)

    # --- the end

    def _end_jobs(self) -> bool:
        (self._stage.folder / "finish").touch()
        return True

    def _calm(self) -> None:
        self._ambushes.clear()
        self._wait(lambda: not self._plans and self._agent_gone is None, "successors start")

        def is_quiet() -> bool:
            return not any(client.is_running for part in self._parts for client in _clients(part))

        self._wait(is_quiet, "everybody is told the end")


def _clients(part: Part) -> list[Client]:
    return [part.starter, *([part.reader] if part.reader else [])]


def _mortals(part: Part) -> list[Client]:
    # A starter that knows the end says a word of its own, behind which no successor could go on.
    clients = [client for client in _clients(part) if client.is_mortal and client.is_running]
    return [client for client in clients if client is part.reader or not part.has_ended]


def _answers(files: JobFiles) -> bool:
    try:
        connect(files.socket).close()
    except OSError:
        return False
    return True


def _kill(pid: int) -> bool:
    """Kills a process; returns when it is gone, and whether it was there."""
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return False
    try:
        signal.pidfd_send_signal(handle, signal.SIGKILL)
        assert select.select([handle], [], [], DEADLINE)[0], f"{pid} survived SIGKILL"
    except ProcessLookupError:
        return False
    finally:
        os.close(handle)
    return True
