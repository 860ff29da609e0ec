"""Values set in a running training: rates that schedules keep, paths, and what is refused."""

import warnings

import pytest
import torch

from rdev.loop.setting import Refused, lr_setter, set_path
from rdev.loop.state import State

SCHEDULES = {
    "LambdaLR": lambda o: torch.optim.lr_scheduler.LambdaLR(o, lambda n: 0.95**n),
    "StepLR": lambda o: torch.optim.lr_scheduler.StepLR(o, 3, gamma=0.5),
    "ExponentialLR": lambda o: torch.optim.lr_scheduler.ExponentialLR(o, 0.9),
    "CosineAnnealingLR": lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, 100),
    "MultiplicativeLR": lambda o: torch.optim.lr_scheduler.MultiplicativeLR(o, lambda _: 0.95),
    "LinearLR": lambda o: torch.optim.lr_scheduler.LinearLR(o, 0.5, total_iters=20),
    "OneCycleLR": lambda o: torch.optim.lr_scheduler.OneCycleLR(o, 0.1, total_steps=100),
    "CyclicLR": lambda o: torch.optim.lr_scheduler.CyclicLR(o, 0.01, 0.1, step_size_up=10),
    "SequentialLR": lambda o: torch.optim.lr_scheduler.SequentialLR(
        o,
        [
            torch.optim.lr_scheduler.LinearLR(o, 0.5, total_iters=4),
            torch.optim.lr_scheduler.ExponentialLR(o, 0.9),
        ],
        milestones=[30],
    ),
}


def trained(kind):
    parameter = torch.nn.Parameter(torch.ones(1))
    optimizer = torch.optim.SGD([parameter], lr=0.1, momentum=0.9)
    return optimizer, SCHEDULES[kind](optimizer)


def rates(optimizer, schedule, steps):
    seen = []
    for _ in range(steps):
        optimizer.step()
        schedule.step()
        seen.append(optimizer.param_groups[0]["lr"])
    return seen


@pytest.mark.parametrize("kind", SCHEDULES)
def test_a_schedule_goes_on_from_the_rate_that_was_set_with_its_shape(kind):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # SequentialLR warns of its own call
        plain, edited = trained(kind), trained(kind)
        rates(*plain, 5)
        rates(*edited, 5)
        optimizer, schedule = edited
        present = optimizer.param_groups[0]["lr"]
        state = State(optimizer=optimizer, schedule=schedule)
        assert lr_setter(state)(present / 4) == (pytest.approx(present), present / 4)
        assert optimizer.param_groups[0]["lr"] == present / 4
        before, after = rates(*plain, 10), rates(*edited, 10)
    assert after == pytest.approx([rate / 4 for rate in before], rel=1e-6)


def test_a_schedule_by_plateaus_keeps_the_rate_until_its_next_cut():
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=0.1)
    schedule = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=1, factor=0.5)
    lr_setter(State(optimizer=optimizer, schedule=schedule))(0.02)
    schedule.step(1.0)
    assert optimizer.param_groups[0]["lr"] == 0.02
    for _ in range(3):
        schedule.step(1.0)
    assert optimizer.param_groups[0]["lr"] == 0.01


def test_all_groups_of_all_optimizers_are_set_and_what_they_were_is_told():
    first = torch.optim.Adam(
        [
            {"params": [torch.nn.Parameter(torch.ones(1))], "lr": 0.1},
            {"params": [torch.nn.Parameter(torch.ones(1))], "lr": 0.2},
        ]
    )
    second = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=torch.tensor(0.3))
    before, after = lr_setter(State(a=first, b=second, model=torch.nn.Linear(1, 1)))(0.05)
    assert before == [0.1, 0.2, pytest.approx(0.3)]
    assert after == 0.05
    groups = [*first.param_groups, *second.param_groups]
    assert [float(group["lr"]) for group in groups] == pytest.approx([0.05] * 3)
    assert isinstance(second.param_groups[0]["lr"], torch.Tensor)


@pytest.mark.parametrize("rate", ["fast", -1, float("nan"), True, None])
def test_what_is_no_rate_is_refused(rate):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=0.1)
    with pytest.raises(Refused, match="learning rate"):
        lr_setter(State(optimizer=optimizer))(rate)
    assert optimizer.param_groups[0]["lr"] == 0.1


def test_without_an_optimizer_the_objects_that_there_are_are_named():
    with pytest.raises(Refused, match="model"):
        lr_setter(State(model=object()))(0.1)


class Settings:
    def __init__(self):
        self.weights = [1.0, 2.0]
        self.rounds = 3
        self.name = "a"
        self.fast = False
        self.size = (1, 2)


@pytest.fixture
def state():
    model = torch.nn.Sequential(torch.nn.Dropout(0.5), torch.nn.Linear(2, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    return State(model=model, optimizer=optimizer, cfg=Settings(), scale=torch.tensor([2.0]))


@pytest.mark.parametrize(
    ("path", "value", "before", "after"),
    [
        ("model.0.p", 0.1, 0.5, 0.1),
        ("optimizer.param_groups.0.momentum", 0.5, 0.9, 0.5),
        ("cfg.weights.1", 5, 2.0, 5.0),
        ("cfg.rounds", 4.0, 3, 4),
        ("cfg.name", "b", "a", "b"),
        ("cfg.fast", True, False, True),
        ("scale", 3, 2.0, 3.0),
        ("cfg.size", [3, 4], "(1, 2)", (3, 4)),
    ],
)
def test_a_path_under_the_objects_is_set_and_keeps_its_type(state, path, value, before, after):
    assert set_path(state, path, value) == (before, after)
    assert set_path(state, path, value)[1] == after
    assert isinstance(state.scale, torch.Tensor)


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        ("nowhere.0.p", 1, "there is: cfg, model, optimizer, scale"),
        ("cfg.weightss", 1, "weights"),
        ("cfg.weights.9", 1.0, "2 entries"),
        ("cfg.size.0", 9, "tuple"),
        ("cfg.rounds", 1.5, "int"),
        ("cfg.rounds", True, "int"),
        ("cfg.fast", 1, "bool"),
        ("cfg.name", 3, "str"),
        ("model.1.weight", 3, "tensor of shape"),
        ("optimizer.param_groups.0.momentums", 1, "momentum"),
        ("step", 3, "no object"),
        ("", 3, "no object"),
    ],
)
def test_what_is_not_there_or_of_another_kind_is_refused_by_its_name(state, path, value, words):
    with pytest.raises(Refused, match=words):
        set_path(state, path, value)


@pytest.mark.parametrize("rate", [float("nan"), float("inf"), -0.1, True, ".1", None])
def test_a_rate_that_is_none_is_refused_and_nothing_is_set(rate):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=0.1)
    state = State()
    state.add({"optimizer": optimizer})
    with pytest.raises(Refused, match="finite number"):
        lr_setter(state)(rate)
    assert optimizer.param_groups[0]["lr"] == 0.1
