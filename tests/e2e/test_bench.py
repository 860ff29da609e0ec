"""The benchmarks run; what they measure is for people to read."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from tests.support.peers import require_peer

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_edit_then_run_is_compared_with_rsync_and_ssh():
    for program in ("sshd", "ssh", "rsync"):
        require_peer(program)
    done = subprocess.run(
        [sys.executable, "-m", "bench", "edit_run"],
        cwd=ROOT,
        env=os.environ | {"RDEV_BENCH_ROUNDS": "3"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    rows = re.findall(r"^(rsync \+ ssh|rdev run) .* ([\d.]+)$", done.stdout, re.MULTILINE)
    assert [name for name, _ in rows] == ["rsync + ssh", "rdev run"] * 2
    assert all(float(ratio) > 0 for _, ratio in rows)


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_following_is_compared_with_a_pipe_and_ssh():
    for program in ("sshd", "ssh"):
        require_peer(program)
    done = subprocess.run(
        [sys.executable, "-m", "bench", "logs"],
        cwd=ROOT,
        env=os.environ | {"RDEV_BENCH_ROUNDS": "2"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=360,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    ways = r"^(rdev, SDK|rdev logs -f|rdev logs -f -H bench)  .* ([\d.]+)$"
    rows = re.findall(ways, done.stdout, re.MULTILINE)
    assert len(rows) == 18
    assert all(float(ratio) > 0 for _, ratio in rows)
    assert "job start" in done.stdout


@pytest.mark.slow
def test_a_command_on_an_ssh_host_is_compared_with_ssh():
    for program in ("sshd", "ssh"):
        require_peer(program)
    done = subprocess.run(
        [sys.executable, "-m", "bench", "contact"],
        cwd=ROOT,
        env=os.environ | {"RDEV_BENCH_ROUNDS": "2"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    rows = re.findall(r"^(ssh, mastered|rdev run, warm) .* ([\d.]+)$", done.stdout, re.MULTILINE)
    assert [name for name, _ in rows] == ["ssh, mastered", "rdev run, warm"] * 2
    assert all(float(ratio) > 0 for _, ratio in rows)
    assert "1.5 x mastered ssh + job start" in done.stdout


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_step_of_the_loop_is_compared_with_those_of_other_libraries():
    done = subprocess.run(
        [sys.executable, "-m", "bench", "loop_peers"],
        cwd=ROOT,
        env=os.environ | {"RDEV_BENCH_ROUNDS": "2"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    rows = re.findall(r"^(.+?) +-?[\d.]+ \(.*\)", done.stdout, re.MULTILINE)
    for library in ("rdev Loop", "Ignite", "skorch", "Lightning", "Keras 3", "HF Trainer"):
        assert rows.count(library) == 2  # a small step and a larger one
