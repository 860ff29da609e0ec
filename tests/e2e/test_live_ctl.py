"""`rdev ctl` on trainings that nobody prepared: a plain script, and one under Lightning."""

import json
import textwrap
import time

import pytest
from tests.support.command import DEADLINE
from tests.support.probed import PLAIN

pytestmark = pytest.mark.shared_agent

LIGHTNING = """
    import lightning, logging, torch, warnings

    warnings.filterwarnings("ignore")

    class Model(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.net = torch.nn.Linear(8, 1)

        def training_step(self, batch, number):
            loss = self.net(batch).square().mean()
            print(self.global_step + 1, repr(loss.item()), flush=True)
            return loss

        def configure_optimizers(self):
            optimizer = torch.optim.SGD(self.parameters(), lr=0.01)
            return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, 1)]

    torch.manual_seed(0)
    data = torch.utils.data.DataLoader(torch.randn(100000, 8), batch_size=16)
    options = ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary")
    trainer = lightning.Trainer(max_epochs=100, accelerator="cpu", **dict.fromkeys(options, False))
    trainer.fit(Model(), data)
    print("after")
"""


def asked(rdev, *words):
    """What `rdev ctl` says in one rank."""
    done = rdev.run("ctl", "--json", *words)
    assert done.returncode == 0, done.stderr
    (outcome,) = json.loads(done.stdout)
    return outcome


def trains(rdev):
    deadline = time.monotonic() + DEADLINE
    while not rdev.run("logs").stdout:
        assert time.monotonic() < deadline, "the script does not train"
        time.sleep(0.1)


def losses(rdev):
    """What the script has printed of each of its steps."""
    lines = [line.split() for line in rdev.run("logs").stdout.splitlines()]
    return {int(line[0]): float(line[1]) for line in lines if line[0].isdigit()}


def controlled(rdev, name):
    """Acceptance: everything that `rdev ctl` offers, on a running script; the paused step."""
    paused = asked(rdev, "pause")
    assert paused["step"] >= 1
    state = asked(rdev, "state")
    assert state["step"] == paused["step"]
    (rates,) = state["answer"]["lr"].values()
    assert asked(rdev, "set", "lr=0.001")["answer"]["before"] == pytest.approx(rates[0])
    stepped = asked(rdev, "step", "2")
    assert stepped["step"] == paused["step"] + 2
    saved = asked(rdev, "checkpoint")
    assert (saved["step"], bool(saved["answer"]["path"])) == (stepped["step"], True)

    seen = asked(rdev, "state")["answer"]
    file = rdev.cwd / name
    file.write_text(file.read_text().replace(".square().mean()", ".square().mean() + 1000.0"))
    assert asked(rdev, "reload", "__main__")["answer"]["changed"]
    asked(rdev, "step", "2")
    after = asked(rdev, "state")
    assert after["step"] == stepped["step"] + 2
    assert 1000.0 <= after["answer"]["loss"] < 1100.0, after  # a small rest is lost in float32
    assert seen["loss"] < 100.0
    assert asked(rdev, "resume")["step"] == after["step"]
    assert asked(rdev, "stop")["step"] > after["step"]
    assert rdev.run("wait").returncode == 0
    return after["step"]


@pytest.mark.parametrize(
    "source",
    [
        pytest.param(PLAIN, id="a plain script"),
        pytest.param(LIGHTNING, id="Lightning", marks=pytest.mark.slow),
    ],
)
def test_a_script_that_nobody_prepared_is_controlled_while_it_runs(source, rdev):
    rdev.write("train.py", textwrap.dedent(source))
    assert rdev.run("run", "-d", "train.py", "100000").returncode == 0
    trains(rdev)
    controlled(rdev, "train.py")
    assert "after" not in rdev.run("logs").stdout

    # The loss told for a step is the one printed for it; the two count from different steps.
    printed = losses(rdev)
    lines = [json.loads(line) for line in rdev.run("metrics", "--json").stdout.splitlines()]
    told = {line["step"]: line["values"]["loss"] for line in lines if "loss" in line["values"]}
    shift = next(n for n, loss in printed.items() if loss > 900.0) - min(
        step for step, loss in told.items() if loss > 900.0
    )
    # The last step ends the run before it prints.
    told = {step: loss for step, loss in told.items() if step + shift <= max(printed)}
    assert {step: printed[step + shift] for step in told} == pytest.approx(told)
