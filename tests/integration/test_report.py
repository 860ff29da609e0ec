"""What torchrun's report says of how its ranks ended."""

import signal

import pytest

from rdev.supervisor.report import names_killed_rank, read_report
from rdev.wire.files import JobFiles
from rdev.wire.job import Attempt, Reason, Stream

NOON = 1_767_268_800


def report(*failures):
    """What torchrun prints of ranks that ended so many seconds after noon with those codes."""
    # Here, for only one of the processes that run tests has to import torch.
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure

    named = {}
    for rank, (seconds, code) in enumerate(failures):
        failure = ProcessFailure(rank, 100 + rank, exitcode=code, error_file="<N/A>")
        failure.timestamp = NOON + seconds
        named[rank] = failure
    return f"Traceback ...\n{ChildFailedError('train.py', named)}\n".encode()


@pytest.mark.parametrize("code", [-signal.SIGKILL, 137])
def test_a_rank_that_was_killed_whoever_was_first(code):
    assert names_killed_rank(report((0, code)))
    assert names_killed_rank(report((1, code), (0, 1)))
    assert names_killed_rank(report((0, 1), (0, -15), (3, code), (4, 1)))


def test_ranks_that_failed_otherwise():
    assert not names_killed_rank(report((0, 1)))
    assert not names_killed_rank(report((0, 9), (1, -15), (1, -6)))
    assert not names_killed_rank(b"")
    assert not names_killed_rank(b"exitcode  : -9 (pid: 3)\n")


def test_what_only_looks_like_a_report_ends_no_supervisor():
    years = "9" * 30
    printed = f"  time      : {years}-01-01_00:00:00\n  exitcode  : -9 (pid: 3)\n".encode()
    assert not names_killed_rank(printed)
    assert names_killed_rank(printed + report((0, -9)))


def test_a_rank_that_torchrun_itself_has_killed_at_last():
    assert not names_killed_rank(report((0, 1), (30, -signal.SIGKILL)))


def test_only_the_report_of_this_attempt_counts(tmp_path):
    files = JobFiles(str(tmp_path))
    (tmp_path / "logs").mkdir()
    first, second = report((0, -9)), report((9, 1))
    (tmp_path / "logs" / "0.launcher").write_bytes(first + second)
    ends = (Stream(0, "launcher", len(first)), Stream(0, "stdout", 5))
    failed = Attempt(1, Reason.OUT_OF_MEMORY, ends=ends)
    assert read_report(files, (failed,)) == second
    assert read_report(files, ()) == first + second
    assert read_report(JobFiles("/nonexistent"), ()) == b""
