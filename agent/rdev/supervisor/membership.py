"""Whose processes are whose: those of a job, and those in it that a stop leaves alone.

A job's are its main process, its keeper's descendants and whoever carries its marker. Spared, with
all below them: other jobs and what keeps them, agents, and terminal multiplexers, whose point is to
outlive what started them; with those also whoever was started inside one and left.
"""

from __future__ import annotations

import enum
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from rdev.supervisor.processes import (
    Process,
    all_processes,
    command_line,
    has_word,
    variables,
)
from rdev.supervisor.shim import SESSION_VARIABLE
from rdev.wire.channel import JOB_VARIABLE
from rdev.wire.home import HOME_VARIABLE
from rdev.wire.records import Started

# The names that our own processes give themselves, see rdev.supervisor.platform.
_KEEPING = frozenset({"rdev-keeper", "rdev-supervisor"})
OURS = _KEEPING | {"rdev-agent", "rdev-zygote"}

# What terminal multiplexers call themselves: the daemon, not the program in front of the person.
_MULTIPLEXERS = frozenset({"tmux: server", "screen", "SCREEN", "zellij", "dtach", "abduco"})

# Where a process inside one names its daemon: TMUX=socket,PID,session and STY=PID.terminal.host.
_TMUX, _SCREEN = "TMUX", "STY"


class Scope(enum.Enum):
    """Which of a job's processes are meant."""

    SESSION = "session"
    """Only what is in its main process's session, or in a rank's: no daemon."""
    JOB = "job"
    """All but what is spared."""
    EVERYTHING = "everything"
    """Also multiplexers and nested agents; never another job, never the agent that serves us."""


@dataclass(frozen=True, slots=True)
class Look:
    """What one look through /proc found.

    Attributes:
        members: The living processes that are meant, the main process first if it lives.
        spared: Multiplexers and agents of the job that are left alone, one phrase each.
    """

    members: list[Process]
    spared: list[str]


class Membership:
    """Tells the processes of one job.

    Args:
        job_id: The job.
        home: The state folder of the agent that serves it; empty if that is not known.
    """

    def __init__(self, job_id: str, *, home: str = "") -> None:
        self._job_id = job_id
        self._home = home
        self._marker = f"{JOB_VARIABLE}={job_id}".encode()
        # Who carried no marker in the look before; its name changes when it executes something.
        self._strangers: set[tuple[int, int, str]] = set()

    def look(self, *, keeper: int, main: Started | None, scope: Scope = Scope.JOB) -> Look:
        """Looks through /proc once.

        Args:
            keeper: The job's keeper; 0 if that has gone.
            main: Its main process; None if that is not known.
            scope: Which processes are meant.
        """
        table = {process.pid: process for process in all_processes()}
        children = _children(table.values())
        leader = _main_pid(table, main)
        # Nobody's keeper is 0, the parent of init and the kernel's threads, or init itself.
        descendants = children.get(keeper, []) if keeper > 1 else []
        first = [leader, *descendants, *self._marked(table, main)]
        untouchable = _ancestors(table, os.getpid())
        belonging = _closure(first, table, children, without=untouchable)
        # Not even one that calls itself an agent: the main process is the job.
        others = {pid: process for pid, process in belonging.items() if pid != leader}
        left, shown = self._left_alone(others, scope)
        beneath = _closure(left, belonging, children, without=set())
        members = [p for p in belonging.values() if not p.is_dead and p.pid not in beneath]
        if scope is Scope.SESSION:
            return Look([p for p in members if _is_in_session(p, leader)], [])
        topmost = [p for p in shown if _ancestors(table, p.parent).isdisjoint(left)]
        return Look(members, [_phrase(process) for process in topmost])

    def ranks(self, main: Started) -> list[Process]:
        """What the job's launcher has started."""
        return [process for process in all_processes() if process.parent == main.pid]

    def _marked(self, table: Mapping[int, Process], main: Started | None) -> list[int]:
        # Who is older than the first main process has its marker from somewhere else.
        since = main.ticks if main is not None and main.attempt == 1 else 0
        strangers, marked = set(), []
        for process in table.values():
            identity = (process.pid, process.ticks, process.name)
            if process.ticks < since or identity in self._strangers:
                strangers.add(identity)
            elif has_word(process.pid, self._marker):
                marked.append(process.pid)
            else:
                strangers.add(identity)
        self._strangers = strangers
        return marked

    def _left_alone(
        self, others: Mapping[int, Process], scope: Scope
    ) -> tuple[list[int], list[Process]]:
        """The topmost processes that are spared, and those of them that people want to know of."""
        environments = {pid: variables(pid) for pid in others}
        foreign: list[int] = []
        agents: list[int] = []
        for pid, process in others.items():
            marker = environments[pid].get(JOB_VARIABLE, self._job_id)
            if process.name in _KEEPING or marker != self._job_id:
                foreign.append(pid)
            elif process.name in OURS or _runs_agent(pid):
                is_ours = self._home and _home_of(environments[pid]) == self._home
                (foreign if is_ours else agents).append(pid)
        daemons = [pid for pid, process in others.items() if _is_multiplexer(process)]
        if scope is Scope.EVERYTHING:
            return foreign, []
        inside = [pid for pid in others if _daemon_of(environments[pid]) in daemons]
        shown = [others[pid] for pid in sorted({*daemons, *agents}) if not others[pid].is_dead]
        return [*foreign, *agents, *daemons, *inside], shown


def _children(processes: Iterable[Process]) -> dict[int, list[int]]:
    children: dict[int, list[int]] = {}
    for process in processes:
        children.setdefault(process.parent, []).append(process.pid)
    return children


def _closure(
    first: Iterable[int],
    table: Mapping[int, Process],
    children: Mapping[int, list[int]],
    *,
    without: set[int],
) -> dict[int, Process]:
    """Those processes and all below them, but neither those in `without` nor what is below them."""
    found: dict[int, Process] = {}
    pending = [pid for pid in first if pid > 1]
    for pid in pending:  # it grows meanwhile
        candidate = table.get(pid)
        if candidate is not None and pid not in found and pid not in without:
            found[pid] = candidate
            pending += children.get(pid, ())
    return found


def _main_pid(table: Mapping[int, Process], main: Started | None) -> int:
    """The main process's id, which is its session's too; 0 if another process has it by now.

    The kernel gives an id away only when no process of the session is left.
    """
    if main is None:
        return 0
    found = table.get(main.pid)
    return main.pid if found is None or found.ticks == main.ticks else 0


def _ancestors(table: Mapping[int, Process], pid: int) -> set[int]:
    """A process and those above it."""
    found: set[int] = set()
    while (process := table.get(pid)) is not None and pid not in found:
        found.add(pid)
        pid = process.parent
    return found


def _phrase(process: Process) -> str:
    name = process.name if _is_multiplexer(process) else "rdev-agent"
    return f"{name} ({process.pid})"


def _is_in_session(process: Process, leader: int) -> bool:
    if process.session == leader:
        return True
    return has_word(process.pid, f"{SESSION_VARIABLE}={process.session}".encode())


def _is_multiplexer(process: Process) -> bool:
    return process.name in _MULTIPLEXERS and process.terminal == 0


def _daemon_of(environment: Mapping[str, str]) -> int:
    """The multiplexer in whose terminal a process was started; 0 if in none's."""
    _, _, rest = environment.get(_TMUX, "").rpartition("/")
    word = rest.split(",")[1] if rest.count(",") else environment.get(_SCREEN, "").partition(".")[0]
    return int(word) if word.isdecimal() else 0


def _home_of(environment: Mapping[str, str]) -> str:
    root = environment.get(HOME_VARIABLE) or os.path.join(environment.get("HOME", "/"), ".rdev")
    return os.path.realpath(root)


def _runs_agent(pid: int) -> bool:
    return any(
        word == b"rdev.agent.main" or word.rpartition(b"/")[2] == b"rdev-agent"
        for word in command_line(pid)[:4]
    )
