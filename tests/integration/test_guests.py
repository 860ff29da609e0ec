"""Each library that is joined does one training, and is watched and controlled as the loop is."""

import fcntl
import json
import os
import subprocess
import sys

import pytest
from tests.support.guests.checks import CHECKS, close
from tests.support.guests.environments import PACKAGES, python_with
from tests.support.guests.terms import ACCUMULATING, EXTRAS, GUESTS, PROCESSES, STEPS
from tests.support.interpreters import ROOT


def each(guests):
    """The guests as parameters; those that take long, or environments of their own, are slow."""
    slow = pytest.mark.slow
    long = {*PACKAGES, "transformers", "keras", "skorch"}
    return [pytest.param(one, marks=slow) if one in long else one for one in guests]


@pytest.fixture(scope="session")
def seen(tmp_path_factory):
    """What was seen of a guest; one process does all of its scenarios, for all tests of a run."""
    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent

    def of(host):
        members = next(members for members in PROCESSES if host in members)
        folder = shared / f"guest-{members[-1]}"
        folder.mkdir(exist_ok=True)
        with open(folder / "lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            output = folder / f"{host}.json"
            if not output.exists():
                train(members, folder)
        return json.loads(output.read_text())

    return of


def train(hosts, folder):
    python = python_with(hosts[0]) if hosts[0] in PACKAGES else sys.executable
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "agent"), str(ROOT)])}
    result = subprocess.run(
        [python, "-m", "tests.support.guests", str(folder), *hosts],
        env=environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert result.returncode == 0, result.stderr[-4000:]


@pytest.mark.parametrize("guest", each(GUESTS))
def test_a_guest_is_as_the_loop(guest, seen):
    # All checks of a guest at once: of several workers the others would wait for its process.
    run, loop = seen(guest), seen("loop")
    failures = {}
    for name, check in CHECKS.items():
        try:
            check(run, loop)
        except AssertionError as error:
            failures[name] = str(error)
    assert not failures
    if guest in ACCUMULATING:  # batches that are accumulated are one step, whose loss is their mean
        accumulated = run["accumulated"]
        assert len(accumulated["losses"]) == STEPS // 2
        assert close(accumulated["losses"], accumulated["paired"])
    # What only one library does is borne.
    assert run.get("extras") == EXTRAS.get(guest, run.get("extras"))


@pytest.mark.parametrize(
    ("fault", "check"),
    [
        ("running mean", "the loss is the step's own"),
        ("open epoch", "the events are the loop's"),
        ("doubled step", "steps and epochs are counted"),
    ],
)
def test_an_adapter_that_is_wrong_is_found(fault, check, seen):
    right, loop = seen("ignite"), seen("loop")
    CHECKS[check](right, loop)
    with pytest.raises(AssertionError):
        CHECKS[check]({**right, "plain": right["faults"][fault]}, loop)
