"""Which job a person means."""

import pytest

from rdev.agent.jobs.lookup import find, newest_first
from rdev.protocol.errors import JobNotFound
from rdev.wire.job import CommandKind, Job, JobSpec, JobState


def job(job_id, name, created, *, workspace="w1", state=JobState.SUCCEEDED, aside=False):
    spec = JobSpec(CommandKind.PROGRAM, "x", workspace_id=workspace, aside=aside)
    return Job(job_id, name, spec, state, created=created)


JOBS = [
    job("aaaa11112222", "train", 1.0),
    job("aabb11112222", "train", 2.0, state=JobState.RUNNING),
    job("cccc11112222", "train", 3.0),
    job("dddd11112222", "eval", 4.0, workspace="w2"),
    job("eeee11112222", "aabb", 0.5),
]


def test_the_newest_comes_first():
    assert [j.created for j in newest_first(JOBS)] == [4.0, 3.0, 2.0, 1.0, 0.5]


@pytest.mark.parametrize(
    ("reference", "workspace", "found"),
    [
        ("aaaa11112222", "", "aaaa11112222"),
        ("dd", "", "dddd11112222"),
        ("train", "", "aabb11112222"),  # the live one
        ("aabb", "", "eeee11112222"),  # a name before an id's beginning
        ("", "", "dddd11112222"),
        ("", "w1", "cccc11112222"),
        ("@-1", "w1", "cccc11112222"),
        ("@-2", "w1", "aabb11112222"),
        ("@-2", "", "cccc11112222"),
        ("eval", "w1", "dddd11112222"),  # another workspace's, as it was named
    ],
)
def test_found(reference, workspace, found):
    assert find(JOBS, reference, workspace_id=workspace).id == found


def test_a_shell_beside_the_work_is_only_meant_by_who_names_it():
    shell = job("ffff11112222", "shell", 5.0, state=JobState.RUNNING, aside=True)
    jobs = [*JOBS, shell]
    for workspace, latest in (("", "dddd11112222"), ("w1", "cccc11112222")):
        assert find(jobs, "", workspace_id=workspace).id == latest
        assert find(jobs, "@-1", workspace_id=workspace).id == latest
    for name in ("shell", "ffff", shell.id):
        assert find(jobs, name) == shell
    with pytest.raises(JobNotFound):
        find([shell], "")


@pytest.mark.parametrize(
    ("reference", "workspace", "cause"),
    [
        ("nope", "", "no job has that name or id"),
        ("aa", "w2", "the ids of 2 jobs begin with it"),
        ("", "w9", "there are no jobs here yet"),
        ("@-9", "", "there are only 5 jobs"),
        ("@-0", "", "no job has that name or id"),
    ],
)
def test_not_found(reference, workspace, cause):
    with pytest.raises(JobNotFound) as caught:
        find(JOBS, reference, workspace_id=workspace)
    assert caught.value.cause == cause
