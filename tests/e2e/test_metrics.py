"""`rdev metrics` over a job whose script uses the loop."""

import csv
import json

import pytest

pytestmark = pytest.mark.shared_agent

SCRIPT = """
from rdev.loop import Loop, log

def step(state):
    yield "critic", 1 / state.step
    yield "generator", {"loss": float("nan"), "norm": 2.0}

Loop(step, range(20), epochs=2).run()
log(accuracy=0.5)
"""


@pytest.fixture
def trained(rdev):
    """A person whose job has trained."""
    rdev.write("train.py", SCRIPT)
    done = rdev.run("run", "train.py")
    assert done.returncode == 0, done.stderr
    return rdev


def test_every_shape_shows_the_same_last_values(trained):
    table = trained.run("metrics")
    rows = {line.split()[0]: line.split()[1:] for line in table.stdout.splitlines()}
    assert table.returncode == 0, table.stderr
    assert rows["critic.loss"][:4] == ["0.025", "0.025", "1", "40"]
    assert rows["generator.norm"][0] == "2"
    assert rows["generator.loss"][0] == "nan"
    assert rows["accuracy"][0] == "0.5"

    lines = [json.loads(line) for line in trained.run("metrics", "--json").stdout.splitlines()]
    critic = [line for line in lines if line.get("phase") == "critic"]
    assert (critic[-1]["step"], critic[-1]["values"]) == (40, {"loss": 0.025})

    values = list(csv.DictReader(trained.run("metrics", "--csv").stdout.splitlines()))
    last = [row for row in values if row["phase"] == "critic"][-1]
    assert (last["step"], last["name"], float(last["value"])) == ("40", "loss", 0.025)

    plots = trained.run("metrics", "--plot").stdout
    assert "critic.loss\n" in plots
    assert "no finite values" in plots


def test_following_prints_a_line_an_event_and_ends_with_the_job(trained):
    followed = trained.run("metrics", "-f")
    assert followed.returncode == 0, followed.stderr
    assert "step 40  epoch 2  critic.loss 0.025" in followed.stdout.splitlines()


def test_a_job_without_metrics_says_how_to_report_some(rdev):
    rdev.write("plain.py", "print('hello')")
    assert rdev.run("run", "plain.py").returncode == 0
    shown = rdev.run("metrics")
    assert (shown.returncode, shown.stdout) == (
        0,
        "no metrics; a script reports them with `rdev.loop`\n",
    )


def test_two_shapes_at_once_are_refused(rdev):
    assert rdev.run("metrics", "--json", "--csv").returncode == 2
