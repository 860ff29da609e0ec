"""Ignite: a step is an iteration of the engine, its loss what the process function returns."""

from __future__ import annotations

import contextlib
import inspect
import sys
from collections.abc import Callable

from rdev.loop.guests.guest import Foreign, Guest, Joined, LrSetter, numbered


def attach(engine: Foreign, guest: Guest) -> None:
    """Makes each `engine.run` a run."""

    def joined(run: Callable[..., object], *arguments: object, **options: object) -> object:
        # Handlers are attached last, so what others do at the end of a step is done before ours.
        with contextlib.ExitStack() as stack, guest.training():
            for event, handler in _handlers(engine, guest):
                stack.enter_context(engine.add_event_handler(event, handler))
            return run(*arguments, **options)

    Joined.put(engine, "run", joined)


def _handlers(engine: Foreign, guest: Guest) -> list[tuple[Foreign, Callable[[], None]]]:
    events = sys.modules["ignite.engine"].Events

    def epoch_started() -> None:
        if not guest.is_running:  # An engine that goes on from a state does not start anew.
            _begin(engine, guest)
        guest.probe.epoch_begin()

    def iteration_completed() -> None:
        output = engine.state.output
        guest.probe.log(output) if isinstance(output, dict) else guest.loss(_first(output))
        if guest.step_end():
            engine.terminate()

    return [
        (events.EPOCH_STARTED, epoch_started),
        (events.ITERATION_STARTED, lambda: guest.batch(engine.state.batch)),
        (events.ITERATION_COMPLETED, iteration_completed),
        (events.EPOCH_COMPLETED, guest.epoch_end),
    ]


def _begin(engine: Foreign, guest: Guest) -> None:
    state = engine.state
    probe = guest.begin(
        epochs=state.max_epochs,
        steps=getattr(state, "max_iters", None),
        epoch=state.epoch - 1,
        step=state.iteration,
        objects=_objects_of(engine),
    )
    schedulers = _schedulers(engine)
    wrapped = [one.lr_scheduler for one in schedulers if hasattr(one, "lr_scheduler")]
    probe.state.add(numbered("scheduler", wrapped))
    own = [one for one in schedulers if not hasattr(one, "lr_scheduler")]
    if own:
        setters = probe.control.setters
        setters["lr"] = _setter(own, setters["lr"])


def _setter(schedulers: list[Foreign], usual: LrSetter) -> LrSetter:
    def set_lr(value: float) -> tuple[object, object]:
        before = [_rate(scheduler) for scheduler in schedulers]
        answer = usual(value)
        for scheduler, rate in zip(schedulers, before, strict=True):
            if rate:
                _scale(scheduler, value / rate)
        return answer

    return set_lr


def _rate(scheduler: Foreign) -> float:
    return float(scheduler.optimizer_param_groups[0]["lr"])


def _scale(scheduler: Foreign, factor: float) -> None:
    unscaled = scheduler.get_param

    def get_param() -> object:
        value = unscaled()
        return [one * factor for one in value] if isinstance(value, list) else value * factor

    scheduler.get_param = get_param


def _objects_of(engine: Foreign) -> dict[str, object]:
    # The engine keeps no model: its process function does.
    function = engine._process_function  # noqa: SLF001  # Ignite offers no other way to it.
    try:
        found = inspect.getclosurevars(function)
    except TypeError:
        return {}
    names = {**found.globals, **found.nonlocals}
    return {name: value for name, value in names.items() if _is_trained(value)}


def _is_trained(value: object) -> bool:
    if isinstance(value, type) or not hasattr(value, "state_dict"):
        return False
    return any(hasattr(value, name) for name in ("parameters", "param_groups", "base_lrs"))


def _first(output: Foreign) -> Foreign:
    # Process functions return the loss alone or first, by custom: (loss, prediction, target).
    return output[0] if isinstance(output, (tuple, list)) and output else output


def _schedulers(engine: Foreign) -> list[Foreign]:
    # Ignite's own schedulers compute the rate anew at each step; torch's within one of Ignite's do
    # what torch's do.
    entries = engine._event_handlers.values()  # noqa: SLF001  # Ignite offers no other way to it.
    handlers = (handler for members in entries for handler, *_ in members)
    return [one for one in handlers if getattr(one, "param_name", None) == "lr"]
