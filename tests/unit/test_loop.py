"""The loop: what is called, when, in which order, and what is reported."""

import math
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rdev.loop import Callback, Loop, State
from rdev.loop.callback import EVENTS, compiled
from rdev.loop.probe import Probe
from rdev.loop.sample import take
from rdev.wire import clock


class Recorder(Callback):
    """Notes every call as (event, step)."""

    def __init__(self, order=0):
        super().__init__(order)
        self.calls = []

    def __getattribute__(self, name):
        if name not in EVENTS:
            return super().__getattribute__(name)
        return lambda state, *_: self.calls.append((name, state.step))

    def names(self):
        return [name for name, _ in self.calls]


class Collecting:
    """A sink that keeps what it is given and wants every step."""

    def __init__(self, interval=0.0):
        self.events, self.metrics, self._interval = [], [], interval

    def interval(self):
        return self._interval

    def event(self, kind, fields):
        self.events.append((kind, dict(fields)))

    def metric(self, *, step, phase, samples, **_):
        self.metrics.append((step, phase, dict(samples)))


def balanced(names):
    """Checks that every begin has its end, innermost first; returns how deep it went."""
    opened = []
    for name in names:
        level, _, what = name.partition("_")
        if what == "begin":
            opened.append(level)
        elif what == "end" and level != "phase":
            assert opened.pop() == level
    return not opened


def test_all_events_of_a_plain_run_come_in_order():
    recorder = Recorder()
    Loop(lambda _: 1.0, [0, 1], callbacks=[recorder]).run()
    step = ["step_begin", "step_end"]
    assert recorder.names() == ["run_begin", "epoch_begin", *step, *step, "epoch_end", "run_end"]


def test_only_overridden_members_are_compiled_in():
    class Some(Callback):
        def step_end(self, state):
            pass

    calls = compiled([Callback(), Some(), Some()])
    assert {name: len(methods) for name, methods in calls.items() if methods} == {"step_end": 2}


def test_callbacks_are_called_by_order_and_then_as_given():
    called = []

    class Named(Callback):
        def __init__(self, name, order=0):
            super().__init__(order)
            self.name = name

        def run_begin(self, _):
            called.append(self.name)

    given_ones = [Named("late", 5), Named("a"), Named("b"), Named("early", -1)]
    Loop(lambda _: None, [0], callbacks=given_ones).run()
    assert called == ["early", "a", "b", "late"]


def test_what_is_no_callback_is_refused():
    with pytest.raises(TypeError, match="is not a Callback"):
        Loop(lambda _: None, [0], callbacks=[object()]).run()


NOT_IN_EVERY_RUN = ("pause", "resume", "checkpoint_saved")


@pytest.mark.parametrize("event", [name for name in EVENTS if name not in NOT_IN_EVERY_RUN])
def test_an_exception_at_any_event_leaves_begins_and_ends_balanced(event):
    recorder = Recorder(order=-1)

    def fail(state):
        raise LookupError(event)

    failing = Callback()
    setattr(failing, event, fail)

    def step(state):
        yield "only", 1.0
        if event == "exception":
            raise LookupError(event)

    with pytest.raises(LookupError, match=event):
        Loop(step, [0, 1], epochs=2, callbacks=[recorder, failing]).run()
    assert balanced(recorder.names())
    assert recorder.names().count("run_end") == 1
    assert recorder.names().count("exception") == (event != "run_end")


@given(
    epochs=st.integers(0, 4),
    batches=st.integers(1, 4),
    limit=st.one_of(st.none(), st.integers(0, 20)),
    stop=st.integers(0, 20),
    failure=st.integers(0, 20),
    phases=st.integers(0, 3),
)
def test_begins_and_ends_balance_however_a_run_ends(epochs, batches, limit, stop, failure, phases):
    recorder = Recorder()

    def step(state):
        for phase in range(phases):
            yield f"p{phase}", 0.0
        state.stop = state.step == stop
        if state.step == failure:
            raise ArithmeticError("boom")

    loop = Loop(step, range(batches), epochs=epochs, steps=limit, callbacks=[recorder])
    try:
        state = loop.run()
    except ArithmeticError:
        state = None
    assert balanced(recorder.names())
    assert recorder.names().count("run_end") == 1
    planned = epochs * batches if limit is None else min(limit, epochs * batches)
    made = min([planned, *[end for end in (stop, failure) if end]])
    assert recorder.names().count("step_begin") == made
    assert (state is None) == (0 < failure <= planned and made == failure)


def test_the_error_is_in_the_state_when_the_ends_are_told():
    seen = []

    class Watcher(Callback):
        def epoch_end(self, state):
            seen.append(state.error)

    def step(state):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Loop(step, [0], callbacks=[Watcher()]).run()
    assert isinstance(seen[0], KeyboardInterrupt)


def test_every_callback_hears_the_end_even_if_another_fails_there(capsys):
    class Failing(Callback):
        def run_end(self, _):
            raise OSError("first")

    recorder = Recorder(order=1)
    with pytest.raises(OSError, match="first"):
        Loop(lambda _: None, [0], callbacks=[Failing(), recorder]).run()
    assert recorder.names()[-1] == "run_end"


def test_a_second_failure_is_printed_and_the_first_one_raised(capsys):
    class Failing(Callback):
        def run_end(self, _):
            raise OSError("second")

    def step(state):
        raise LookupError("first")

    with pytest.raises(LookupError, match="first"):
        Loop(step, [0], callbacks=[Failing()]).run()
    assert "OSError: second" in capsys.readouterr().err


def test_stop_ends_the_run_after_the_step_that_set_it():
    def step(state):
        state.stop = state.step == 3

    assert Loop(step, range(10), epochs=10).run().step == 3


def test_steps_limit_a_run_of_any_number_of_epochs():
    state = Loop(lambda _: None, range(4), epochs=None, steps=10).run()
    assert (state.step, state.epoch) == (10, 3)


def test_a_limit_of_no_steps_makes_none():
    assert Loop(lambda _: None, range(4), steps=0).run().step == 0


def test_a_loop_without_limits_is_refused():
    with pytest.raises(ValueError, match="never ends"):
        Loop(lambda _: None, [0], epochs=None)


def test_a_used_up_iterator_is_named_as_the_cause():
    with pytest.raises(ValueError, match="epoch 2 had no batches"):
        Loop(lambda _: None, iter([1, 2]), epochs=2).run()


def test_data_may_be_a_function_of_the_state():
    batches = []
    Loop(lambda state: batches.append(state.batch), lambda state: [state.epoch] * 2, epochs=2).run()
    assert batches == [1, 1, 2, 2]


def test_a_step_may_return_a_loss_metrics_or_nothing():
    results = iter([0.5, {"loss": 0.25, "accuracy": 1}, None])
    losses = []

    def step(state):
        return next(results)

    class Watcher(Callback):
        def step_end(self, state):
            losses.append(state.loss)

    state = Loop(step, range(3), callbacks=[Watcher()]).run()
    assert losses == [0.5, 0.25, 0.25]
    assert state.metrics == {"loss": 0.25, "accuracy": 1}


def test_phases_of_a_generator_step_are_told_and_reported_apart():
    sink, state, phases = Collecting(), State(), []

    class Watcher(Callback):
        def phase_end(self, state):
            phases.append((state.phase, state.loss))

    def step():
        yield "critic", 1.0
        yield "critic", 2.0
        yield "generator", {"loss": 3.0, "norm": 4.0}

    probe = Probe(state, callbacks=[Watcher()], sink=sink)
    probe.step_begin(None)
    probe.step_end(step())
    assert phases == [("critic", 1.0), ("critic", 2.0), ("generator", 3.0)]
    assert sink.metrics == [
        (1, "critic", {"loss": 2.0}),
        (1, "generator", {"loss": 3.0, "norm": 4.0}),
    ]


def test_an_object_can_be_swapped_in_the_middle_of_a_run():
    seen = []

    def step(state):
        seen.append(state.optimizer)
        if state.step == 2:
            state.optimizer = "adam"

    state = Loop(step, range(4), optimizer="sgd").run()
    assert seen == ["sgd", "sgd", "adam", "adam"]
    assert state.objects == {"optimizer": "adam"}


def test_an_object_may_not_hide_a_part_of_the_state():
    with pytest.raises(ValueError, match="'loss'"):
        Loop(lambda _: None, [0], loss=1)


def test_an_object_that_is_not_there_is_an_attribute_error():
    with pytest.raises(AttributeError, match="model"):
        Loop(lambda state: state.model, [0]).run()


def test_first_and_last_step_of_an_epoch_are_reported_whatever_the_interval():
    sink = Collecting(interval=1e9)
    probe = Probe(State(), sink=sink)
    probe.run_begin(epochs=1)
    probe.epoch_begin()
    for number in range(10):
        probe.step_begin(number)
        probe.step_end(float(number))
    probe.epoch_end()
    probe.run_end()
    assert sink.metrics == [(1, "", {"loss": 0.0}), (10, "", {"loss": 9.0})]
    kinds = [kind for kind, _ in sink.events]
    assert kinds == ["run_started", "epoch_started", "epoch_ended", "run_ended"]


def test_a_value_logged_once_is_reported_once():
    sink = Collecting()
    probe = Probe(State(), sink=sink)
    probe.run_begin()
    probe.epoch_begin()
    for number in range(3):
        probe.step_begin(number)
        if number == 1:
            probe.log({"accuracy": 0.5})
        probe.step_end(1.0)
    probe.epoch_end()
    assert [values.get("accuracy") for _, _, values in sink.metrics] == [None, 0.5, None]


def test_a_value_is_reported_under_the_step_it_was_logged_at_however_late():
    sink = Collecting(interval=1e9)
    probe = Probe(State(), sink=sink)

    class Evaluate(Callback):
        def epoch_end(self, state):
            probe.log({"accuracy": state.epoch})

    probe.add([Evaluate()])
    for _ in range(2):
        probe.epoch_begin()
        for number in range(4):
            probe.step_begin(number)
            if number == 1:
                probe.log({"rate": 0.1})
            probe.step_end(1.0)
        probe.epoch_end()
        probe.log({"after": 1})
    probe.run_begin()
    probe.run_end()
    steps = {}
    for step, _, values in sink.metrics:
        for name in values:
            steps.setdefault(name, []).append(step)
    assert steps == {"loss": [1, 4, 8], "rate": [2, 6], "accuracy": [4, 8], "after": [4, 8]}


def test_values_that_are_no_numbers_are_kept_in_the_state_and_not_reported():
    sink = Collecting()
    probe = Probe(State(), sink=sink)
    probe.step_begin(0)
    probe.step_end({"loss": 1, "name": "x", "rows": [1, 2]})
    assert sink.metrics == [(1, "", {"loss": 1.0})]
    assert probe.state.metrics["rows"] == [1, 2]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_values_that_are_not_finite_are_reported_as_they_are(value):
    assert repr(take(value)) == repr(value)


@pytest.mark.parametrize(("interval", "steps"), [(0, [1, 2, 3]), (1e9, [1, 3])])
def test_a_step_is_reported_once_and_a_failed_one_never(interval, steps):
    sink = Collecting(interval=interval)
    probe = Probe(State(), sink=sink)

    def step(state):
        if state.step == 4:
            raise ArithmeticError
        return float(state.step)

    probe.epoch_begin()
    with pytest.raises(ArithmeticError):
        probe.drive(step, range(9))
    probe.fail(ArithmeticError())
    assert sink.metrics == [(number, "", {"loss": float(number)}) for number in steps]


def test_an_ended_run_says_why():
    sink = Collecting()
    probe = Probe(State(), sink=sink)
    probe.run_begin()
    probe.fail(ValueError("line one\nline two"))
    probe.run_end()
    probe.run_end()
    assert sink.events[-1] == ("run_ended", {"step": 0, "error": "ValueError: line one"})
    assert len([kind for kind, _ in sink.events if kind == "run_ended"]) == 1


def test_a_hold_of_the_process_is_told_at_the_next_boundary():
    held = []

    class Watcher(Callback):
        def pause(self, _):
            held.append("pause")

        def resume(self, _, seconds):
            held.append(seconds)

    probe = Probe(State(), callbacks=[Watcher()], sink=Collecting())
    probe.run_begin()
    clock.hold()
    began = time.monotonic()
    while time.monotonic() - began < 0.02:
        assert clock.active_monotonic() <= began
    clock.release()
    probe.step_begin(0)
    probe.step_end()
    assert held[0] == "pause"
    assert 0.01 < held[1] < 5
    probe.step_begin(1)
    probe.step_end()
    assert len(held) == 2
