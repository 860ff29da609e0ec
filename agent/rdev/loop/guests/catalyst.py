"""Catalyst 22.4: a step is a batch of a training loader, or as many as are accumulated.

Its stop flag ends a loader and is taken back there, so it is set again at the epoch's end.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping

from rdev.loop.guests.guest import Foreign, Guest, Joined, derived, replaced

# After the optimizer and the schedulers, so that what they do is done before ours.
_ORDER = 1000


def attach(runner: Foreign, guest: Guest) -> None:
    """Makes each `runner.train`, and what else calls `runner.run`, a run."""
    base = sys.modules["catalyst.core.callback"].Callback

    def run(run: Callable[..., object], *arguments: object, **options: object) -> object:
        get_callbacks = runner.get_callbacks

        def with_ours() -> object:
            return {**get_callbacks(), "rdev": derived(_Watch, base)(guest)}

        with guest.training(), replaced(runner, "get_callbacks", with_ours):
            return run(*arguments, **options)

    Joined.put(runner, "run", run)


class _Watch:
    def __init__(self, guest: Guest) -> None:
        super().__init__(order=_ORDER)  # type: ignore[call-arg]  # of the class it is derived to
        self._guest = guest

    def on_experiment_start(self, runner: Foreign) -> None:
        named = {name: getattr(runner, name, None) for name in _OBJECTS}
        objects = {name: one for name, value in named.items() for name, one in _each(name, value)}
        self._guest.begin(epochs=runner.num_epochs, objects=objects)

    def on_epoch_start(self, runner: Foreign) -> None:
        self._guest.probe.epoch_begin()

    def on_batch_start(self, runner: Foreign) -> None:
        if runner.is_train_loader:
            self._guest.batch(runner.batch)

    def on_batch_end(self, runner: Foreign) -> None:
        if not runner.is_train_loader:
            return
        loss = runner.batch_metrics.get(getattr(runner, "_loss_key", "loss"))
        if loss is not None:
            self._guest.loss(loss.detach() if hasattr(loss, "detach") else loss)
        if _has_stepped(runner) and self._guest.step_end(is_mean=True):
            runner.need_early_stop = True

    def on_loader_end(self, runner: Foreign) -> None:
        if self._guest.probe.state.stop:
            runner.need_early_stop = False

    def on_epoch_end(self, runner: Foreign) -> None:
        self._guest.epoch_end()
        if self._guest.probe.state.stop:
            runner.need_early_stop = True

    def on_experiment_end(self, runner: Foreign) -> None:
        self._guest.end()

    def on_exception(self, runner: Foreign) -> None:
        self._guest.fail(runner.exception)


_OBJECTS = ("model", "criterion", "optimizer", "scheduler")


def _each(name: str, value: Foreign) -> list[tuple[str, object]]:
    # Of several, Catalyst has a mapping.
    if isinstance(value, Mapping):
        return [(f"{name}_{key}", member) for key, member in value.items()]
    return [] if value is None else [(name, value)]


def _has_stepped(runner: Foreign) -> bool:
    for callback in runner.callbacks.values():
        steps = getattr(callback, "accumulation_steps", 1)
        if steps > 1 and callback._accumulation_counter % steps:  # noqa: SLF001  # Catalyst tells it nowhere
            return False
    return True
