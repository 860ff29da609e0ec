"""Limits that are set on other processes' system calls, so that these really fail."""

import contextlib
import os
import resource
from collections.abc import Iterator
from pathlib import Path

import pytest

PIDS = Path("/sys/fs/cgroup/pids")


@contextlib.contextmanager
def limited(pid: int, kind: int, most: int) -> Iterator[None]:
    """A process has that soft limit as long as the block lasts."""
    soft, hard = resource.prlimit(pid, kind)
    resource.prlimit(pid, kind, (most, hard))
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            resource.prlimit(pid, kind, (soft, hard))


@contextlib.contextmanager
def unable_to_fork(pid: int) -> Iterator[None]:
    """A process cannot fork as long as the block lasts."""
    if os.geteuid() != 0:
        with limited(pid, resource.RLIMIT_NPROC, 1):
            yield
        return
    # root has no limit; a control group of version 1 has.
    if not os.access(PIDS / "cgroup.procs", os.W_OK):
        pytest.skip("a control group for processes, version 1, needs its mount")
    group = PIDS / f"rdev-test-{os.getpid()}"
    group.mkdir()
    try:
        (group / "pids.max").write_text("1")
        (group / "cgroup.procs").write_text(str(pid))
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            (PIDS / "cgroup.procs").write_text(str(pid))
        group.rmdir()
