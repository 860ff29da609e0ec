"""`rdev ctl` on a joined training: Lightning's loop is paused, read, stepped, edited and stopped."""

import json
import textwrap
from pathlib import Path

import pytest

pytestmark = [pytest.mark.shared_agent, pytest.mark.slow]

# Each step says its number and the rate it is made with, which falls by a thousandth a step.
SCRIPT = """
    import lightning, logging, torch, warnings

    from rdev.loop import join

    warnings.filterwarnings("ignore")
    logging.disable(logging.CRITICAL)

    class Model(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.net = torch.nn.Linear(8, 1)

        def training_step(self, batch):
            print(self.global_step + 1, self.optimizers().param_groups[0]["lr"], flush=True)
            return self.net(batch).square().mean()

        def configure_optimizers(self):
            optimizer = torch.optim.SGD(self.parameters(), lr=0.01)
            schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.999**step)
            return [optimizer], [{"scheduler": schedule, "interval": "step"}]

    torch.set_num_threads(1)
    data = torch.utils.data.DataLoader(torch.randn(3200, 8), batch_size=16)
    options = ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary")
    trainer = lightning.Trainer(max_epochs=10000, accelerator="cpu", **dict.fromkeys(options, False))
    join(trainer).fit(Model(), data)
    print("after", trainer.global_step)
"""


def asked(rdev, *words):
    """What `rdev ctl` says of the only rank."""
    done = rdev.run("ctl", "--json", *words)
    assert done.returncode == 0, done.stderr
    (outcome,) = json.loads(done.stdout)
    return outcome


def steps(rdev):
    """The rate of each step by its number, as the script has printed it."""
    lines = [line.split() for line in rdev.run("logs").stdout.splitlines()]
    return {int(line[0]): float(line[1]) for line in lines if line[0].isdigit()}


def test_a_joined_lightning_script_is_controlled_from_a_second_terminal(rdev):
    rdev.write("train.py", textwrap.dedent(SCRIPT))
    assert rdev.run("run", "-d", "train.py").returncode == 0

    paused = asked(rdev, "pause")["step"]
    state = asked(rdev, "state")
    assert (state["step"], max(steps(rdev))) == (paused, paused)
    assert {"model", "optimizer", "scheduler"} <= set(state["answer"]["objects"])

    edit = asked(rdev, "set", "lr=0.5")
    assert (edit["step"], edit["answer"]["after"]) == (paused, 0.5)
    assert asked(rdev, "step", "2")["step"] == paused + 2
    made = steps(rdev)
    assert max(made) == paused + 2
    assert [made[paused + 1], made[paused + 2]] == pytest.approx([0.5, 0.5 * 0.999])

    saved = asked(rdev, "checkpoint")
    assert saved["step"] == paused + 2
    assert Path(saved["answer"]["path"]).exists()

    assert asked(rdev, "resume")["step"] == paused + 2
    stopped = asked(rdev, "stop")["step"]
    assert stopped > paused + 2
    assert rdev.run("wait").returncode == 0
    assert rdev.run("logs").stdout.splitlines()[-1] == f"after {stopped}"
