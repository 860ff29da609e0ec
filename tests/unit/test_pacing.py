"""When a run ends early, how fast it goes, and the line that shows it."""

import io
import math
import time

import pytest

from rdev.loop import Callback, Loop, log
from rdev.loop.callbacks import EarlyStop, ProgressLine, Throughput
from rdev.loop.callbacks.pace import Pace, Plan, clock
from rdev.loop.callbacks.throughput import rows_of
from rdev.loop.sink import ProgressSink
from rdev.wire import clock as active


def evaluated(values, stop, **options):
    """How many epochs are made if evaluations give those values."""

    class Evaluation(Callback):
        def epoch_end(self, state):
            value = values[state.epoch - 1]
            if value is not None:
                log(accuracy=value)

    return Loop(
        lambda _: 1.0, [0], epochs=len(values), callbacks=[stop, Evaluation()], **options
    ).run()


@pytest.mark.parametrize(
    ("values", "epochs"),
    [
        ([0.1, 0.2, 0.3, 0.4], 4),
        ([0.1, 0.3, 0.2, 0.2, 0.9], 4),
        ([0.5, math.nan, math.nan, 0.9], 3),
        ([math.nan, math.nan, 0.9], 2),
        ([0.5, None, None, None, 0.4, 0.9], 6),
        ([0.5, 0.505, 0.508, 0.9], 3),
    ],
    ids=["better", "worse", "nan", "nan from the first", "not evaluated", "too little better"],
)
def test_a_run_ends_once_it_has_got_no_better_for_two_epochs(values, epochs, capfd):
    stop = EarlyStop("accuracy", patience=2, mode="max", min_delta=0.01)
    assert evaluated(values, stop).epoch == epochs
    assert ("(EarlyStop: stop)" in capfd.readouterr().err) == (epochs < len(values))


def test_the_loss_of_the_step_itself_is_judged_too():
    losses = iter([3.0, 2.0, 2.5, 2.6, 1.0])
    stop = EarlyStop(patience=2)
    assert Loop(lambda _: next(losses), [0], epochs=5, callbacks=[stop]).run().epoch == 4


def test_a_metric_that_nobody_logs_is_told_once_and_ends_nothing(capfd):
    assert Loop(lambda _: 1.0, [0], epochs=3, callbacks=[EarlyStop("f1")]).run().epoch == 3
    assert capfd.readouterr().err == "rdev.loop: EarlyStop waits for 'f1', not logged in epoch 1\n"


def test_the_best_weights_come_back(capfd):
    torch = pytest.importorskip("torch")
    model = torch.nn.Linear(1, 1)
    seen = []

    def step(state):
        with torch.no_grad():
            state.model.weight.fill_(float(state.epoch))

    class Evaluation(Callback):
        def epoch_end(self, state):
            seen.append(state.epoch)
            log(accuracy={2: 0.9}.get(state.epoch, 0.1))

    stop = EarlyStop("accuracy", patience=2, mode="max", restore_best=True)
    Loop(step, [0], epochs=9, callbacks=[stop, Evaluation()], model=model).run()
    assert seen == [1, 2, 3, 4]
    assert model.weight.item() == 2.0
    assert "the state of epoch 2, the best, is back" in capfd.readouterr().err


def test_patience_goes_on_after_a_resume():
    first, again = (EarlyStop("accuracy", patience=3, mode="max") for _ in range(2))
    evaluated([0.9, 0.1, 0.1], first)
    again.load_state_dict(first.state_dict())
    assert evaluated([0.1, 0.1], again).epoch == 1


class Logged(Callback):
    """Keeps the metrics at each epoch's end."""

    def __init__(self):
        super().__init__(order=200)
        self.epochs = []

    def epoch_end(self, state):
        self.epochs.append(dict(state.metrics))


def slowly(batches, seconds):
    for batch in batches:
        time.sleep(seconds)
        yield batch


def test_the_rate_the_samples_and_the_wait_for_data_are_logged():
    logged = Logged()

    def step(_):
        time.sleep(0.004)
        return 1.0

    data = [([0.0] * 8,)] * 20
    Loop(step, lambda _: slowly(data, 0.004), callbacks=[Throughput(), logged]).run()
    (seen,) = logged.epochs
    assert 20 < seen["steps_per_s"] <= 125
    assert seen["samples_per_s"] == pytest.approx(8 * seen["steps_per_s"])
    assert 0.3 < seen["data_wait"] < 0.7
    assert "eta_s" not in seen  # a function of the state has no length


def test_time_that_the_training_was_held_does_not_count():
    logged = Logged()

    def step(state):
        if state.step == 5:
            active.hold()
            time.sleep(0.5)
            active.release()
        return 1.0

    throughput = Throughput(seconds=0.0)
    Loop(step, [0] * 10, epochs=2, callbacks=[throughput, logged]).run()
    assert throughput.eta == 0.0
    assert logged.epochs[0]["eta_s"] < 0.2
    assert logged.epochs[0]["steps_per_s"] > 100


@pytest.mark.parametrize(
    ("batch", "rows"),
    [([0.5, 1.5], 2), ({"x": [1.0]}, 1), ("text", 0), ((7, [1.0, 2.0, 3.0]), 3), (None, 0)],
)
def test_the_first_array_of_a_batch_counts_its_rows(batch, rows):
    assert rows_of(batch) == rows


def test_an_eta_is_what_is_left_at_the_latest_rate():
    pace = Pace()
    assert (pace.rate(), pace.left(100)) == (0.0, None)
    for second in range(5):
        pace.look(10.0 + second, second * 2)
    assert pace.rate() == 2.0
    assert (pace.left(108), pace.left(3), pace.left(None)) == (50.0, 0.0, None)
    for second in range(5, 60):  # it has become slower
        pace.look(10.0 + second, second + 5)
    assert pace.rate() == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("plan", "total"),
    [
        (Plan(), None),
        (Plan(3, None, 10), 30),
        (Plan(3, 12, 10), 12),
        (Plan(3), None),
        (Plan(steps=7), 7),
    ],
)
def test_the_end_is_known_from_epochs_or_steps(plan, total):
    assert plan.total() == total


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0s"), (59.6, "1m00s"), (425, "7m05s"), (11220, "3h07m")]
)
def test_a_span_of_time_is_short(seconds, text):
    assert clock(seconds) == text


def test_in_a_log_the_line_comes_at_each_epochs_end():
    stream = io.StringIO()
    Loop(two_phases, range(10), epochs=2, callbacks=[ProgressLine(stream=stream)]).run()
    first, second = stream.getvalue().splitlines()
    assert first.startswith("epoch 1/2  step 10/20  norm 3  critic.loss 0.1  generator.loss 2  ")
    assert "steps/s  ETA " in first
    assert second.startswith("epoch 2/2  step 20/20  ")
    assert "ETA" not in second


def two_phases(state):
    yield "critic", 1 / state.step
    yield "generator", {"loss": 2.0, "norm": 3.0}


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_on_a_terminal_one_line_is_kept_and_the_loops_own_is_not_shown(monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    callbacks = [ProgressLine(seconds=0.0)]
    Loop(lambda s: s.step / 2, range(5), callbacks=callbacks).run()
    lines = terminal.getvalue().split("\r\x1b[K")
    assert lines[0] == ""
    assert [line.split("  ")[1] for line in lines[1:6]] == [f"step {n}/5" for n in range(1, 6)]
    assert all("epoch 1/1" in line for line in lines[1:])
    assert terminal.getvalue().count("\n") == 1
    assert not ProgressSink.hushed
    Loop(lambda _: 0.5, range(5)).run()
    assert "epoch 1/1  step 1  loss 0.5" in terminal.getvalue()  # the loop's own is back


def test_a_stream_that_somebody_closed_ends_nothing():
    stream = io.StringIO()
    stream.close()
    closed = ProgressLine(stream=stream, seconds=0.0)
    with pytest.raises(ValueError, match="closed"):
        stream.isatty()
    assert Loop(lambda _: 1.0, range(3), callbacks=[closed]).run().step == 3


def test_other_ranks_show_nothing(monkeypatch):
    monkeypatch.setenv("RANK", "1")
    stream = io.StringIO()
    Loop(lambda _: 1.0, range(3), callbacks=[ProgressLine(stream=stream, seconds=0.0)]).run()
    assert stream.getvalue() == ""
