"""Which process of a rank is attached to, and what py-spy and the hook say of one."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from rdev.agent.debug.stacks import of_hook, of_py_spy
from rdev.agent.debug.target import Target, choose, target_of
from rdev.wire.job import CommandKind, DebugStop, Job, JobSpec, JobState


def test_the_process_that_trains_is_the_one_whose_children_the_workers_are():
    # A supervisor that was restarted meets the workers first.
    parents = {11: 10, 12: 10, 10: 5, 5: 1}
    assert choose([11, 12, 10], lambda pid: parents.get(pid, 0)) == Target(10)


def test_a_worker_of_a_process_between_is_a_worker_too():
    parents = {12: 11, 11: 10, 10: 1}
    assert choose([12, 10], lambda pid: parents.get(pid, 0)) == Target(10)


def test_several_programs_of_one_rank_are_told():
    parents = {10: 5, 20: 5, 5: 1}
    assert choose([10, 20], lambda pid: parents.get(pid, 0)) == Target(10, (20,))


def test_a_process_that_has_gone_meanwhile_has_no_parent_and_endless_lines_end():
    assert choose([10], lambda _pid: 0) == Target(10)
    assert choose([10], lambda pid: {10: 11, 11: 12, 12: 11}[pid]) == Target(10)


# What py-spy 0.4 prints with `--json --native`, shortened.
SPIED = [
    {
        "pid": 70,
        "thread_id": 140,
        "thread_name": None,
        "os_thread_id": 71,
        "active": False,
        "owns_gil": False,
        "frames": [
            {"name": "poll", "filename": "libc.so.6", "module": "/lib/libc.so.6", "line": 0}
        ],
        "process_info": {"pid": 70, "command_line": "python train.py", "ppid": 1},
    },
    {
        "pid": 70,
        "thread_id": 139,
        "thread_name": "MainThread",
        "os_thread_id": 70,
        "active": True,
        "owns_gil": True,
        "frames": [
            {"name": "step", "filename": "/w/train.py", "module": None, "line": 5},
            {"name": "<module>", "filename": "/w/train.py", "module": None, "line": 9},
        ],
        "process_info": {"pid": 70, "command_line": "python train.py", "ppid": 1},
    },
]


def test_what_py_spy_prints_is_read_with_the_main_thread_first():
    found = of_py_spy(json.dumps(SPIED).encode(), 3, 70)
    assert (found.rank, found.title, found.source) == (3, "python train.py", "py-spy")
    assert [thread.name for thread in found.threads] == ["MainThread", "thread 71"]
    assert [(f.line, f.function) for f in found.threads[0].frames] == [(5, "step"), (9, "<module>")]
    assert found.threads[1].frames[0].file == "libc.so.6"
    for broken in (b"", b"{}", b"\xff"):
        with pytest.raises(ValueError):  # noqa: PT011 - json's own, or ours
            of_py_spy(broken, 0, 70)


def test_what_a_hook_answers_is_read():
    answer = {
        "threads": [{"name": "MainThread", "paused": True, "frames": [["/w/train.py", 5, "step"]]}],
        "title": "python train.py",
    }
    found = of_hook(answer, 1, 70)
    assert found.threads[0].is_paused
    assert found.threads[0].frames[0].function == "step"
    assert (found.source, found.cause) == ("hook", "")


async def test_a_worker_that_waits_for_a_debugger_is_the_one_that_is_attached_to():
    stop = DebugStop(0, 11, "/ws/data.py", 4, "load", "breakpoint", 103.0, unattended=True)
    spec = JobSpec(kind=CommandKind.SCRIPT, target="train.py")
    job = Job(id="0" * 12, name="train", spec=spec, state=JobState.RUNNING)

    class Peers:
        async def peers(self, job_id):
            assert job_id == job.id
            return [{"role": "hook", "rank": 0, "pid": pid} for pid in (10, 11)]

    assert await target_of(Peers(), replace(job, stops=(stop,)), 0, "debug") == Target(11)
    attended = replace(stop, unattended=False)
    found = await target_of(Peers(), replace(job, stops=(attended,)), 0, "debug")
    assert found == Target(10, (11,))
