"""Checkpoints: all that a run is made of, kept so that another process goes on bit by bit.

    save     objects, generators, callbacks, counters and the place in the data -> files
    load     files -> the objects of a state that trains no further, or begins anew
    capture  objects and generators -> memory              restore  memory -> objects

With several ranks, rank 0 writes `PATH` and each other one, beside it, what is its own: its
generators and its callbacks' state. What goes on reads both; see `rdev.loop.resume`.
"""

from __future__ import annotations

import os
import platform
import sys
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rdev.loop import archive, rng
from rdev.loop.archive import CheckpointError
from rdev.loop.plain import NotPlainError, clone, graft, is_stateful, pack, unpack
from rdev.loop.sampler import place
from rdev.loop.state import State

if TYPE_CHECKING:
    from rdev.loop.feed import Feed
    from rdev.loop.probe import Probe

__all__ = ["CheckpointError", "Snapshot", "capture", "load", "restore", "save"]

# Where checkpoints go if nobody has said it: below the job's working directory.
FOLDER = "checkpoints"
FILE = "step-{step}.ckpt"


def save(state: State, path: str | None = None, *, leave: Iterable[str] = ()) -> str:
    """Writes a checkpoint, between two steps; all ranks do so after the same step.

    Args:
        state: The run's state.
        path: The file; `{step}` and `{epoch}` in it are filled in. None for the folder of the run's
            `Checkpoint` callback, which then counts it as the latest; without one, for
            `checkpoints/step-{step}.ckpt`.
        leave: Names of objects that are left out.

    Returns:
        The absolute path of the file that rank 0 writes.

    Raises:
        CheckpointError: It cannot be written, or an object's state cannot be kept. What was there
            before is as it was.
    """
    probe = _probe(state)
    if probe is not None and probe.is_in_step and state.error is None:
        raise CheckpointError(
            "unable to write a checkpoint: a step is being made, and it is of whole ones"
        )
    keeper = _keeper(() if probe is None else probe.members) if path is None else None
    if keeper is not None:
        return str(keeper.write(state))
    rank, world = place()
    template = os.path.abspath(path or os.path.join(FOLDER, FILE))
    main = template.replace("{step}", str(state.step)).replace("{epoch}", str(state.epoch))
    archive.write(rank_path(main, rank), describe(state, leave=leave, part=(rank, world)))
    if rank == 0 and probe is not None:
        probe.checkpoint_saved(main)
    return main


def load(path: str, state: State) -> None:
    """Gives the state's objects what the checkpoint has of them.

    For an evaluation, a fine-tuning, or to go back to better weights within a run. Generators and
    callbacks stay as they are, and so do the counters unless the state has made no step. A run
    that shall go on as if it had not been interrupted is `Loop(...).run(resume=path)`.

    Args:
        path: The file that rank 0 wrote; every rank reads it.
        state: Its objects are found by their names.

    Raises:
        CheckpointError: It cannot be read, or does not fit; then objects may be changed in part.
    """
    body = archive.read(path)
    put_objects(body, state, path=path, whole=False)
    if state.step == 0:
        put_counters(body, state)


@dataclass(frozen=True)
class Snapshot:
    """A state's objects and the generators, in memory.

    Attributes:
        step: Steps that had been made.
        epoch: Epochs that had begun.
        objects: What was packed of the objects.
        generators: Where python's, numpy's and torch's generators stood.
    """

    step: int
    epoch: int
    objects: Mapping[str, Any]
    generators: Mapping[str, Any]


def capture(state: State, *, device: str | None = None) -> Snapshot:
    """Copies the objects' state; with Adam that takes three times the memory of the weights.

    Args:
        state: The run's state.
        device: Where copies of tensors lie, "cpu" to spare a GPU's memory; None for where they are.

    Raises:
        CheckpointError: An object's state cannot be kept.
    """
    objects, _ = _packed(state.objects, leave=())
    kept = clone(objects, device=device)
    return Snapshot(state.step, state.epoch, kept, rng.capture())


def restore(state: State, snapshot: Snapshot) -> None:
    """Puts objects and generators back; the snapshot stays as it is and can be used again.

    The counters stay: the data goes on where it is, and no loader can go back.

    Raises:
        CheckpointError: An object is not what it was.
    """
    put_objects({"objects": clone(snapshot.objects)}, state, path="in memory", whole=False)
    rng.restore(dict(snapshot.generators))


def describe(
    state: State, *, leave: Iterable[str] = (), part: tuple[int, int] = (0, 1)
) -> dict[str, Any]:
    """What a rank's file holds.

    Raises:
        CheckpointError: An object's state cannot be kept.
    """
    rank, world = part
    probe = _probe(state)
    feed = feed_of(state)
    body: dict[str, Any] = {
        "by": "rdev.loop",
        "format": archive.FORMAT,
        "time": time.time(),
        "step": state.step,
        "epoch": state.epoch,
        "rank": rank,
        "ranks": world,
        "whole": state.error is None,
        "versions": _versions(),
        "taken": None if probe is None else _taken(probe),
        "data": {} if feed is None else feed.outline(),
        "generators": pack(rng.capture()),
        "generators_before": None if feed is None else pack(feed.begin),
        "callbacks": _callbacks(() if probe is None else probe.members),
    }
    if rank == 0:
        objects, left = _packed(state.objects, leave=leave)
        body |= {"objects": objects, "left": left, **_latest(state)}
    return body


def feed_of(state: State) -> Feed | None:
    """Where the batches of the run come from whose state this is; None if no `Loop` runs it."""
    probe = _probe(state)
    return None if probe is None else probe.feed


def folder_of(members: Iterable[object]) -> str | None:
    """The folder of the `Checkpoint` among the callbacks, if there is one."""
    keeper = _keeper(members)
    return None if keeper is None else str(keeper.folder)


def rank_path(path: str, rank: int) -> str:
    """Where that rank's own part is written."""
    stem, suffix = os.path.splitext(path)
    return path if rank == 0 else f"{stem}.rank{rank}{suffix}"


def put_objects(body: Mapping[str, Any], state: State, *, path: str, whole: bool) -> None:
    """Gives the objects their state.

    Args:
        body: What `describe` gave.
        state: Whose objects.
        path: Where it came from, for errors.
        whole: There may be no object of which the other side knows nothing.

    Raises:
        CheckpointError: Objects are missing, or one is not what it was.
    """
    objects, saved = state.objects, body["objects"]
    if whole:
        here, _ = _packed(objects, leave=body["left"])
        _compare(set(here), set(saved), path)
    for name in saved:
        if name not in objects:
            continue
        try:
            objects[name] = graft(objects[name], saved[name], where=name)
        except ValueError as error:
            raise CheckpointError(f"the checkpoint {path} does not fit: {error}") from error


def put_counters(body: Mapping[str, Any], state: State) -> None:
    """Sets step, epoch, and what was reported last."""
    state.step, state.epoch = body["step"], body["epoch"]
    state.phase = body["phase"]
    state.loss = unpack(body["loss"])
    state.metrics = unpack(body["metrics"])


def put_callbacks(body: Mapping[str, Any], members: Iterable[object]) -> None:
    """Gives their state to the callbacks that are there again, by class and order.

    Raises:
        ValueError: One does not take it.
    """
    for name, member in _named(members):
        if name in body["callbacks"]:
            graft(member, body["callbacks"][name], where=name)


def _taken(probe: Probe) -> int | None:
    """Batches of the epoch in hand that were taken; -1 before its iterator was made."""
    if probe.feed is None:
        return None
    taken = probe.feed.position(probe.state)
    return -1 if taken is None and probe.is_in_epoch else taken


def _packed(
    objects: Mapping[str, Any], *, leave: Iterable[str]
) -> tuple[dict[str, Any], list[str]]:
    """What is kept of the objects, by name, and the names of which nothing is."""
    kept: dict[str, Any] = {}
    left: list[str] = []
    skip = set(leave)
    for name, value in objects.items():
        if name in skip:
            left.append(name)
            continue
        try:
            kept[name] = pack(value, where=name)
        except NotPlainError as error:
            if _holds_state(value):
                raise CheckpointError(f"unable to keep the state of {name!r}: {error}") from error
            left.append(name)
    return kept, left


def _holds_state(value: object, depth: int = 4) -> bool:
    """True if leaving it out would lose what was trained."""
    if is_stateful(value):
        return True
    items = value.values() if isinstance(value, dict) else value
    return (
        depth > 0
        and isinstance(value, (dict, list, tuple))
        and any(_holds_state(item, depth - 1) for item in items)  # type: ignore[attr-defined]  # see above
    )


def _compare(here: set[str], saved: set[str], path: str) -> None:
    if here == saved:
        return
    missing, extra = sorted(saved - here), sorted(here - saved)
    parts = [f"it has the state of {', '.join(missing)}, not here"] if missing else []
    parts += [f"it has no state of {', '.join(extra)}"] if extra else []
    raise CheckpointError(f"the checkpoint {path} does not fit: {'; '.join(parts)}")


def _named(members: Iterable[object]) -> list[tuple[str, object]]:
    """Callbacks that have a state, each under its class and its number among those of it."""
    count: dict[str, int] = {}
    named = []
    for member in members:
        if is_stateful(member):
            name = f"{type(member).__module__}.{type(member).__qualname__}"
            count[name] = count.get(name, 0) + 1
            named.append((f"{name}#{count[name]}", member))
    return named


def _callbacks(members: Iterable[object]) -> dict[str, Any]:
    try:
        return {name: pack(member, where=name) for name, member in _named(members)}
    except NotPlainError as error:
        raise CheckpointError(f"unable to keep the state of a callback: {error}") from error


def _latest(state: State) -> dict[str, Any]:
    """What was reported last, as far as it is plain; ends of epochs read it."""
    metrics = {name: _plain_or_none(value) for name, value in state.metrics.items()}
    return {"phase": state.phase, "loss": _plain_or_none(state.loss), "metrics": metrics}


def _plain_or_none(value: Any) -> Any:  # noqa: ANN401
    try:
        return pack(value.detach() if hasattr(value, "detach") else value)
    except NotPlainError:
        return None


def _versions() -> dict[str, str]:
    loaded = {name: sys.modules.get(name) for name in ("torch", "numpy")}
    versions = {name: str(getattr(module, "__version__", "")) for name, module in loaded.items()}
    return {"python": platform.python_version(), **{n: v for n, v in versions.items() if v}}


def _probe(state: State) -> Probe | None:
    from rdev.loop.probe import current

    probe = current()
    return probe if probe is not None and probe.state is state else None


def _keeper(members: Iterable[object]) -> Any:  # noqa: ANN401  # the callback imports this module
    from rdev.loop.callbacks.checkpoint import Checkpoint

    return next((member for member in members if isinstance(member, Checkpoint)), None)
