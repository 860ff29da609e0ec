"""Each library that is joined does one training, and is watched and controlled as the loop is."""

import fcntl
import json
import os
import subprocess
import sys

import pytest
from tests.support.guests.checks import CHECKS
from tests.support.guests.hosts import HOSTS
from tests.support.interpreters import ROOT

GUESTS = [host for host in HOSTS if host != "loop"]


@pytest.fixture(scope="session")
def seen(tmp_path_factory):
    """What was seen of a guest; one process does all of its scenarios, for all tests of a run."""
    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent

    def of(host):
        folder = shared / f"guest-{host}"
        folder.mkdir(exist_ok=True)
        with open(folder / "lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            output = folder / "seen.json"
            if not output.exists():
                train(host, folder)
        return json.loads(output.read_text())

    return of


def train(host, folder, python=sys.executable):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "agent"), str(ROOT)])}
    result = subprocess.run(
        [python, "-m", "tests.support.guests", host, str(folder)],
        env=environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert result.returncode == 0, result.stderr[-4000:]


@pytest.mark.parametrize("guest", GUESTS)
@pytest.mark.parametrize("check", CHECKS)
def test_a_guest_is_as_the_loop(guest, check, seen):
    CHECKS[check](seen(guest), seen("loop"))
