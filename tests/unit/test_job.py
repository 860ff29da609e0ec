"""What a job says of itself."""

from __future__ import annotations

import pytest

from rdev.wire.job import CommandKind, Job, JobSpec, JobState


@pytest.mark.parametrize(
    ("directory", "runs_in", "folder"),
    [
        ("", "/home/me/.rdev/workspaces/net-1", "/home/me/.rdev/workspaces/net-1"),
        ("src", "/home/me/.rdev/workspaces/net-1/src", "/home/me/.rdev/workspaces/net-1"),
        ("a/b/", "/ws/a/b", "/ws"),
        ("", "/home/me", "/home/me"),
    ],
)
def test_the_workspace_is_found_above_the_folder_a_job_runs_in(directory, runs_in, folder):
    spec = JobSpec(kind=CommandKind.SCRIPT, target="train.py", directory=directory)
    job = Job(id="0" * 12, name="net", spec=spec, state=JobState.RUNNING, directory=runs_in)
    assert job.workspace_folder == folder
