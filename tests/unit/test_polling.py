"""gRPC without its event engine: where it is asked for, and nowhere else."""

import os
import subprocess
import sys

import grpc

from rdev.protocol.polling import release

PROGRAM = """
import os, sys
from rdev.protocol.polling import poll_directly
poll_directly()
assert "grpc" in sys.modules or "GRPC_EXPERIMENTS" in os.environ
print(os.environ.get("GRPC_EXPERIMENTS", "none"))
"""


def run(**environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )


def test_the_release_is_known_without_an_import():
    assert release() == grpc.__version__


def test_what_we_start_is_not_affected_and_nothing_is_said():
    ended = run()
    assert (ended.stdout, ended.stderr) == ("none\n", "")


def test_somebody_elses_wishes_are_left_alone():
    assert run(GRPC_EXPERIMENTS="tcp_frame_size_tuning").stdout == "tcp_frame_size_tuning\n"
