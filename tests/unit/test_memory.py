"""Where the kernel counts whom it kills for want of memory."""

import pytest

from rdev.supervisor.memory import Kills, counted, counter_paths, kills_between, kills_where

LEGACY = "5:memory:/slurm/job_7\n4:cpu,cpuacct:/\n0::/\n"
UNIFIED = "0::/user.slice/job.scope\n"


def test_a_group_of_version_2_counts_for_those_below_it():
    paths = list(counter_paths(UNIFIED))
    assert paths[:3] == [
        "/sys/fs/cgroup/user.slice/job.scope/memory.events",
        "/sys/fs/cgroup/user.slice/memory.events",
        "/sys/fs/cgroup/memory.events",
    ]


def test_a_group_of_version_1_counts_for_itself():
    paths = list(counter_paths(LEGACY))
    assert paths[-2:] == [
        "/sys/fs/cgroup/memory/slurm/job_7/memory.oom_control",
        "/sys/fs/cgroup/memory/memory.oom_control",
    ]


@pytest.mark.parametrize("content", ["", "garbage", "1:name=systemd:/\n", "::\n"])
def test_a_process_without_group_has_no_counter_of_one(content):
    assert list(counter_paths(content)) == []


def test_a_group_that_was_removed_is_looked_for_by_its_name():
    assert next(counter_paths("0::/a (deleted)\n")) == "/sys/fs/cgroup/a/memory.events"


@pytest.mark.parametrize(
    ("content", "count"),
    [
        ("low 0\nhigh 0\nmax 12\noom 3\noom_kill 2\noom_group_kill 1\n", 2),
        ("oom_kill_disable 0\nunder_oom 0\noom_kill 5\n", 5),
        ("oom_kill_disable 0\nunder_oom 0\n", None),
        ("oom_kill many\n", None),
        ("", None),
    ],
)
def test_the_counter_among_others(content, count):
    assert counted(content) == count


A, B = "/sys/fs/cgroup/a/memory.events", "/sys/fs/cgroup/b/memory.events"
OLD, ROOT = "/sys/fs/cgroup/memory/a/memory.oom_control", "/sys/fs/cgroup/memory/memory.oom_control"


@pytest.mark.parametrize(
    ("before", "after", "of_job", "count"),
    [
        (Kills(A, 3, 9), Kills(A, 5, 20), Kills(A, 5, 20), 2),
        (Kills("", 0, 9), Kills("", 0, 20), Kills("", 0, 20), 11),
        # A job that moved itself into a group that has counted before, or never.
        (Kills(A, 3, 9), Kills(A, 3, 10), Kills(B, 7, 10), 1),
        (Kills(A, 3, 9), Kills(A, 3, 20), Kills(B, 1, 20), 1),
        (Kills(A, 3, 9), Kills(A, 3, 9), Kills(B, 7, 9), 0),
        # Version 1 says of every zombie that it is in no group.
        (Kills(OLD, 3, 9), Kills(OLD, 4, 12), Kills(ROOT, 7, 12), 1),
        (Kills(OLD, 3, 9), Kills(OLD, 3, 12), Kills(ROOT, 7, 12), 0),
        # Somebody moved the keeper.
        (Kills(OLD, 3, 9), Kills(ROOT, 7, 10), Kills(ROOT, 7, 10), 1),
    ],
)
def test_the_nearest_counter_counts(before, after, of_job, count):
    assert kills_between(before, after, of_job=of_job) == count


def test_a_process_that_is_not_there_is_counted_by_the_machine():
    assert kills_where(1 << 22).group == ""
