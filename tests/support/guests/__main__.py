"""Runs the scenarios through guests: `python -m tests.support.guests FOLDER HOST...`.

Writes what was seen to FOLDER/HOST.json; what it has to be is said by `tests.support.guests.checks`.
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
from importlib.metadata import version
from pathlib import Path

import torch
from tests.support.guests import extras, hosts
from tests.support.guests.faults import FAULTS
from tests.support.guests.terms import ACCUMULATING, EDITED, EXTRAS, LR, PROCESSES
from tests.support.guests.training import Broken, Case, bare, fall
from tests.support.supervisor import Listener

from rdev.loop import Callback
from rdev.loop.probe import current

# Long enough for a machine that is busy with other tests.
PATIENCE = 30


class Witness(Callback):
    """Writes down all that a callback is told, and the rate that each step begins with.

    Args:
        halts_at: At the end of each of these steps the training waits until it is `let_go`, so
            that a request made meanwhile comes at a step that is known.
        stops_at: The step after which it asks the run to stop.
    """

    def __init__(self, *, halts_at=(), stops_at=None):
        super().__init__()
        self.told = []
        self.losses = []
        self.lrs = []
        self.objects = {}
        self.kind = ""
        self.errors = []
        self.halts_at = halts_at
        self.stops_at = stops_at
        self.halted = threading.Semaphore(0)
        self.let_go = threading.Semaphore(0)
        self.is_free = False

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
        if state.step in self.halts_at and not self.is_free:
            self.halted.release()
            assert self.let_go.acquire(timeout=PATIENCE)

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


def accumulated(train, listener, folder):
    witness = Witness()
    train(Case(witness, accumulated=2))
    return witness.seen(paired=bare(witness.lrs, 2))


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
    witness = Witness(halts_at=(5, 10))
    answers = {}
    driver = threading.Thread(target=drive, args=(witness, listener, folder, answers))
    driver.start()
    try:
        train(Case(witness))
    finally:
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
        witness.is_free = True
        witness.let_go.release()


def _drive(witness, listener, folder, answers):
    assert witness.halted.acquire(timeout=PATIENCE), "the training never came to its fifth step"
    control = witness.control = current().control
    request = control.pause()
    witness.let_go.release()
    answers["paused"] = request.wait(PATIENCE).step
    # Each is served by the training thread, where it is held: had it moved, one would tell.
    answers["held"] = [control.read().wait(PATIENCE).step for _ in range(50)]
    answers["steps_while_held"] = len(witness.lrs)
    answers["stepped"] = control.step(2).wait(PATIENCE).step
    answers["after"] = control.read().wait(PATIENCE).step
    answers["set"] = control.set("lr", EDITED).wait(PATIENCE).answer
    control.resume().wait(PATIENCE)
    assert witness.halted.acquire(timeout=PATIENCE), "the training never came to its tenth step"
    before = pauses_at(listener, 20)
    condition = control.break_when("step == 20")
    witness.let_go.release()
    condition.wait(PATIENCE)
    listener.wait(lambda: pauses_at(listener, 20) > before, seconds=PATIENCE)
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


def pauses_at(listener, step):
    events = list(listener.events.values())
    return sum(event["kind"] == "loop_paused" and event["step"] == step for event in events)


SCENARIOS = {"plain": plain, "controlled": controlled, "failed": failed, "stopped": stopped}


def main():
    folder, hosts_of_process = Path(sys.argv[1]), tuple(sys.argv[2:])
    warnings.simplefilter("ignore")  # those of the libraries are theirs
    logging.disable(logging.CRITICAL)
    torch.set_num_threads(1)
    os.environ["SCRATCH"] = str(folder)
    with Listener(folder) as listener:
        os.environ["RDEV_JOB_SOCKET"] = listener.path
        for host in hosts_of_process:
            seen = everything(host, listener, folder)
            seen["version"] = version(PROCESSES[hosts_of_process])
            (folder / f"{host}.json").write_text(json.dumps(seen))


def everything(host, listener, folder):
    began = time.process_time()
    train = getattr(hosts, host)
    seen = {name: watched(one, train, listener, folder) for name, one in SCENARIOS.items()}
    if host in ACCUMULATING:
        seen["accumulated"] = watched(accumulated, train, listener, folder)
    if host in EXTRAS:
        seen["extras"] = getattr(extras, host)()
    if host == "ignite":
        seen["faults"] = {}
        for name, fault in FAULTS.items():
            with fault():
                seen["faults"][name] = watched(plain, train, listener, folder)
    return {**seen, "seconds": round(time.process_time() - began, 2)}


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
