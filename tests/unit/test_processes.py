"""Whose processes are whose."""

import os

from rdev.supervisor.processes import is_alive, look_at, members


def test_without_keeper_and_main_process_nobody_belongs_to_a_job():
    assert members("0123456789ab", keeper=0, main=0) == []


def test_init_is_nobodys_keeper_and_no_jobs_process():
    assert members("0123456789ab", keeper=1, main=1) == []


def test_whoever_asks_and_those_above_are_spared_even_if_they_descend_from_the_keeper():
    found = members("0123456789ab", keeper=os.getppid(), main=os.getpid())
    assert not {os.getpid(), os.getppid()} & {process.pid for process in found}


def test_a_process_is_told_from_a_later_one_of_its_id():
    here = look_at(os.getpid())
    assert is_alive(here.pid, ticks=here.ticks)
    assert not is_alive(here.pid, ticks=here.ticks + 1)
