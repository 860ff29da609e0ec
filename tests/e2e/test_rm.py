"""`rdev rm`: what it removes, and what it never does."""

import pytest

pytestmark = pytest.mark.shared_agent


def test_ended_jobs_are_removed_by_age_and_live_ones_never(rdev):
    assert rdev.run("run", "--name", "one", "--", "true").returncode == 0
    assert rdev.run("run", "--name", "two", "--", "false").returncode == 1
    assert rdev.run("run", "-d", "--name", "live", "--", "sleep", "600").returncode == 0
    unclear = rdev.run("rm", "--ended", "one")
    assert (unclear.returncode, unclear.stdout) == (2, "")
    none = rdev.run("rm", "--ended", "--older-than", "7d")
    assert (none.returncode, none.stdout) == (0, "")
    both = rdev.run("rm", "--ended", "--older-than", "0s")
    assert both.returncode == 0, both.stderr
    assert {line.split()[1] for line in both.stdout.splitlines()} == {"one", "two"}
    assert [job["name"] for job in rdev.jobs(ended=True)] == ["live"]
    refused = rdev.run("rm", "live")
    assert (refused.returncode, "it has not ended" in refused.stderr) == (1, True)


def test_an_age_that_is_none_is_explained(rdev):
    done = rdev.run("rm", "--ended", "--older-than", "long")
    assert (done.returncode, "unable to tell how old they are" in done.stderr) == (2, True)
