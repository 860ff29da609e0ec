"""Requests to a run from other threads: what is served, where, and what the one who asked is told."""

import os
import signal
import threading
import time

import pytest

from rdev.loop import Callback, Loop, log
from rdev.loop.commands import command, where
from rdev.loop.probe import current
from rdev.loop.request import ControlRefused
from rdev.wire.clock import active_monotonic
from rdev.wire.control import Verb

DEADLINE = 20.0


@pytest.fixture(autouse=True)
def own_runs(monkeypatch):
    """What other tests have tracked goes on to the end of the process; it is none of ours."""
    monkeypatch.setattr("rdev.loop.probe._runs", [])


class Training:
    """A loop in a thread of its own, whose steps are let through one by one if need be."""

    def __init__(self, *, steps=10_000, callbacks=(), step=None, **objects):
        self.made = []
        self._step = step or self._plain
        self._loop = Loop(
            self._step, range(steps), epochs=None, steps=steps, callbacks=callbacks, **objects
        )
        self._thread = threading.Thread(target=self._run)
        self.error = None
        self.state = None

    def _plain(self, state):
        time.sleep(0.0002)
        self.made.append(state.step)
        return float(state.step)

    def _run(self):
        try:
            self.state = self._loop.run()
        except BaseException as error:  # noqa: BLE001  # the tests look at it
            self.error = error

    def __enter__(self):
        self._thread.start()
        until = time.monotonic() + DEADLINE
        while current() is None or current().state.step < 3:
            assert time.monotonic() < until
            assert self._thread.is_alive(), self.error
            time.sleep(0.001)
        self.control = current().control
        return self

    def __exit__(self, *_):
        self.control.stop()
        self._thread.join(DEADLINE)
        assert not self._thread.is_alive()

    def paused(self):
        """The step after which it stands, once it does."""
        until = time.monotonic() + DEADLINE
        while not self.control.is_paused:
            assert time.monotonic() < until
            time.sleep(0.001)
        return self.made[-1]


def test_a_pause_names_its_step_and_no_step_is_made_until_it_ends():
    with Training() as training:
        outcome = training.control.pause().wait(DEADLINE)
        made = list(training.made)
        assert outcome.step == made[-1]
        # Requests are served meanwhile, by the training's own thread: it stands where it says.
        for _ in range(20):
            assert training.control.read().wait(DEADLINE).answer["step"] == outcome.step
        assert training.made == made
        assert training.control.resume().wait(DEADLINE).answer == {"was_paused": True}
        again = training.control.pause().wait(DEADLINE)
    assert again.step > outcome.step


def test_so_many_steps_are_made_and_no_more():
    with Training() as training:
        first = training.control.pause().wait(DEADLINE).step
        for steps in (1, 2, 5):
            outcome = training.control.step(steps).wait(DEADLINE)
            assert outcome.step == first + steps == training.made[-1]
            assert training.control.is_paused
            first = outcome.step


@pytest.mark.parametrize("steps", [0, -1, True, 1.5, "2"])
def test_a_number_of_steps_that_is_none_is_refused_and_it_stays_paused(steps):
    with Training() as training:
        training.control.pause().wait(DEADLINE)
        with pytest.raises(ControlRefused, match="whole"):
            training.control.step(steps).wait(DEADLINE)
        assert training.control.is_paused


def test_a_run_that_ends_before_its_steps_are_made_says_so():
    with Training(steps=2000) as training:
        outcome = training.control.step(100_000).wait(DEADLINE)
    assert outcome.answer == {"steps": 100_000, "over": True}
    with pytest.raises(ControlRefused, match="ended"):
        training.control.pause().wait(DEADLINE)


def test_a_stop_ends_a_paused_run_with_its_ends_told():
    told = []

    class Ends(Callback):
        def epoch_end(self, _state):
            told.append("epoch")

        def run_end(self, _state):
            told.append("run")

    with Training(callbacks=[Ends()]) as training:
        step = training.control.pause().wait(DEADLINE).step
        training.control.stop().wait(DEADLINE)
    assert told == ["epoch", "run"]
    assert training.made[-1] == step


@pytest.mark.parametrize(
    "when", ["step % 50 == 0", "loss % 50 == 0", lambda state: state.step % 50 == 0]
)
def test_a_condition_pauses_after_the_first_step_for_which_it_holds(when):
    with Training() as training:
        armed = training.control.pause(when=when).wait(DEADLINE)
        step = training.paused()
        assert step % 50 == 0
        assert 0 < step - armed.step <= 50 or step == armed.step
        training.control.resume().wait(DEADLINE)
        again = training.control.pause().wait(DEADLINE)  # it held once
        assert again.step > step


def test_a_condition_that_raises_is_told_and_the_training_goes_on():
    told = []

    class Sink:
        def interval(self):
            return 1.0

        def event(self, kind, fields):
            told.append((kind, fields))

        def metric(self, **_):
            pass

    with Training() as training:
        current()._sink = Sink()
        training.control.pause(when="loss / 0 > 3").wait(DEADLINE)
        before = training.made[-1]
        until = time.monotonic() + DEADLINE
        while not any("cause" in fields for _, fields in told):
            assert time.monotonic() < until
            time.sleep(0.001)
        cause = next(fields["cause"] for _, fields in told if "cause" in fields)
        assert "ZeroDivisionError" in cause
        assert training.control.pause().wait(DEADLINE).step > before


def test_a_condition_waits_for_a_metric_that_nobody_has_logged_yet_and_says_so():
    def step(state):
        if state.step >= 5:
            log(late=float(state.step))

    class Arm(Callback):
        def step_end(self, state):
            if state.step == 1:
                asked.append(state.control.pause(when="late > 6"))

        def pause(self, state):
            reasons.append((state.control.reason, state.step))
            state.control.resume()

    asked, reasons = [], []
    Loop(step, range(9), callbacks=[Arm()]).run()
    assert asked[0].wait(0).answer == {"when": "late > 6", "unknown": "late"}
    assert reasons == [("late > 6", 7)]


def test_a_condition_set_while_it_is_held_outlives_the_resume_and_the_next_takes_it_back():
    with Training() as training:
        step = training.control.pause().wait(DEADLINE).step
        training.control.pause(when=f"step == {step + 20}").wait(DEADLINE)
        training.control.resume().wait(DEADLINE)
        assert training.paused() == step + 20
        training.control.resume().wait(DEADLINE)
        at = training.control.pause(when=f"step >= {step + 100}").wait(DEADLINE).step
        assert at < step + 100
        assert training.control.resume().wait(DEADLINE).answer == {"was_paused": False}
        while training.made[-1] < step + 150:
            assert not training.control.is_paused
            time.sleep(0.001)


def test_a_condition_armed_before_the_first_step_is_judged_after_it():
    reasons = []

    class Arm(Callback):
        def run_begin(self, state):
            state.control.pause(when="loss > 2")

        def pause(self, state):
            reasons.append((state.control.reason, state.step))
            state.control.resume()

    Loop(lambda state: float(state.step), range(9), callbacks=[Arm()]).run()
    assert reasons == [("loss > 2", 3)]


@pytest.mark.parametrize(
    "when",
    [
        "loss > 4",
        "loss.item() > 4",
        "abs(loss) > 4 and norms[1] == 2.0",
        "acc.ndim == 1 and step > 4",
    ],
)
def test_a_condition_reads_tensors_as_numbers_or_asks_them_for_what_is_theirs(when):
    torch = pytest.importorskip("torch")
    steps = []

    class Arm(Callback):
        def run_begin(self, state):
            state.control.pause(when=when)

        def pause(self, state):
            steps.append(state.step)
            state.control.resume()

    def step(state):
        return {
            "loss": torch.tensor(float(state.step), requires_grad=True),
            "norms": torch.tensor([1.0, 2.0]),
            "acc": torch.tensor([0.5]),
        }

    Loop(step, range(9), callbacks=[Arm()]).run()
    assert steps == [5]


def test_no_expression_is_refused_at_once():
    with (
        Training() as training,
        pytest.raises(ControlRefused, match=r"no expression: invalid syntax$"),
    ):
        training.control.pause(when="loss >").wait(DEADLINE)


def test_between_two_phases_it_is_held_within_the_step():
    def step(state):
        yield "critic", 1.0
        time.sleep(0.0005)
        yield "generator", 2.0
        made.append(state.step)

    made = []
    with Training(step=step) as training:
        training.made = made
        seen = set()
        until = time.monotonic() + DEADLINE
        while not {"critic", "generator"} & seen:
            assert time.monotonic() < until
            outcome = training.control.pause().wait(DEADLINE)
            seen.add(outcome.phase)
            if outcome.phase:
                with pytest.raises(ControlRefused, match="whole steps"):
                    training.control.checkpoint().wait(DEADLINE)
                ended = training.control.step(1).wait(DEADLINE)
                assert (ended.step, ended.phase) == (outcome.step + 1, "")
            training.control.resume().wait(DEADLINE)


def test_callbacks_hear_of_it_and_the_active_clock_stands_still():
    told = []

    class Held(Callback):
        def pause(self, state):
            told.append(("pause", state.step))

        def resume(self, state, seconds):
            told.append(("resume", state.step, seconds))

    with Training(callbacks=[Held()]) as training:
        step = training.control.pause().wait(DEADLINE).step
        began, wall = active_monotonic(), time.monotonic()
        while time.monotonic() - wall < 0.2:
            training.control.read().wait(DEADLINE)
        assert active_monotonic() == began
        training.control.resume().wait(DEADLINE)
        training.control.pause().wait(DEADLINE)
    assert told[0] == ("pause", step)
    kind, at, seconds = told[1]
    assert (kind, at) == ("resume", step)
    assert 0.2 <= seconds < 5


def test_a_callback_holds_the_step_that_it_is_in():
    class Guard(Callback):
        def step_begin(self, state):
            if state.step == 5:
                state.control.hold("row 3 is NaN")

    class Slow(Callback):
        def step_begin(self, _state):
            time.sleep(0.002)

    with Training(callbacks=[Slow(), Guard()]) as training:
        assert training.paused() == 4
        assert training.control.reason == "row 3 is NaN"
        assert where()["stage"] == "paused"
        training.control.resume().wait(DEADLINE)
        assert training.control.pause().wait(DEADLINE).step >= 5


def test_ctrl_c_reaches_a_training_that_is_held():
    def interrupt():
        until = time.monotonic() + DEADLINE
        while current() is None or not current().control.is_paused:
            assert time.monotonic() < until
            time.sleep(0.001)
        os.kill(os.getpid(), signal.SIGINT)

    class Pause(Callback):
        def step_end(self, state):
            state.control.pause()

    told = []

    class Ends(Callback):
        def exception(self, state):
            told.append(type(state.error))

        def run_end(self, _state):
            told.append("end")

    helper = threading.Thread(target=interrupt)
    helper.start()
    with pytest.raises(KeyboardInterrupt):
        Loop(lambda _: None, range(9), callbacks=[Pause(), Ends()]).run()
    helper.join()
    assert told == [KeyboardInterrupt, "end"]
    assert current() is None
    assert active_monotonic() <= time.monotonic()


def test_the_same_id_is_served_once_and_told_again():
    with Training() as training:
        control = training.control
        control.pause().wait(DEADLINE)
        asked = {"id": "one", "by": "ada@laptop"}
        assert control.ask(Verb.STEP, {"steps": 2}, **asked) is None
        control.ask(Verb.STEP, {"steps": 2}, **asked)
        step = training.made[-1]
        until = time.monotonic() + DEADLINE
        while (done := control.ask(Verb.STEP, {"steps": 2}, **asked)) is None:
            assert time.monotonic() < until
            time.sleep(0.001)
        assert done["by"] == "ada@laptop"
        assert done["step"] == training.made[-1]
        assert done["step"] - step <= 2


def test_who_asks_again_while_it_is_served_is_not_served_twice():
    with Training() as training:
        control = training.control
        served = []

        def setter(value):
            served.append(value)
            control.ask(Verb.SET, {"path": "pace", "value": 1}, id="while it is served")
            return 0, value

        control.setters["pace"] = setter
        control.ask(Verb.SET, {"path": "pace", "value": 1}, id="while it is served")
        control.pause().wait(DEADLINE)
        control.read().wait(DEADLINE)
        assert served == [1]


def test_who_asked_for_what_ended_the_run_is_told():
    def interrupted(state):
        raise KeyboardInterrupt

    with Training() as training, pytest.raises(ControlRefused, match="the run has ended"):
        training.control.call(interrupted).wait(DEADLINE)
    assert isinstance(training.error, KeyboardInterrupt)


def test_a_pause_is_not_inherited_by_a_forked_child():
    statuses, parent = [], os.getpid()

    def step(state):
        if state.step == 2:
            control = state.control
            control.pause()
            control.pause(when="step > 0")
            pid = os.fork()
            if not pid:
                signal.alarm(5)  # a child that is held ends by this
                control.attend()
                os._exit(7)
            statuses.append(os.waitpid(pid, 0)[1])

    class GoOn(Callback):
        def pause(self, state):
            if os.getpid() == parent:
                state.control.resume()

    assert Loop(step, range(4), callbacks=[GoOn()]).run().step == 4
    assert [os.waitstatus_to_exitcode(status) for status in statuses] == [7]


def test_what_was_withdrawn_is_not_served():
    with Training() as training:
        control = training.control
        control.ask(Verb.STOP, {}, id="far", at=1_000_000)
        assert control.withdraw("far")
        assert not control.withdraw("far")
        step = control.pause().wait(DEADLINE).step
        control.resume().wait(DEADLINE)
        assert control.pause().wait(DEADLINE).step > step


def test_those_who_meet_serve_after_the_same_step():
    with Training() as training:
        met = command("meet", {"id": "m", "seconds": 10.0})
        assert met["step"] >= 3
        at = met["step"] + 7
        command("control", {"id": "m", "verb": "pause", "at": at, "meeting": "m"})
        assert training.paused() == at


def test_a_meeting_that_nobody_ends_is_given_up():
    with Training() as training:
        command("meet", {"id": "m", "seconds": 0.2})
        until = time.monotonic() + DEADLINE
        before = len(training.made)
        while len(training.made) < before + 50:
            assert time.monotonic() < until
            time.sleep(0.001)


def test_two_meetings_at_a_time_are_refused_and_parted_ones_are_not():
    with Training() as training:
        command("meet", {"id": "a", "seconds": 10.0})
        with pytest.raises(RuntimeError, match="somebody else"):
            command("meet", {"id": "b", "seconds": 10.0})
        command("part", {"id": "a"})
        command("meet", {"id": "b", "seconds": 10.0})
        command("part", {"id": "b"})
        training.control.pause().wait(DEADLINE)


def test_without_a_run_there_is_nothing_to_control():
    assert where()["stage"] in ("none", "over")
    with pytest.raises(RuntimeError, match="no run"):
        command("control", {"id": "x", "verb": "pause"})
    with pytest.raises(ValueError, match="no command"):
        command("dance", {})


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ({}, "not a valid Verb"),
        ({"verb": "pause"}, "id is missing"),
        ({"id": "x", "verb": "dance"}, "not a valid Verb"),
        ({"id": "x", "verb": "pause", "args": 3}, "no object"),
        ({"id": "x", "verb": "pause", "at": -1}, "no number"),
    ],
)
def test_arguments_that_are_wrong_are_refused(args, words):
    with Training(), pytest.raises(ValueError, match=words):
        command("control", args)


def test_a_function_is_called_on_the_trainings_own_thread():
    with Training() as training:
        outcome = training.control.call(lambda _: threading.get_ident()).wait(DEADLINE)
        assert outcome.answer["value"] == training._thread.ident
        with pytest.raises(ControlRefused, match="ZeroDivisionError"):
            training.control.call(lambda _: 1 / 0).wait(DEADLINE)


def test_a_step_that_another_pause_cuts_short_says_how_many_were_made():
    with Training() as training:
        control = training.control
        first = control.pause().wait(DEADLINE).step
        many = control.step(100_000)
        control.read().wait(DEADLINE)
        held = control.pause().wait(DEADLINE).step
        assert many.wait(DEADLINE).answer == {"steps": 100_000, "made": held - first}


def test_a_step_that_a_resume_overtakes_is_told_so_at_once():
    with Training() as training:
        control = training.control
        control.pause().wait(DEADLINE)
        many = control.step(100_000)
        control.resume().wait(DEADLINE)
        with pytest.raises(ControlRefused, match="let go on"):
            many.wait(DEADLINE)


def test_a_rank_that_is_held_before_the_step_that_all_can_reach_steps_and_stops_with_them():
    with Training() as training:
        control = training.control
        step = control.pause().wait(DEADLINE).step
        control.ask(Verb.STEP, {"steps": 2}, id="mixed step", at=step + 3)
        until = time.monotonic() + DEADLINE
        while training.made[-1] < step + 5:  # so few that it may be held again before we look
            assert time.monotonic() < until
            time.sleep(0.001)
        assert training.paused() == step + 5
        control.ask(Verb.STOP, {}, id="mixed stop", at=step + 9)
        training._thread.join(DEADLINE)
    assert training.made[-1] == step + 9


def test_a_callback_cannot_wait_for_itself_nor_another_thread_be_held():
    told = []

    class Wait(Callback):
        def step_end(self, state):
            with pytest.raises(RuntimeError, match="wait for itself"):
                state.control.pause().wait()
            state.control.resume()
            told.append(state.step)

    Loop(lambda _: None, range(2), callbacks=[Wait()]).run()
    assert told == [1, 2]
    with Training() as training, pytest.raises(RuntimeError, match="own thread"):
        training.control.hold("somebody else's")


def test_a_callback_that_holds_when_it_is_told_of_a_pause_is_held_once():
    told = []

    class Hold(Callback):
        def pause(self, state):
            told.append(state.step)
            state.control.hold("for a closer look")

    with Training(callbacks=[Hold()]) as training:
        step = training.control.pause().wait(DEADLINE).step
        assert training.control.reason == "for a closer look"
        training.control.resume().wait(DEADLINE)
    assert told == [step]


def test_a_request_while_the_runs_end_is_told_is_answered_and_the_next_run_may_have_it():
    class Late(Callback):
        def run_end(self, state):
            assert state.control.ask(Verb.STATE, {}, id="late") is None

    told = []

    class Sink:
        def interval(self):
            return 1.0

        def event(self, kind, fields):
            told.append((kind, fields.get("id"), fields.get("cause")))

        def metric(self, **_):
            pass

    class Listen(Callback):
        def run_begin(self, _state):
            current()._sink = Sink()

    Late.run_end.__globals__["Verb"].READ = Verb.STATE
    Loop(lambda _: None, range(2), callbacks=[Listen(), Late()]).run()
    assert ("controlled", "late", "the run has ended") in told
    with Training() as training:
        training.control.pause().wait(DEADLINE)
        assert training.control.ask(Verb.STATE, {}, id="late") is None
        training.control.read().wait(DEADLINE)
        assert training.control.ask(Verb.STATE, {}, id="late")["answer"]["step"]


def test_what_one_run_has_served_the_next_one_does_not_serve_again():
    with Training() as training:
        training.control.ask(Verb.STOP, {}, id="stop of the first")
    with Training() as training:
        done = training.control.ask(Verb.STOP, {}, id="stop of the first")
        assert done["verb"] == "stop"
        assert training.control.pause().wait(DEADLINE).step


@pytest.mark.parametrize("verb", [Verb.RESUME, Verb.STOP])
def test_who_is_told_that_a_held_run_goes_on_finds_it_going_on(verb):
    told = []

    class Sink:
        def interval(self):
            return 1.0

        def event(self, kind, fields):
            told.append((kind, fields.get("verb")))

        def metric(self, **_):
            pass

    class Listen(Callback):
        def run_begin(self, _state):
            current()._sink = Sink()

    with Training(callbacks=[Listen()]) as training:
        training.control.pause().wait(DEADLINE)
        began = len(told)
        getattr(training.control, verb.value)().wait(DEADLINE)
        assert told[began : began + 2] == [("loop_resumed", None), ("controlled", verb.value)]
