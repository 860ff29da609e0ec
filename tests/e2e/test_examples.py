"""Each example trains to what it promises, as a job and outside one."""

import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("sklearn")

# They take 5 to 10 s each, half of it to import torch and scikit-learn.
pytestmark = [pytest.mark.shared_agent, pytest.mark.slow, pytest.mark.timeout(150)]

EXAMPLES = Path(__file__).parents[2] / "examples"
NUMBER = r"([\d.]+)"


@dataclass(frozen=True)
class Example:
    """What an example says last, what of it is good enough, and the series that it reports.

    Bars lie between what an untrained model has and the worst of several seeds.
    """

    says: str
    is_good: object
    series: frozenset

    def figures(self, output):
        (found,) = re.findall(self.says, output.splitlines()[-1])
        return tuple(float(figure) for figure in found)


SKETCHES = {
    "supervised": Example(
        rf"accuracy {NUMBER} at step (\d+)",
        lambda accuracy, _: accuracy > 0.93,
        frozenset({("", "loss"), ("", "correct"), ("", "accuracy")}),
    ),
    "wgan": Example(
        rf"distance {NUMBER} before, {NUMBER} after .* {NUMBER} between",
        # Far nearer to unseen digits than it began, if not as near as real ones are.
        lambda before, after, real: real < after < before / 10,
        frozenset({("critic", "loss"), ("generator", "loss"), ("", "frechet")}),
    ),
    "swap": Example(
        rf"accuracy {NUMBER} after (\d+) steps",
        lambda accuracy, _: accuracy > 0.94,
        frozenset({("", "loss"), ("", "accuracy")}),
    ),
    "detector": Example(
        rf"recall {NUMBER}, precision {NUMBER}",
        lambda recall, precision: recall > 0.8 and precision > 0.8,
        frozenset({("proposals", "loss"), ("classes", "loss"), ("", "recall"), ("", "precision")}),
    ),
    "reinforcement": Example(
        rf"return {NUMBER} before, {NUMBER} after",
        lambda before, after: before < 100 and after > 450,
        frozenset({("", "loss"), ("", "critic"), ("", "episode")}),
    ),
    "self_supervised": Example(
        rf"accuracy {NUMBER} of pixels, {NUMBER} of features",
        # No label was seen in training, so what is beaten is the same probe on what it began with.
        lambda pixels, features: features > pixels + 0.05,
        frozenset({("", "loss")}),
    ),
}


def plainly(name, folder, *words):
    """Runs an example as anybody would, outside a job; its output."""
    done = subprocess.run(
        [sys.executable, EXAMPLES / f"{name}.py", *words],
        cwd=folder,
        env={key: value for key, value in os.environ.items() if not key.startswith("RDEV_")},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout


@pytest.mark.parametrize("name", SKETCHES)
def test_a_sketch_trains_as_a_job_and_reports_each_of_its_phases(rdev, name):
    rdev.write(f"{name}.py", (EXAMPLES / f"{name}.py").read_text())
    done = rdev.run("run", f"{name}.py", timeout=120)
    assert done.returncode == 0, done.stderr
    figures = SKETCHES[name].figures(done.stdout)
    assert SKETCHES[name].is_good(*figures), figures

    events = [json.loads(line) for line in rdev.run("metrics", "--json").stdout.splitlines()]
    metrics = [event for event in events if event["kind"] == "metric"]
    seen = {(event["phase"], value) for event in metrics for value in event["values"]}
    assert seen == SKETCHES[name].series


@pytest.mark.slow
@pytest.mark.parametrize("name", SKETCHES)
def test_a_sketch_does_outside_a_job_what_its_seed_says(tmp_path, name):
    first, again = plainly(name, tmp_path), plainly(name, tmp_path)
    assert first == again
    assert SKETCHES[name].is_good(*SKETCHES[name].figures(first))
    assert plainly(name, tmp_path, "--epochs", "2", "--seed", "1") != plainly(
        name, tmp_path, "--epochs", "2"
    )


@pytest.mark.slow
def test_the_supervised_example_goes_on_to_the_weights_of_a_run_at_once(tmp_path):
    whole = plainly("supervised", tmp_path, "--epochs", "4", "--folder", "whole")
    begun = plainly("supervised", tmp_path, "--epochs", "2", "--folder", "parts")
    rest = plainly("supervised", tmp_path, "--epochs", "4", "--folder", "parts", "--resume")
    # All but the last line are of epochs.
    assert begun.splitlines()[:-1] + rest.splitlines() == whole.splitlines()
