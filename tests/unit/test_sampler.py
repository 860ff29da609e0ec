"""The order of samples and their augmentation: pure functions of seed, epoch and index."""

import os
import random

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import DataLoader, DistributedSampler

from rdev.loop import Callback, Loop, State
from rdev.loop.checkpoint import load, save
from rdev.loop.rng import mixed
from rdev.loop.sampler import ShuffleSampler, seeded


def test_the_order_is_that_of_the_seed_and_the_epoch_on_every_machine():
    sampler = ShuffleSampler(10, seed=3)
    assert list(sampler) == [4, 7, 1, 2, 5, 9, 3, 8, 6, 0]
    sampler.set_epoch(1)
    assert list(sampler) == [7, 9, 6, 1, 2, 0, 3, 5, 4, 8]
    assert list(ShuffleSampler(10, seed=4)) not in (list(sampler), list(ShuffleSampler(10, seed=3)))
    assert list(ShuffleSampler(range(4), shuffle=False)) == [0, 1, 2, 3]


def test_making_an_order_draws_from_no_generator_of_the_process():
    random.seed(1), torch.manual_seed(1), np.random.seed(1)
    list(ShuffleSampler(100))
    drawn = random.random(), torch.rand(1).item(), np.random.random()
    random.seed(1), torch.manual_seed(1), np.random.seed(1)
    assert drawn == (random.random(), torch.rand(1).item(), np.random.random())


@given(st.integers(0, 40), st.integers(1, 7), st.booleans(), st.integers(0, 3))
def test_ranks_share_the_samples_as_torchs_own_sampler_does(length, world, drop_last, epoch):
    def share(rank, **how):
        sampler = ShuffleSampler(length, rank=rank, world=world, drop_last=drop_last, **how)
        sampler.set_epoch(epoch)
        assert len(sampler) == len(list(sampler))
        return list(sampler)

    shares = [share(rank) for rank in range(world)]
    assert len({len(part) for part in shares}) == 1
    union = {index for part in shares for index in part}
    whole = sum(len(part) for part in shares)
    assert whole == (length // world if drop_last else -(-length // world)) * world
    assert len(union) == min(whole, length)
    if length >= world:
        for rank in range(world):
            other = DistributedSampler(
                range(length), world, rank, shuffle=False, drop_last=drop_last
            )
            assert share(rank, shuffle=False) == list(other)


@given(st.integers(1, 30), st.integers(0, 30), st.integers(0, 2))
def test_an_order_that_is_gone_on_with_is_the_rest_of_the_whole(length, position, epoch):
    sampler = ShuffleSampler(length)
    sampler.set_epoch(epoch)
    whole = list(sampler)
    sampler.position = min(position, length)
    assert list(sampler) == whole[position:]
    assert len(sampler) == length
    other = ShuffleSampler(length)
    other.load_state_dict(sampler.state_dict())
    other.set_epoch(epoch)
    assert list(other) == whole[position:]
    other.set_epoch(epoch + 1)
    assert sorted(other) == list(range(length))


def test_a_share_that_nobody_can_have_is_refused():
    for wrong in ({"rank": 0}, {"world": 2}, {"rank": 2, "world": 2}, {"rank": -1, "world": 2}):
        with pytest.raises(ValueError, match="rank"):
            ShuffleSampler(3, **wrong)


class Drawn:
    """Samples that are nothing but what they draw."""

    colour = "red"

    def __len__(self):
        return 6

    def __getitem__(self, index):
        return random.random(), float(np.random.random()), torch.rand(1).item()

    def __getitems__(self, indices):
        raise AssertionError("past the seeding")


def drawn(data, epoch):
    data.set_epoch(epoch)
    return [data[index] for index in range(6)]


@pytest.mark.parametrize("context", ["fork", pytest.param("spawn", marks=pytest.mark.slow)])
def test_a_sample_draws_the_same_whoever_loads_it(context):
    data = seeded(Drawn(), 3)
    here = [drawn(data, epoch) for epoch in (0, 1)]
    assert len({value for epoch in here for sample in epoch for value in sample}) == 36
    assert drawn(data, 0) == here[0]
    loader = DataLoader(
        data, None, num_workers=2, persistent_workers=True, multiprocessing_context=context
    )
    for epoch, samples in [(0, here[0]), (1, here[1]), (0, here[0])]:
        data.set_epoch(epoch)
        assert [tuple(sample) for sample in loader] == samples
    assert [data[index] for index in (5, 2)] == [here[0][5], here[0][2]]
    assert seeded(Drawn(), 4)[0] != data[0]


def test_a_sample_leaves_the_generators_of_its_process_where_they_were():
    random.seed(1), torch.manual_seed(1), np.random.seed(1)
    seeded(Drawn())[0]
    after = random.random(), torch.rand(1).item(), np.random.random()
    random.seed(1), torch.manual_seed(1), np.random.seed(1)
    assert after == (random.random(), torch.rand(1).item(), np.random.random())


def test_a_seeded_dataset_is_otherwise_the_dataset():
    data = seeded(Drawn())
    assert (len(data), data.colour) == (6, "red")
    assert next(iter(DataLoader(data, batch_size=6)))[0].shape == (6,)
    with pytest.raises(AttributeError):
        data.size  # noqa: B018

    with pytest.raises(TypeError, match="generator cannot be indexed"):
        seeded(index for index in range(3))


def idle(state):
    """A step that does nothing."""


def test_a_loop_tells_the_epoch_to_whatever_wants_to_know_it():
    told = []

    class Told:
        def __init__(self, name, **parts):
            self.name = name
            vars(self).update(parts)

        def set_epoch(self, epoch):
            told.append((self.name, epoch))

        def __iter__(self):
            return iter(range(2))

    sampler = Told("sampler")
    batches = Told("batches", sampler=sampler)
    loader = Told("loader", sampler=sampler, batch_sampler=batches, dataset=Told("data"))
    Loop(idle, loader, epochs=2).run()
    names = ["loader", "batches", "sampler", "data"]
    assert told == [(name, epoch) for epoch in (0, 1) for name in names]


def test_a_loop_gives_each_epoch_an_order_of_its_own_and_repeats_none_by_accident():
    sampler = ShuffleSampler(6, seed=1)
    seen = []

    class Look(Callback):
        def step_end(self, state):
            seen.extend(state.batch.tolist())

    loader = DataLoader(range(6), batch_size=2, sampler=sampler)
    for _ in range(2):
        Loop(idle, loader, epochs=2, callbacks=[Look()]).run()
    first, second = seen[:6], seen[6:12]
    assert sorted(first) == sorted(second) == list(range(6))
    assert first != second
    assert seen[12:] == first + second


def test_mixed_numbers_are_those_of_every_machine():
    assert mixed(1, 2, 3) == 8149998584550362645
    assert mixed(1, 23) != mixed(12, 3)
    assert 0 <= mixed(7) < 2**63


def test_a_plain_loop_goes_on_by_counting_what_it_has_taken(tmp_path):
    path = str(tmp_path / "last.ckpt")

    def train(steps):
        sampler = ShuffleSampler(10, seed=2)
        loader = DataLoader(range(10), batch_size=3, sampler=sampler)
        state = State(sampler=sampler)
        if os.path.exists(path):
            load(path, state)
        for epoch in range(sampler.epoch, 3):
            sampler.set_epoch(epoch)
            for batch in loader:
                yield batch.tolist()
                sampler.position += len(batch)
                save(state, path)
                steps -= 1
                if not steps:
                    return

    whole = list(train(100))
    assert len(whole) == 12
    os.unlink(path)
    parts = [*train(2), *train(2), *train(3), *train(100)]
    assert parts == whole
