"""What is shown of tensors and arrays: always the outline, statistics within a budget."""

from __future__ import annotations

import threading
import time
import weakref

import numpy as np
import pytest
import torch

from rdev.hook.summary import FEW, SAMPLE, Arrays, is_array_type, outline, short_text


@pytest.fixture
def shown(monkeypatch):
    # What is told within the budget is told on a busy machine too: it is the budget's tests that time.
    monkeypatch.setattr("rdev.hook.summary.BUDGET_SECONDS", 10.0)
    return Arrays().get_str


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (torch.tensor(3.5), "Tensor () float32 cpu, 3.5"),
        (torch.tensor([1, 2]), "Tensor (2,) int64 cpu, [1, 2]"),
        (torch.zeros(0, 3), "Tensor (0, 3) float32 cpu, empty"),
        (torch.arange(100.0), "Tensor (100,) float32 cpu, min 0 max 99"),
        (torch.arange(100.0).to(torch.bfloat16), "Tensor (100,) bfloat16 cpu, min 0 max 99"),
        (torch.arange(12.0).reshape(3, 4).t(), "Tensor (4, 3) float32 cpu, min 0 max 11"),
        (torch.ones(20, requires_grad=True), "Tensor (20,) float32 cpu grad, min 1 max 1"),
        (torch.tensor([True, False] * 10), "Tensor (20,) bool cpu, 50.0% true"),
        (torch.ones(20, dtype=torch.complex64), "Tensor (20,) complex64 cpu"),
        (torch.empty(20, device="meta"), "Tensor (20,) float32 meta"),
        (torch.ones(20).to_sparse(), "Tensor (20,) float32 cpu"),
        (np.arange(100), "ndarray (100,) int64 cpu, min 0 max 99"),
        (np.array(["a"] * 20), "ndarray (20,) <U1 cpu"),
        (np.array([{}] * 20), "ndarray (20,) object cpu"),
    ],
)
def test_the_outline_and_what_can_be_told_of_the_elements(shown, value, text):
    assert shown(value) == text


def test_what_is_not_finite_is_counted_and_the_rest_has_a_range(shown):
    value = torch.arange(100.0)
    value[3], value[4] = float("nan"), float("inf")
    assert shown(value) == "Tensor (100,) float32 cpu, min 0 max 99 1 nan 1 inf"
    assert shown(torch.full((20,), float("nan"))) == "Tensor (20,) float32 cpu, 20 nan"


@pytest.mark.parametrize("shape", [(1 << 26,), (1 << 13, 1 << 13), (1 << 24, 4), (2, 2, 1 << 24)])
def test_of_a_large_tensor_a_sample_is_looked_at_and_marked(shown, shape):
    value = torch.ones(1).expand(shape)  # takes no memory, and has as many elements to look at
    began = time.thread_time()
    assert "min ~" in shown(value)
    assert time.thread_time() - began < 0.1


def test_a_sample_spans_the_whole_of_every_long_dimension():
    value = torch.arange(1 << 22).reshape(1 << 11, 1 << 11)
    low, high = Arrays().get_str(value).split("~")[1:]
    assert int(low.split()[0]) < 1 << 18
    assert int(high) > (1 << 22) - (1 << 18)


class Stuck(np.ndarray):
    """An array that waits for its device."""

    released = threading.Event()

    def reshape(self, *shape, **options):
        self.released.wait()
        return super().reshape(*shape, **options)


def test_a_device_that_does_not_answer_costs_the_budget_once():
    shown = Arrays().get_str
    stuck = np.zeros(20).view(Stuck)
    try:
        began = time.monotonic()
        for _ in range(20):
            assert shown(stuck) == "Stuck (20,) float64 cpu, cpu is busy"
        assert time.monotonic() - began < 1.0
    finally:
        Stuck.released.set()
    deadline = time.monotonic() + 5
    while "busy" in shown(stuck):
        assert time.monotonic() < deadline
    assert shown(stuck) == "Stuck (20,) float64 cpu, min 0 max 0"


def test_nothing_keeps_a_tensor_that_was_waited_for():
    Stuck.released.clear()
    arrays, stuck = Arrays(), np.zeros(20).view(Stuck)
    seen = weakref.ref(stuck)
    arrays.get_str(stuck)
    Stuck.released.set()
    del stuck
    deadline = time.monotonic() + 5
    while seen() is not None:
        assert time.monotonic() < deadline, "the thread that looked at it keeps it"
        time.sleep(0.001)
    del arrays


def test_who_evaluates_something_small_sees_its_elements():
    arrays = Arrays()
    assert "\n" in arrays.get_str_in_context(torch.ones(3, 4), "repl")
    assert "\n" not in arrays.get_str_in_context(torch.ones(3, 4), "watch")
    assert "\n" not in arrays.get_str_in_context(torch.ones(1 << 20), "repl")
    assert arrays.get_str_in_context(torch.ones(FEW), "repl").count("\n") == 0


def test_what_opens_below_a_tensor_is_short_and_can_be_written():
    value = torch.ones(3, 1 << 20, requires_grad=True)
    contents = Arrays().get_contents_debug_adapter_protocol(value)
    names = [name for name, _, _ in contents]
    assert names == ["shape", "dtype", "device", "requires_grad", "[0]", "[1]", "[2]"]
    for _, part, below in contents:
        assert str(eval(f"value{below}")) == str(part) or below.startswith("[")  # ours
    assert not contents[-1][1].requires_grad


def test_an_intermediate_result_is_not_asked_for_its_gradient(recwarn):
    value = torch.ones(3, requires_grad=True) * 2
    names = [n for n, _, _ in Arrays().get_contents_debug_adapter_protocol(value)]
    assert "grad" not in names
    assert "grad_fn" in names
    assert not recwarn.list


def test_parameters_and_subclasses_are_tensors_and_lists_are_not():
    assert is_array_type(torch.nn.Parameter)
    assert is_array_type(Stuck)
    assert not is_array_type(list)
    assert not is_array_type("no type")
    assert outline(torch.nn.Parameter(torch.ones(2))) == "Parameter (2,) float32 cpu grad"


def test_any_value_is_a_short_line():
    class Rude:
        def __repr__(self):
            raise ValueError("no")

    assert short_text({"a": 1}) == "{'a': 1}"
    assert short_text(torch.tensor(2.0)) == "Tensor () float32 cpu, 2"
    assert len(short_text("x" * 1000)) < 210
    assert short_text(Rude()) == "<Rude whose repr raised ValueError>"


def test_a_sample_is_no_larger_than_is_cheap():
    looked_at = []

    class Counting(np.ndarray):
        def reshape(self, *shape, **options):
            looked_at.append(self.size)
            return super().reshape(*shape, **options)

    Arrays().get_str(np.zeros((3001, 2003)).view(Counting))
    assert SAMPLE / 2 <= looked_at[0] <= SAMPLE * 2
