"""What goes wrong in a training is caught before its update, and what was asked for is done."""

import contextlib
import math
import pickle
import sys

import pytest

torch = pytest.importorskip("torch")

from rdev.loop import Callback, Loop  # noqa: E402
from rdev.loop.callbacks import GuardError, NanGuard, Norms, SpikeGuard  # noqa: E402
from rdev.loop.callbacks.finite import all_finite, rows_not_finite  # noqa: E402
from rdev.loop.callbacks.spike import Window  # noqa: E402
from rdev.loop.sampler import ShuffleSampler  # noqa: E402

INF = float("inf")


@pytest.fixture(autouse=True)
def _in_own_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def _torch_is_left_as_it_was():
    plain = torch.Tensor.backward
    yield
    assert torch.Tensor.backward is plain
    hooks = sys.modules["torch.optim.optimizer"]
    assert not hooks._global_optimizer_pre_hooks
    assert not hooks._global_optimizer_post_hooks


def batches(bad, *, count=6, row=3):
    """Batches of which those of the given numbers, from 1, have a NaN in a row."""
    made = [(torch.randn(8, 4), torch.randn(8, 1)) for _ in range(count)]
    for number in bad:
        made[number - 1][0][row, 2] = float("nan")
    return made


def train(state):
    inputs, targets = state.batch
    state.optimizer.zero_grad()
    loss = ((state.model(inputs) - targets) ** 2).mean()
    loss.backward()
    state.optimizer.step()
    return loss


def parts(**more):
    model = torch.nn.Sequential(
        torch.nn.Linear(4, 8), torch.nn.BatchNorm1d(8), torch.nn.Linear(8, 1)
    )
    return {"model": model, "optimizer": torch.optim.Adam(model.parameters()), **more}


class Weights(Callback):
    """Keeps the state of all objects after each step."""

    def __init__(self):
        super().__init__(order=200)
        self.after = {}

    def step_end(self, state):
        self.after[state.step] = [
            value.detach().clone()
            for name in ("model", "optimizer")
            for value in flat(state.objects[name].state_dict())
        ]

    def same(self, one, other):
        pairs = zip(self.after[one], self.after[other], strict=True)
        return all(torch.equal(a, b) for a, b in pairs)


def flat(value):
    if isinstance(value, torch.Tensor):
        return [value]
    values = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [one for inner in values for one in flat(inner)]


def test_an_update_from_a_batch_with_a_nan_is_left_out_and_the_row_named(tmp_path, capfd):
    weights = Weights()
    data = batches([4])
    Loop(train, data, callbacks=[NanGuard("skip"), weights], **parts()).run()
    assert weights.same(3, 4)
    assert not weights.same(4, 5)
    assert all(torch.isfinite(one).all() for one in weights.after[6])
    told = capfd.readouterr().err
    path = tmp_path / "nan" / "step-4-rank-0.pt"
    assert told == (
        "rdev.loop: step 4: the loss is nan; not finite: row 3 of batch[0]; "
        f"the batch is in {path} (NanGuard: skip)\n"
    )
    kept = torch.load(path)
    assert (kept["step"], kept["rows"]) == (4, ["row 3 of batch[0]"])
    torch.testing.assert_close(kept["batch"], data[3], equal_nan=True)


def test_a_batch_that_is_a_slice_is_written_without_what_it_is_of(tmp_path):
    whole = torch.randn(100_000, 4)
    whole[1] = float("nan")

    def step(state):
        state.optimizer.zero_grad()
        loss = state.model(state.batch).mean()
        loss.backward()
        state.optimizer.step()
        return loss

    Loop(step, [whole[:8]], callbacks=[NanGuard("skip")], **parts()).run()
    assert (tmp_path / "nan" / "step-1-rank-0.pt").stat().st_size < 10_000


def test_the_index_in_the_dataset_is_named_where_the_loader_shuffles_by_a_known_order(capfd):
    inputs, targets = torch.randn(64, 4), torch.randn(64, 1)
    inputs[41] = float("nan")
    dataset = torch.utils.data.TensorDataset(inputs, targets)
    loader = torch.utils.data.DataLoader(dataset, batch_size=8, sampler=ShuffleSampler(dataset))
    Loop(train, loader, epochs=3, callbacks=[NanGuard("skip", keep=0)], **parts()).run()
    told = capfd.readouterr().err.splitlines()
    assert len(told) == 3
    assert all("(index 41)" in line for line in told)


def test_a_gradient_that_is_not_finite_is_caught_though_the_loss_is(capfd):
    def step(state):
        state.optimizer.zero_grad()
        loss = torch.sqrt(state.model(state.batch).abs() * 0.0).sum()  # d sqrt(0) is infinite
        loss.backward()
        state.optimizer.step()
        return loss

    weights = Weights()
    Loop(step, torch.randn(2, 8, 4), callbacks=[NanGuard("skip"), weights], **parts()).run()
    assert weights.same(1, 2)
    told = capfd.readouterr().err
    assert "the loss is finite, and not the gradient of model.0.weight, model.0.bias" in told
    assert "all of the batch is finite" in told


def test_an_update_by_a_closure_is_caught_too():
    def step(state):
        def closure():
            state.optimizer.zero_grad()
            loss = state.model(state.batch[0]).mean()
            loss.backward()
            return loss

        return state.optimizer.step(closure)

    weights = Weights()
    Loop(step, batches([2, 3], count=4), callbacks=[NanGuard("skip"), weights], **parts()).run()
    assert weights.same(1, 3)
    assert not weights.same(3, 4)


def test_of_several_optimizers_only_the_update_with_the_nan_is_left_out():
    def step(state):
        for name, data in (("first", state.batch[0]), ("second", state.batch[1])):
            optimizer, model = state.objects[f"{name}_opt"], state.objects[name]
            optimizer.zero_grad()
            loss = model(data).mean()
            loss.backward()
            optimizer.step()
            yield name, loss

    models = {name: torch.nn.Linear(4, 1) for name in ("first", "second")}
    optimizers = {f"{n}_opt": torch.optim.SGD(m.parameters(), 0.1) for n, m in models.items()}
    before = {name: model.weight.detach().clone() for name, model in models.items()}
    data = [(torch.randn(8, 4), torch.full((8, 4), INF))]
    Loop(step, data, callbacks=[NanGuard("skip")], **models, **optimizers).run()
    assert not torch.equal(models["first"].weight, before["first"])
    assert torch.equal(models["second"].weight, before["second"])


def test_the_training_can_be_stopped_or_ended_by_an_error():
    weights = Weights()
    state = Loop(train, batches([3]), callbacks=[NanGuard("stop"), weights], **parts()).run()
    assert state.step == 3
    assert weights.same(2, 3)
    with pytest.raises(GuardError, match="step 3: the loss is nan"):
        Loop(train, batches([3]), callbacks=[NanGuard("raise")], **parts()).run()
    # Nobody could resume it outside a job.
    with pytest.raises(GuardError, match="step 3: the loss is nan"):
        Loop(train, batches([3]), callbacks=[NanGuard()], **parts()).run()
    with pytest.raises(ValueError, match="NanGuard can pause, skip, stop, raise, and not 'jump'"):
        NanGuard("jump")


def test_updates_that_are_all_left_out_end_the_training(tmp_path, capfd):
    objects = parts()
    with torch.no_grad():
        objects["model"][0].weight[0, 0] = float("nan")
    with pytest.raises(GuardError, match="for 40 updates in a row"):
        Loop(
            train, batches([], count=50), callbacks=[NanGuard("skip", patience=40)], **objects
        ).run()
    assert len(list((tmp_path / "nan").iterdir())) == 3
    assert len(capfd.readouterr().err.splitlines()) == 12  # the first ten, the 16th, the 32nd


def test_overflows_that_a_scaler_handles_are_left_to_it(capfd):
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**127)

    def step(state):
        state.optimizer.zero_grad()
        loss = state.model(state.batch[0]).mean() * 1e10
        scaler.scale(loss).backward()
        scaler.step(state.optimizer)
        scaler.update()
        return loss

    Loop(step, batches([], count=3), callbacks=[NanGuard("raise")], **parts()).run()
    assert scaler.get_scale() < 2.0**127
    assert capfd.readouterr().err == ""


def test_a_batch_that_cannot_be_written_hides_no_nan(tmp_path, capfd):
    (tmp_path / "nan").touch()
    weights = Weights()
    Loop(train, batches([2]), callbacks=[NanGuard("skip"), weights], **parts()).run()
    assert weights.same(1, 2)
    first, second = capfd.readouterr().err.splitlines()
    assert first.startswith("rdev.loop: unable to keep the batch of step 2: ")
    assert "row 3 of batch[0] (NanGuard: skip)" in second


def test_without_optimizers_the_loss_is_judged_after_its_step(tmp_path, capfd):
    numpy = pytest.importorskip("numpy")
    data = [{"pixels": numpy.ones((4, 2)), "index": numpy.arange(4) + 10} for _ in range(3)]
    data[1]["pixels"][2, 1] = INF
    losses = [numpy.float32(value) for value in (1.0, math.nan, 1.0)]
    Loop(lambda s: losses[s.step - 1], data, callbacks=[NanGuard("skip")]).run()
    (told,) = capfd.readouterr().err.splitlines()
    assert "not finite: row 2 of batch['pixels'] (index 12)" in told
    assert "the update had been made (NanGuard: skip)" in told


def test_without_torch_the_batch_is_pickled(tmp_path, monkeypatch):
    monkeypatch.delitem(sys.modules, "torch")
    state = Loop(lambda _: math.nan, [[1.0, math.nan]], callbacks=[NanGuard("stop")]).run()
    kept = pickle.loads((tmp_path / "nan" / "step-1-rank-0.pickle").read_bytes())
    assert (state.step, kept["rows"]) == (1, ["row 1 of batch"])


def test_finite_numbers_whose_norm_overflows_are_finite():
    assert all_finite([torch.full((10,), 60_000.0, dtype=torch.float16)])
    assert all_finite([torch.full((10,), 3e38), torch.ones(2, dtype=torch.int64)])
    assert not all_finite([torch.ones(3), torch.tensor([1.0, -INF], dtype=torch.float64)])
    assert all_finite([])


def test_rows_are_found_in_any_nesting():
    batch = [{"x": torch.tensor([[1.0, 2.0], [INF, 0.0]]), "n": 3}, ([1.0, math.nan],), "name"]
    assert [str(row) for row in rows_not_finite(batch)] == [
        "row 1 of batch[0]['x']",
        "row 1 of batch[1][0]",
    ]
    assert len(rows_not_finite(torch.full((500, 1), INF))) == 100
    assert rows_not_finite([torch.zeros(0, 3), torch.tensor(math.nan), torch.ones(2).int()]) == []


def steady(spikes, *, count=60):
    """Batches that give a loss of about 1, and of 1000 where the numbers, from 1, say so."""
    noise = torch.rand(count) / 10
    return [torch.tensor([1000.0 if n + 1 in spikes else 1 + noise[n]]) for n in range(count)]


def scale(state):
    state.optimizer.zero_grad()
    loss = (state.model(state.batch) * 0.0 + state.batch).sum() + state.model.weight.sum() * 1e-5
    loss.backward()
    state.optimizer.step()
    return loss


def small():
    model = torch.nn.Linear(1, 1)
    return {"model": model, "optimizer": torch.optim.SGD(model.parameters(), 0.1)}


def test_a_spike_is_left_out_and_what_follows_is_watched_only(capfd):
    weights = Weights()
    callbacks = [SpikeGuard("skip", cooldown=5), weights]
    Loop(scale, steady({30, 33, 50}), callbacks=callbacks, **small()).run()
    assert weights.same(29, 30)
    assert not weights.same(32, 33)
    assert weights.same(49, 50)
    told = capfd.readouterr().err.splitlines()
    assert [line.split(":")[1] for line in told] == [" step 30", " step 50"]
    assert "the loss is 1000, " in told[0]
    assert "deviations above its median 1.0" in told[0]


def test_a_spike_before_the_median_is_known_is_none(capfd):
    Loop(scale, steady({10}), callbacks=[SpikeGuard("skip")], **small()).run()
    assert capfd.readouterr().err == ""


def test_a_rollback_puts_back_a_state_some_steps_old_and_goes_on(capfd):
    weights = Weights()
    callbacks = [SpikeGuard("rollback", back=5), weights]
    state = Loop(scale, steady({44}), callbacks=callbacks, **small()).run()
    assert weights.same(44, 35)
    assert not weights.same(45, 44)
    assert state.step == 60
    assert "the state is that after step 35 (SpikeGuard: rollback)" in capfd.readouterr().err


def test_a_loss_that_falls_or_hardly_moves_is_no_spike():
    window = Window(100)
    for value in [5.0] * 50:
        window.add(value)
    assert window.deviations(5.0) == 0.0
    assert window.deviations(5.01) < 10
    assert window.deviations(6.0) > 10
    assert window.deviations(0.1) <= 0.0
    assert window.deviations(math.nan) == INF


def test_the_noise_of_a_training_that_has_come_to_nothing_is_no_spike(capfd):
    noise = torch.rand(400)
    losses = [torch.tensor([2.3 * 0.9**n + 1e-8 * float(noise[n]) ** 8]) for n in range(400)]
    Loop(scale, losses, callbacks=[SpikeGuard("skip")], **small()).run()
    assert capfd.readouterr().err == ""


def test_the_window_forgets_what_is_old_and_outlives_a_resume():
    window = Window(3)
    for value in (9.0, 1.0, 2.0, 3.0):
        window.add(value)
    assert (list(window.values), window._sorted) == ([1.0, 2.0, 3.0], [1.0, 2.0, 3.0])
    guard, again = SpikeGuard(window=30), SpikeGuard(window=30)
    Loop(scale, steady(set()), callbacks=[guard], **small()).run()
    again.load_state_dict(guard.state_dict())
    assert again._windows["optimizer"].values == guard._windows["optimizer"].values


def test_a_spike_without_optimizers_is_told_after_its_update(capfd):
    Loop(lambda s: float(s.batch), steady({40}), callbacks=[SpikeGuard("skip")]).run()
    (told,) = capfd.readouterr().err.splitlines()
    assert told.endswith("; the update had been made (SpikeGuard: tell)")


def test_norms_are_those_of_gradient_weights_and_update():
    norms = {}

    class Read(Callback):
        def step_end(self, state):
            norms[state.step] = {k: float(v) for k, v in state.metrics.items() if "norm" in k}

    model = torch.nn.Linear(3, 1, bias=False)
    before = model.weight.detach().clone()

    def step(state):
        state.opt.zero_grad()
        loss = state.model(state.batch).sum()
        loss.backward()
        state.opt.step()
        state.opt.zero_grad()
        return loss

    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    data = [torch.tensor([[3.0, 4.0, 0.0]]), torch.tensor([[1.0, 0.0, 0.0]])]
    Loop(
        step, data * 2, steps=2, callbacks=[Norms(every=2), Read()], model=model, opt=optimizer
    ).run()
    assert norms[1] == {}
    weights = before - 0.5 * data[0] - 0.5 * data[1]
    assert norms[2] == pytest.approx(
        {"grad_norm": 1.0, "update_norm": 0.5, "weight_norm": float(weights.norm())}
    )


def test_two_guards_in_one_run_and_a_foreign_wrapper_of_backward_get_on():
    plain = torch.Tensor.backward
    seen = []

    class Foreign(Callback):
        """Wraps `backward` in the middle of the run, and puts back what it found."""

        def run_begin(self, _):
            self.found = torch.Tensor.backward

            def wrapper(tensor, *args, **kwargs):
                seen.append(float(tensor.detach()))
                return self.found(tensor, *args, **kwargs)

            torch.Tensor.backward = wrapper

        def run_end(self, _):
            torch.Tensor.backward = self.found

    callbacks = [NanGuard("skip"), SpikeGuard("skip"), Norms(), Foreign(order=500)]
    with contextlib.ExitStack() as stack:
        stack.callback(setattr, torch.Tensor, "backward", plain)
        Loop(train, batches([3]), callbacks=callbacks, **parts()).run()
        assert len(seen) == 6
        left = torch.Tensor.backward  # ours, which nobody could take off; it passes on
        torch.ones(1, requires_grad=True).sum().backward()
    assert left is plain or left.rdev_plain is plain
