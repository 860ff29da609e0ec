"""Which steps are sampled: at about the interval wanted, and by several ranks alike."""

import random
from itertools import pairwise

import pytest

from rdev.loop.grid import Grid


def sampled(seconds, *, steps, interval=1.0, seed=0, start=0.0):
    """(step, time) of the samples of a rank whose steps take so long, give or take a tenth."""
    chance, grid, now, due = random.Random(seed), Grid(), 1000.0 + start, 0.0
    found = []
    for step in range(1, steps + 1):
        now += seconds(step) * chance.uniform(0.9, 1.1)
        if now >= due and grid.takes(step, now):
            found.append((step, now))
            due = grid.plan(step, now, interval)
    return found


@pytest.mark.parametrize("seconds", [0.002, 0.01, 0.3, 0.7, 2.0])
def test_samples_are_about_an_interval_apart(seconds):
    steps = int(max(100, 20 / seconds))
    times = [now for _, now in sampled(lambda _: seconds, steps=steps)][3:]
    gaps = [later - earlier for earlier, later in pairwise(times)]
    assert len(gaps) > 12
    assert max(gaps) < 2.5 * max(1.0, seconds)
    assert min(gaps) > 0.8 * max(1.0, seconds)


@pytest.mark.parametrize("seconds", [0.002, 0.01, 0.11, 0.3, 2.0])
def test_ranks_of_one_pace_sample_many_steps_in_common(seconds):
    steps = int(max(100, 20 / seconds))
    ranks = [
        {step for step, _ in sampled(lambda _: seconds, steps=steps, seed=seed, start=seed / 7)}
        for seed in range(4)
    ]
    common = set.intersection(*ranks)
    assert len(common) > 0.4 * min(map(len, ranks))


def test_steps_that_become_slow_are_sampled_soon():
    found = sampled(lambda step: 0.001 if step < 5000 else 1.0, steps=5100)
    slow = [step for step, _ in found if step > 5000]
    assert slow[0] < 5010
    assert len(slow) > 60


def test_steps_that_become_fast_are_sampled_again_and_not_each():
    found = sampled(lambda step: 1.0 if step < 50 else 0.001, steps=20_000)
    fast = [step for step, _ in found if step > 50]
    assert 8 <= len(fast) <= 30
