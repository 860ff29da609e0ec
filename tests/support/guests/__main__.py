"""Runs the scenarios through one guest: `python -m tests.support.guests HOST FOLDER`.

Writes what was seen to FOLDER/seen.json; what it has to be is said by `tests.support.guests.checks`.
The events are those that a supervisor would get, over the job's own channel.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import threading
import time
import warnings
from pathlib import Path

import torch
from tests.support.guests.faults import FAULTS
from tests.support.guests.hosts import HOSTS, version_of
from tests.support.guests.training import LR, Broken, Case, bare, fall
from tests.support.supervisor import Listener

from rdev.loop import Callback
from rdev.loop.probe import current

# A rate that no schedule of the training reaches, so that an edit that is lost is seen.
EDITED = 1.5
# Long enough for a machine that is busy with other tests.
PATIENCE = 30


class Witness(Callback):
    """Writes down all that a callback is told, and the rate that each step begins with.

    Args:
        halts_at: At the end of this step the training waits until `let_go` is set, so that a
            request made meanwhile comes at a step that is known.
        stops_at: The step after which it asks the run to stop.
    """

    def __init__(self, *, halts_at=None, stops_at=None):
        super().__init__()
        self.told = []
        self.losses = []
        self.lrs = []
        self.objects = {}
        self.kind = ""
        self.errors = []
        self.halts_at = halts_at
        self.stops_at = stops_at
        self.halted = threading.Event()
        self.let_go = threading.Event()

    def note(self, what, state):
        self.told.append(f"{what} {state.epoch}/{state.step}")

    def run_begin(self, state):
        self.note("run_begin", state)
        self.objects = {name: type(value).__name__ for name, value in state.objects.items()}
        self.kind = current().kind

    def epoch_begin(self, state):
        self.note("epoch_begin", state)

    def step_begin(self, state):
        self.note("step_begin", state)
        assert state.batch is not None
        self.lrs.append(rate_of(state.optimizer))

    def step_end(self, state):
        self.note("step_end", state)
        if state.error is None:
            self.losses.append(float(state.loss))
        if state.step == self.stops_at:
            state.stop = True
        if state.step == self.halts_at:
            self.halted.set()
            assert self.let_go.wait(PATIENCE)

    def epoch_end(self, state):
        self.note("epoch_end", state)

    def exception(self, state):
        self.note("exception", state)
        self.errors.append(type(state.error).__name__)

    def run_end(self, state):
        self.note("run_end", state)

    def pause(self, state):
        self.note("pause", state)

    def resume(self, state, seconds):  # noqa: ARG002  # a callback's signature
        self.note("resume", state)

    def seen(self, **more):
        return {
            "told": self.told,
            "losses": self.losses,
            "lrs": self.lrs,
            "objects": self.objects,
            "kind": self.kind,
            "errors": self.errors,
            "bare": bare(self.lrs),
            **more,
        }


def rate_of(optimizer):
    if hasattr(optimizer, "param_groups"):
        return float(optimizer.param_groups[0]["lr"])
    return float(optimizer.learning_rate)


def weights_of(state):
    return torch.cat([value.detach().flatten() for value in state.model.parameters()]).tolist()


def plain(train, listener, folder):
    witness = Witness()
    train(Case(witness))
    return witness.seen(scheduled=[LR * fall(step) for step in range(len(witness.lrs))])


def stopped(train, listener, folder):
    witness = Witness(stops_at=7)
    train(Case(witness))
    return witness.seen()


def failed(train, listener, folder):
    witness = Witness()
    raised = ""
    try:
        train(Case(witness, fails_at=5))
    except Broken as error:
        raised = type(error).__name__
    return witness.seen(raised=raised)


def controlled(train, listener, folder):
    """Pauses at 5, looks, steps twice, edits, goes on to 20, writes a checkpoint and stops there."""
    witness = Witness(halts_at=5)
    answers = {}
    driver = threading.Thread(target=drive, args=(witness, listener, folder, answers))
    driver.start()
    try:
        train(Case(witness))
    finally:
        witness.let_go.set()
        driver.join(PATIENCE)
    return witness.seen(**answers)


def drive(witness, listener, folder, answers):
    try:
        _drive(witness, listener, folder, answers)
    except BaseException as error:  # noqa: BLE001  # it is what the tests are to show
        answers["driver"] = f"{type(error).__name__}: {error}"
        control = getattr(witness, "control", None)
        if control is not None:
            control.stop()
            control.resume()
    finally:
        witness.let_go.set()


def _drive(witness, listener, folder, answers):
    assert witness.halted.wait(PATIENCE), "the training never came to its fifth step"
    control = witness.control = current().control
    request = control.pause()
    witness.let_go.set()
    answers["paused"] = request.wait(PATIENCE).step
    # Each is served by the training thread, where it is held: had it moved, one would tell.
    answers["held"] = [control.read().wait(PATIENCE).step for _ in range(50)]
    answers["steps_while_held"] = len(witness.lrs)
    answers["stepped"] = control.step(2).wait(PATIENCE).step
    answers["after"] = control.read().wait(PATIENCE).step
    answers["set"] = control.set("lr", EDITED).wait(PATIENCE).answer
    control.break_when("step == 20").wait(PATIENCE)
    control.resume().wait(PATIENCE)
    listener.wait(lambda: paused_at(listener, 20), seconds=PATIENCE)
    outcome = control.read().wait(PATIENCE)
    answers["broke"] = outcome.step
    weights = []
    control.call(lambda state: weights.extend(weights_of(state))).wait(PATIENCE)
    path = str(folder / "at-20.ckpt")
    answers["checkpoint"] = control.checkpoint(path).wait(PATIENCE).answer
    answers["written"] = Path(answers["checkpoint"]["path"]).stat().st_size
    answers["unchanged"] = []
    control.call(lambda state: answers["unchanged"].append(weights_of(state) == weights)).wait(
        PATIENCE
    )
    control.stop().wait(PATIENCE)
    control.resume()


def paused_at(listener, step):
    return any(
        event["kind"] == "loop_paused" and event["step"] == step
        for event in list(listener.events.values())
    )


SCENARIOS = {"plain": plain, "controlled": controlled, "failed": failed, "stopped": stopped}


def main():
    host, folder = sys.argv[1], Path(sys.argv[2])
    warnings.simplefilter("ignore")  # those of the libraries are theirs
    logging.disable(logging.CRITICAL)
    torch.set_num_threads(1)
    os.environ["SCRATCH"] = str(folder)
    began = time.process_time()
    seen = {"faults": {}}
    with Listener(folder) as listener:
        os.environ["RDEV_JOB_SOCKET"] = listener.path
        train = HOSTS[host][0]
        for name, scenario in SCENARIOS.items():
            seen[name] = watched(scenario, train, listener, folder)
        for name, fault in FAULTS.items() if host == "ignite" else ():
            with fault():
                seen["faults"][name] = watched(plain, train, listener, folder)
    seen["version"] = version_of(host)
    seen["seconds"] = round(time.process_time() - began, 2)
    (folder / "seen.json").write_text(json.dumps(seen))


def watched(scenario, train, listener, folder):
    """What was seen of a scenario, with the events of its runs."""
    before = len(listener.events)
    seen = scenario(train, listener, folder)
    listener.wait(
        lambda: any(event["kind"] == "run_ended" for event in events_since(listener, before)),
        seconds=PATIENCE,
    )
    seen["events"] = events_since(listener, before)
    return seen


def events_since(listener, count):
    events = [listener.events[key] for key in sorted(listener.events)]
    return events[count:]


if __name__ == "__main__":
    main()
