"""The live probe on trainings of this process: what a step is, what its loss is, what is restored."""

import gc
import os
import threading
import weakref

import pytest

from rdev.loop import Loop, live
from rdev.loop.callbacks import Norms
from rdev.loop.live import LiveProbe
from rdev.loop.objects import found_around
from rdev.loop.patches import Patches
from rdev.wire import gate

torch = pytest.importorskip("torch")
optimizers = __import__("sys").modules["torch.optim.optimizer"]


class Collecting:
    """A sink that keeps what it is given and wants every step."""

    def __init__(self):
        self.events, self.metrics = [], []

    def interval(self):
        return 0.0

    def event(self, kind, fields):
        self.events.append((kind, dict(fields)))

    def metric(self, *, step, phase, samples, **_):
        self.metrics += [(step, phase, value) for value in samples.values()]


def functions():
    """Everything of torch's that arming touches."""
    hooks = vars(__import__("sys").modules["torch.optim.optimizer"])["_global_optimizer_post_hooks"]
    return (
        torch.Tensor.backward,
        torch.autograd.backward,
        torch.amp.GradScaler.scale,
        torch.cuda.amp.GradScaler.scale,
        tuple(hooks.values()),
    )


class Training:
    """A line fitted to points; every step's loss is kept as the script sees it."""

    def __init__(self, kind=torch.optim.SGD, **options):
        torch.manual_seed(0)
        self.model = torch.nn.Linear(4, 1)
        self.optimizer = kind(self.model.parameters(), **{"lr": 0.01, **options})
        self.losses = []

    def loss(self):
        return self.model(torch.randn(8, 4)).square().mean()

    def step(self, times=1):
        for _ in range(times):
            loss = self.loss()
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            self.losses.append(loss.item())


@pytest.fixture
def sink():
    return Collecting()


@pytest.fixture
def probe(sink):
    before = functions()
    probe = LiveProbe(sink)
    probe.arm()
    yield probe
    probe.disarm()
    assert functions() == before


def of_steps(sink):
    return [(step, value) for step, phase, value in sink.metrics if not phase]


def test_each_step_is_counted_with_the_loss_that_the_script_saw(probe, sink):
    training = Training()
    training.step(5)
    assert of_steps(sink) == [(n, pytest.approx(x)) for n, x in enumerate(training.losses, 1)]
    assert probe.state.step == 6  # it is in the sixth


def test_disarmed_everything_is_what_it_was():
    before = functions()
    for _ in range(50):
        probe = LiveProbe(Collecting())
        probe.arm()
        assert functions() != before
        Training().step(2)
        probe.disarm()
        assert functions() == before
    dropped = weakref.ref(probe)
    del probe
    gc.collect()
    assert dropped() is None, "somebody holds a probe that was disarmed"


def test_who_has_wrapped_what_we_wrapped_keeps_its_own(sink):
    probe = LiveProbe(sink)
    original = torch.autograd.backward
    probe.arm()
    inner = torch.autograd.backward

    def users(*arguments, **options):
        inner(*arguments, **options)

    torch.autograd.backward = users
    try:
        probe.disarm()
        assert torch.autograd.backward is users
        training = Training()
        training.step(2)
        assert len(training.losses) == 2
    finally:
        torch.autograd.backward = original


def test_the_optimizer_that_steps_first_ends_the_steps_and_others_are_phases(probe, sink):
    critic, generator = Training(), Training(torch.optim.Adam)
    for _ in range(2):
        critic.step()
        generator.step(3)
    critic.step()
    assert [step for step, _ in of_steps(sink)] == [1, 2, 3]
    phases = [(step, phase) for step, phase, _ in sink.metrics if phase]
    assert phases == [(2, "Adam 2"), (3, "Adam 2")]  # the last of three is told
    assert sink.metrics[1][2] in (
        pytest.approx(generator.losses[2]),
        pytest.approx(critic.losses[1]),
    )


def test_an_optimizer_that_is_swapped_in_goes_on_counting(probe, sink):
    training = Training()
    training.step(2)
    training.optimizer = torch.optim.Adam(training.model.parameters())
    training.step(2)
    assert [step for step, _ in of_steps(sink)] == [1, 2, 3, 4]


def test_an_optimizer_that_was_left_but_is_held_is_replaced_after_a_while(probe, sink):
    training = Training()
    training.step(2)
    held = training.optimizer
    training.optimizer = torch.optim.Adam(training.model.parameters())
    training.step(300)
    assert held is not training.optimizer
    assert probe.state.step > 40


def test_with_several_backwards_the_last_is_the_loss(probe, sink):
    training = Training()
    for _ in range(3):
        first, second = training.loss(), training.loss()
        first.backward()
        second.backward()
        training.optimizer.step()
        training.losses.append(second.item())
    assert [value for _, value in of_steps(sink)] == pytest.approx(training.losses)


def test_a_closure_makes_one_step(probe, sink):
    training = Training(torch.optim.LBFGS, max_iter=4)
    data = torch.randn(8, 4)

    def closure():
        training.optimizer.zero_grad()
        loss = training.model(data).square().mean()
        loss.backward()
        training.losses.append(loss.item())
        return loss

    training.optimizer.step(closure)
    count = len(training.losses)
    assert count > 1
    training.optimizer.step(closure)
    assert of_steps(sink) == [
        (1, pytest.approx(training.losses[count - 1])),
        (2, pytest.approx(training.losses[-1])),
    ]


def test_a_scaled_loss_is_told_as_it_was_and_a_skipped_step_is_none(probe, sink):
    training = Training()
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    for number in range(4):
        loss = training.loss() * (float("inf") if number == 1 else 1.0)
        training.optimizer.zero_grad()
        scaler.scale(loss).backward()
        scaler.step(training.optimizer)
        scaler.update()
        training.losses.append(loss.item())
    del training.losses[1]
    assert of_steps(sink) == [(n, pytest.approx(x)) for n, x in enumerate(training.losses, 1)]


def test_a_checkpointed_part_is_no_loss_of_its_own(probe, sink):
    from torch.utils.checkpoint import checkpoint

    training = Training()
    data = torch.randn(8, 4, requires_grad=True)
    loss = checkpoint(training.model, data, use_reentrant=True).square().mean()
    loss.backward()
    training.optimizer.step()
    assert of_steps(sink) == [(1, pytest.approx(loss.item()))]


def test_what_is_no_single_loss_is_not_told(probe, sink):
    training = Training()
    outputs = training.model(torch.randn(8, 4))
    outputs.backward(torch.ones_like(outputs))
    training.optimizer.step()
    losses = [training.loss(), training.loss()]
    torch.autograd.backward(losses)
    training.optimizer.step()
    assert of_steps(sink) == []
    assert probe.state.step == 3


def test_another_threads_training_is_not_counted(probe, sink):
    training, other = Training(), Training()
    training.step(2)
    thread = threading.Thread(target=other.step, args=(5,))
    thread.start()
    thread.join()
    training.step(1)
    assert [step for step, _ in of_steps(sink)] == [1, 2, 3]


def test_a_training_in_a_thread_of_its_own_is_counted(probe, sink):
    training = Training()
    thread = threading.Thread(target=training.step, args=(3,))
    thread.start()
    thread.join()
    assert [value for _, value in of_steps(sink)][-2:] == pytest.approx(training.losses[-2:])
    assert probe.state.step == 4


def test_nothing_of_a_step_is_kept_after_it(probe):
    training = Training()
    training.step()
    for due in (0.0, float("inf")):
        probe._due = due
        loss = training.loss()
        loss.backward()
        training.optimizer.step()
        gone = weakref.ref(loss)
        del loss
        assert gone() is None
    dropped = weakref.ref(training.optimizer)
    model = weakref.ref(training.model)
    assert set(probe.state.objects) == {"optimizer", "model"}
    del training
    gc.collect()
    assert (dropped(), model()) == (None, None)


def test_a_retained_graph_is_not_kept_until_the_step(probe):
    training = Training()
    loss = training.loss()
    loss.backward(retain_graph=True)
    gone = weakref.ref(loss)
    del loss
    assert gone() is None


def test_an_armed_training_ends_with_the_same_weights(sink):
    def weights(is_armed):
        training = Training(torch.optim.Adam)
        probe = LiveProbe(sink)
        if is_armed:
            probe.arm()
        try:
            training.step(20)
        finally:
            if is_armed:
                probe.disarm()
        return training.model.state_dict()["weight"]

    assert torch.equal(weights(is_armed=False), weights(is_armed=True))


def test_objects_are_called_what_the_script_calls_them():
    net, other = torch.nn.Sequential(torch.nn.Linear(2, 2)), torch.nn.Linear(2, 2)
    adam = torch.optim.Adam(net.parameters())
    kinds = torch.optim.lr_scheduler
    parts = [kinds.LinearLR(adam), kinds.StepLR(adam, 5)]
    plan = kinds.SequentialLR(adam, parts, milestones=[3])

    def train():
        return found_around([adam], __import__("sys")._getframe())

    found = {name: reference() for name, reference in train().items()}
    assert found == {"adam": adam, "net": net, "plan": plan}
    assert {name: r() for name, r in found_around([adam], None).items()} == {
        "optimizer": adam,
        "model": net,
        "scheduler": plan,
    }
    assert other not in found.values()


def test_objects_of_a_trainer_are_found_behind_self():
    class Trainer(Training):
        def objects(self):
            return found_around([self.optimizer], __import__("sys")._getframe())

    trainer = Trainer()
    found = {name: reference() for name, reference in trainer.objects().items()}
    assert found == {"optimizer": trainer.optimizer, "model": trainer.model}


def test_a_forked_child_is_never_armed(sink):
    before = functions()
    training = Training()
    training.step()  # so that an optimizer was made
    assert live.arm()["armed"]
    try:
        child = os.fork()
        if not child:
            training.step()
            os._exit(0 if functions() == before and live.current() is None else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert functions() != before
        assert live.arm()["armed"]  # again is harmless
    finally:
        live.disarm()
    assert functions() == before


def test_it_gives_way_to_a_run_of_the_loop(sink):
    before = functions()
    training = Training()
    training.step()
    live.arm()
    try:
        training.step()

        def step(state):
            training.step()

        Loop(step, range(3)).run()
        assert functions() == before
    finally:
        live.disarm()


def removed(before):
    """Waits until torch is as it was: what cannot be removed within a step is soon after it."""
    for thread in threading.enumerate():
        if thread.name == "rdev-unhook":
            thread.join(10)
    return functions() == before


def test_it_gives_way_to_a_run_whose_callbacks_have_hooks_after_its_own(sink):
    before = functions()
    training = Training()
    training.step()
    live.arm()
    try:
        Loop(lambda _: training.step(), range(3), callbacks=[Norms(every=1)]).run()
        assert len(training.losses) == 4
        assert removed(before)
    finally:
        live.disarm()


def test_arming_and_disarming_wait_until_no_hook_of_another_is_running(sink):
    before = functions()
    training, entered, leave = Training(), threading.Event(), threading.Event()

    def slow(*_):
        entered.set()
        leave.wait(10)

    first = optimizers.register_optimizer_step_post_hook(slow)
    second = optimizers.register_optimizer_step_post_hook(lambda *_: None)
    errors = []

    def train():
        try:
            training.step()
        except RuntimeError as error:
            errors.append(error)

    thread = threading.Thread(target=train)
    thread.start()
    try:
        assert entered.wait(10)
        assert "held in a hook" in live.arm()["refused"]
    finally:
        leave.set()
        thread.join(10)
        first.remove()
        second.remove()
        live.disarm()
    assert not errors
    assert removed(before)


def test_the_gate_holds_before_a_step_that_it_counts(probe):
    training, held = Training(), []
    gate.close(3, lambda: held.append(probe.state.step))
    training.step(5)
    assert held == [2]  # at the end of that step


def test_patches_listen_only_between_put_and_restore():
    heard = []
    patches = Patches()
    training = Training()
    patches.put(lambda optimizer, *_: heard.append(optimizer))
    training.step()
    patches.restore()
    training.step()
    assert heard == [training.optimizer]
    assert patches.loss is None
