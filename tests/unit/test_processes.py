"""Whose processes are whose."""

import inspect
import os
import subprocess
import time

import pytest

from rdev.supervisor import processes
from rdev.supervisor.membership import Membership, Scope
from rdev.supervisor.processes import Process, is_alive, look_at
from rdev.supervisor.stopping import Sweep
from rdev.wire.records import Launch, Started

LAUNCH = Launch("0123456789ab", ("true",), {}, "/", umask=0o077, grace=0.0, timeout=None)


def started(process: Process, *, later: int = 0) -> Started:
    """The marker of a main process; a later one has taken its id if `later` is not 0."""
    return Started(process.pid, process.ticks - later, time=0.0, monotonic=0.0)


def members(*, keeper, main, scope=Scope.JOB):
    return Membership(LAUNCH.id).look(keeper=keeper, main=main, scope=scope).members


@pytest.fixture
def bystander():
    """A process that leads a session of its own, as a job's main process does."""
    child = subprocess.Popen(["sleep", "600"], start_new_session=True)
    yield child
    child.kill()
    child.wait()


def test_without_keeper_and_main_process_nobody_belongs_to_a_job():
    assert members(keeper=0, main=None) == []


def test_init_is_nobodys_keeper_and_no_jobs_process():
    assert members(keeper=1, main=started(look_at(1))) == []


def test_whoever_asks_and_those_above_are_spared_even_if_they_descend_from_the_keeper():
    found = members(keeper=os.getppid(), main=started(look_at(os.getpid())))
    assert not {os.getpid(), os.getppid()} & {process.pid for process in found}


def test_a_process_is_told_from_a_later_one_of_its_id():
    here = look_at(os.getpid())
    assert is_alive(here.pid, ticks=here.ticks)
    assert not is_alive(here.pid, ticks=here.ticks + 1)


def test_the_main_process_is_its_jobs_and_one_that_has_its_id_by_now_is_not(bystander):
    here = look_at(bystander.pid)
    for scope in Scope:
        found = members(keeper=0, main=started(here), scope=scope)
        assert found == [here]
        taken = started(here, later=1)
        assert members(keeper=0, main=taken, scope=scope) == []


@pytest.mark.parametrize("is_stopped", [False, True])
def test_neither_stop_nor_end_of_a_job_touches_who_has_its_id_by_now(bystander, is_stopped):
    sweep = Sweep(LAUNCH, keeper=0)
    sweep.main = started(look_at(bystander.pid), later=1)
    if is_stopped:
        sweep.begin(kill_at=time.monotonic())
    assert sweep.step(is_over=True)
    assert bystander.poll() is None


@pytest.mark.skipif(os.geteuid() != 0, reason="a mount, and another user, take root")
def test_processes_of_others_that_the_machine_hides_are_not_there():
    """Clusters mount /proc so that their users do not see one another."""
    if subprocess.run(["unshare", "--mount", "true"], check=False).returncode:
        pytest.skip("this machine lets nobody have mounts of their own")
    hide = "mount -t proc -o hidepid=1 proc /proc || exit 77; exec setpriv --reuid=65534"
    look = f"""
{inspect.getsource(processes)}
mine = [process.pid for process in all_processes()]
print(os.getpid() in mine, look_at(1), is_alive(1, ticks=0))
"""
    command = f"{hide} --regid=65534 --clear-groups /usr/bin/python3 -"
    words = ["unshare", "--mount", "sh", "-c", command]
    done = subprocess.run(words, input=look, capture_output=True, text=True, check=False)
    if done.returncode == 77:
        pytest.skip("this machine lets nothing be mounted")
    assert done.stdout == "True None False\n", done.stderr


def test_a_repeated_stop_does_not_put_off_the_next_look(bystander):
    sweep = Sweep(LAUNCH, keeper=0)
    sweep.main = started(look_at(bystander.pid))
    begun = time.monotonic()
    sweep.begin(kill_at=begun + 600.0)
    sweep.step(is_over=True)
    sweep.begin(kill_at=begun + 600.0)
    assert sweep.next_look() < begun + 300.0
