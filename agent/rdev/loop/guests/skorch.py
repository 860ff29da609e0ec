"""skorch: a step is a training batch.

Nets are cloned by grid searches and pickled by checkpoints, so nothing stays on the net but a
callback that can be both.
"""

from __future__ import annotations

from rdev.loop.guests.guest import Foreign, Guest, numbered


def attach(net: Foreign, guest: Guest) -> None:
    """Makes each `net.fit` and `net.partial_fit` a run."""
    watch = Watch(guest)
    net.callbacks = [*(net.callbacks or []), ("rdev", watch)]
    if net.initialized_:
        net.callbacks_.append(("rdev", watch))


class Stopped(KeyboardInterrupt):
    """Ends a training of skorch, which has no other way to end one between two batches."""


class Watch:
    """What skorch wants of a callback."""

    def __init__(self, guest: Guest) -> None:
        self.guest = guest

    def initialize(self) -> Watch:
        """Makes it as new."""
        return self

    def get_params(self, deep: bool = True) -> dict[str, object]:  # noqa: FBT002  # of scikit-learn
        """What it is made of, for clones."""
        return {"guest": self.guest}

    def set_params(self, **params: Guest) -> Watch:
        """Makes it of something else."""
        self.__dict__.update(params)
        return self

    def on_train_begin(self, net: Foreign, **_: object) -> None:
        """A training begins."""
        self.guest.begin(epochs=net.max_epochs, objects=_objects(net))
        fit_loop = net.fit_loop

        def joined(*arguments: object, **options: object) -> object:
            del net.fit_loop
            try:
                return fit_loop(*arguments, **options)
            except Stopped:
                raise
            except BaseException as error:
                self.guest.fail(error)
                self.guest.end()
                raise

        net.fit_loop = joined  # skorch tells no callback of an exception

    def on_epoch_begin(self, net: Foreign, **_: object) -> None:
        """An epoch begins."""
        self.guest.probe.epoch_begin()

    def on_batch_begin(self, net: Foreign, batch: object, training: bool, **_: object) -> None:
        """A batch begins."""
        if training:
            self.guest.batch(batch)

    def on_grad_computed(self, net: Foreign, *_: object, **others: object) -> None:
        """Gradients are there."""

    def on_batch_end(
        self, net: Foreign, batch: object, training: bool, loss: Foreign = None, **_: object
    ) -> None:
        """A batch has ended."""
        if not training:
            return
        if loss is not None:
            self.guest.loss(loss)
        if self.guest.step_end():
            raise Stopped

    def on_epoch_end(self, net: Foreign, **_: object) -> None:
        """An epoch has ended."""
        self.guest.epoch_end()

    def on_train_end(self, net: Foreign, **_: object) -> None:
        """The training has ended."""
        self.guest.end()


def _objects(net: Foreign) -> dict[str, object]:
    named = {"model": "module_", "optimizer": "optimizer_", "criterion": "criterion_"}
    schedulers = [
        callback.lr_scheduler_
        for _, callback in net.callbacks_
        if hasattr(callback, "lr_scheduler_")
    ]
    return {
        **{name: getattr(net, owned) for name, owned in named.items() if hasattr(net, owned)},
        **numbered("scheduler", schedulers),
    }
