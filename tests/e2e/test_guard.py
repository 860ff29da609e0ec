"""Agent and supervisors guard one another: a killed agent is back, a stopped one is not."""

import contextlib
import json
import os
import resource
import signal
import subprocess
import time
from dataclasses import replace
from pathlib import Path

import pytest
from tests.support.command import DEADLINE
from tests.support.jobs import await_gone, lock_holder

from rdev.supervisor.processes import look_at
from rdev.wire.files import JobFiles, read_status
from rdev.wire.guard import guard_lock, read_agent, write_agent
from rdev.wire.home import Home, answers, machine_id
from rdev.wire.job import JobState

# A quarter of a second on an idle machine; tests share theirs with others.
ADOPTED_WITHIN = 5.0


class Host:
    """The GPU machine's side of a person's home."""

    def __init__(self, rdev) -> None:
        self.rdev = rdev
        self.home = Home(str(rdev.home / ".rdev"), machine_id())

    def start(self, *words: str) -> JobFiles:
        if words[0] == "--":
            job_id = self.rdev.start_job(*words[1:])
        else:
            done = self.rdev.run("run", "-d", *words)
            assert done.returncode == 0, done.stderr
            job_id = self.rdev.jobs()[0]["id"]
        files = JobFiles(os.path.join(self.home.jobs, job_id))
        until(lambda: read_status(files).state is JobState.RUNNING)
        return files

    @property
    def agent(self) -> int:
        """The recorded agent, if it lives; 0 else."""
        record = read_agent(self.home.live)
        found = look_at(record.pid) if record else None
        return record.pid if found and found.ticks == record.ticks and not found.is_dead else 0

    def served_by_another(self, than: int) -> bool:
        return self.agent not in (0, than) and answers(self.home)


def until(condition, *, seconds: float = DEADLINE) -> float:
    """Waits for what other processes do; returns how long it took."""
    begun = time.monotonic()
    while not condition():
        assert time.monotonic() - begun < seconds, "it did not come true"
        time.sleep(0.005)
    return time.monotonic() - begun


def kill(*pids: int) -> None:
    for pid in pids:
        assert pid > 1
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


@pytest.fixture
def host(rdev):
    return Host(rdev)


def test_a_killed_agent_is_back_though_nobody_asks_for_it(host):
    host.start("--", "sleep", "600")
    before = host.agent
    kill(before)
    took = until(lambda: host.served_by_another(before))
    assert took < ADOPTED_WITHIN
    assert len(host.rdev.jobs()) == 1


def test_an_agent_that_dies_with_the_supervisor_is_back(host):
    files = host.start("--", "sleep", "600")
    before, supervisor = host.agent, lock_holder(files.supervisor_lock)
    kill(supervisor, before)
    until(lambda: host.served_by_another(before))
    assert host.rdev.run("stop", "--now", Path(files.directory).name).returncode == 0
    until(lambda: read_status(files).state is JobState.CANCELLED)


def test_many_supervisors_start_one_agent(host):
    for _ in range(4):
        host.start("--", "sleep", "600")
    before = host.agent
    log = Path(host.home.log)
    starts = log.read_text().count("agent serves")
    kill(before)
    until(lambda: host.served_by_another(before))
    until(lambda: Path(guard_lock(host.home.live)).read_text() == "ready\n")
    assert len(host.rdev.jobs()) == 4
    assert log.read_text().count("agent serves") == starts + 1
    assert "unable" not in log.read_text()


@pytest.mark.parametrize("how", ["stop", pytest.param("SIGTERM", marks=pytest.mark.slow)])
def test_an_agent_that_was_asked_to_end_stays_away(host, how):
    files = host.start("--", "sleep", "600")
    supervisor = lock_holder(files.supervisor_lock)
    if how == "stop":
        assert host.rdev.command("rdev-agent", "stop").returncode == 0
    else:
        pid = host.agent
        os.kill(pid, signal.SIGTERM)
        await_gone(pid)
    assert read_agent(host.home.live) is None
    # A supervisor that begins now, and finds no agent, has nothing to guard either.
    kill(supervisor)
    until(lambda: lock_holder(files.supervisor_lock) not in (0, supervisor))
    until(lambda: Path(files.socket).exists())
    assert not answers(host.home)
    assert read_status(files).state is JobState.RUNNING
    host.rdev.await_state("running")


def test_an_agent_that_did_not_live_to_record_itself_stays_away_too(host):
    host.start("--", "sleep", "600")
    record = read_agent(host.home.live)
    with subprocess.Popen(["true"]) as dead:
        pass
    # As its predecessor left it, who was killed: not this agent's to forget.
    write_agent(host.home.live, replace(record, pid=dead.pid))
    done = host.rdev.command("rdev-agent", "stop")
    assert (done.returncode, done.stderr) == (0, "")
    assert read_agent(host.home.live) is None
    assert host.rdev.command("rdev-agent", "status").stdout.startswith("no agent serves")


@pytest.mark.slow
@pytest.mark.parametrize(
    "words", [pytest.param(("--now",), marks=pytest.mark.slow), ("--now", "--all")], ids=" ".join
)
def test_a_restarted_agent_survives_the_stop_of_the_job_it_descends_from(host, words):
    first = host.start("--", "sleep", "600")
    before = host.agent
    kill(before)
    until(lambda: host.served_by_another(before))
    restarted = host.agent
    second = host.start("--", "sleep", "600")
    keeper = lock_holder(first.keeper_lock)
    assert look_at(restarted).parent == keeper
    done = host.rdev.run("stop", *words, Path(first.directory).name)
    assert done.returncode == 0, done.stderr
    await_gone(keeper)
    assert (read_status(first).state, read_status(first).spared) == (JobState.CANCELLED, ())
    assert host.agent == restarted
    assert read_status(second).state is JobState.RUNNING
    jobs = json.loads(host.rdev.run("ps", "--json").stdout)
    assert [job["id"] for job in jobs] == [Path(second.directory).name]


@pytest.mark.slow
def test_a_restarted_agent_is_not_counted_as_what_the_job_has_used(host):
    files = host.start("--", "sh", "-c", "sleep 600")
    before = host.agent
    kill(before)
    until(lambda: host.served_by_another(before))
    restarted = look_at(host.agent)
    assert (restarted.name, restarted.parent) == ("rdev-agent", lock_holder(files.keeper_lock))
    assert host.rdev.command("rdev-agent", "stop").returncode == 0
    until(lambda: look_at(restarted.pid) is None)  # its parent has taken note of what it used
    assert host.rdev.run("stop", "--now", Path(files.directory).name).returncode == 0
    (job,) = json.loads(host.rdev.run("ps", "-a", "--json").stdout)
    used = job["usage"]
    assert used["user_seconds"] + used["system_seconds"] < 0.1


def test_jobs_of_a_restarted_agent_have_the_logins_limits(host):
    files = host.start("--", "sleep", "600")
    # As a supervisor raises its own for a job of many ranks, which would take a minute to start.
    supervisor = lock_holder(files.supervisor_lock)
    soft, hard = resource.prlimit(supervisor, resource.RLIMIT_NOFILE)
    resource.prlimit(supervisor, resource.RLIMIT_NOFILE, (soft - 100, hard))
    before = host.agent
    kill(before)
    until(lambda: host.served_by_another(before))
    done = host.rdev.run("run", "-q", "--", "sh", "-c", "ulimit -Sn")
    assert done.stdout.split() == [str(soft)], done.stderr


def test_stop_ends_an_agent_that_nobody_can_reach(host):
    host.start("--", "sleep", "600")
    mute = host.agent
    os.unlink(host.home.socket)
    said = host.rdev.command("rdev-agent", "status")
    assert (said.returncode, said.stdout.strip()) == (
        1,
        f"agent {mute} has {host.home.root} and does not answer",
    )
    done = host.rdev.command("rdev-agent", "stop")
    assert (done.returncode, "which did not answer, stopped" in done.stdout) == (0, True)
    assert read_agent(host.home.live) is None


def test_stop_calls_off_the_return_of_an_agent_that_cannot_start(host):
    files = host.start("--", "sleep", "600")
    record = read_agent(host.home.live)
    # Its interpreter is gone, as after the removal of a virtual environment.
    write_agent(host.home.live, replace(record, argv=("/nonexistent/python", *record.argv[1:])))
    kill(record.pid)
    await_gone(record.pid)
    until(lambda: "unable to start the agent again" in Path(host.home.log).read_text())
    assert read_status(files).state is JobState.RUNNING
    done = host.rdev.command("rdev-agent", "stop")
    assert (done.returncode, done.stdout.startswith("no agent serves")) == (0, True)
    assert read_agent(host.home.live) is None
