"""Raises the timeouts of torch.distributed in this process, and puts them back.

A group is asked what its timeout is before and after: who does not say, or does not follow, is
named. Nothing of torch's is imported; a program that has process groups has imported it. Of the
process groups that a forked child inherits none is touched, for they are its parent's.

Gloo and NCCL read their default timeout when an operation begins, so an operation in flight keeps
what it began with. Gloo's `send` and `recv` keep the timeout of the group's creation for ever.
"""

from __future__ import annotations

import gc
import math
import sys
from functools import partial

from rdev.hook.place import main_frame

TYPE_CHECKING = False  # not from `typing`, see rdev.hook
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

# A stop that nobody prepared goes on so long before the shortest timeout.
MARGIN_SECONDS = 1.0

# The process that trains may have begun to wait for a worker's batch well before the worker came to
# its stop, and waits for the rest of the batch after it: half of the time is theirs.
LOADER_SHARE = 0.5

_C10D = "torch.distributed.distributed_c10d"
_LOADER = "torch.utils.data.dataloader"
_WORKER = "torch.utils.data._utils.worker"
_CREATE = "_new_process_group_helper"


class Setting:
    """One timeout: where it is read and written, in seconds."""

    # No dataclass, see `rdev.hook.stops.Stop`.
    __slots__ = ("is_group", "key", "name", "read", "write")

    def __init__(
        self,
        key: tuple[str, str],
        read: Callable[[], float],
        write: Callable[[float], None],
        name: str = "",
    ) -> None:
        self.key = key
        self.name = name
        self.is_group = key[0] == "group"
        self.read = read
        self.write = write


class Timeouts:
    """The raised timeouts of one process; every method may be called again at any time."""

    def __init__(self) -> None:
        self._raised: dict[tuple[str, str], tuple[float, float]] = {}
        self._inherited: set[int] = set()
        self._create: Any = None
        self._wrapper: Any = None
        self.refused: dict[str, str] = {}

    def raise_to(self, seconds: float) -> None:
        """Raises what is lower, in all groups, stores and loaders that there are now."""
        self.raise_groups(seconds)
        for setting in _of_loaders():
            self._raise(setting, seconds)

    def raise_groups(self, seconds: float) -> None:
        """As `raise_to`, without the search for loaders, which takes its time."""
        self.refused = {}
        for setting in self._of_groups():
            self._raise(setting, seconds)

    def restore(self) -> None:
        """Puts back what was raised, unless the program has changed it since."""
        self._unwatch()
        for setting in (*self._of_groups(), *_of_loaders()):
            before, raised = self._raised.get(setting.key, (0.0, 0.0))
            try:
                if setting.key in self._raised and setting.read() == raised:
                    setting.write(before)
            except Exception as error:  # noqa: BLE001 - whatever torch raises, the others follow
                self.refused[setting.name] = _line(error)
        self._raised = {}

    def before(self) -> list[float]:
        """The timeouts that the process groups had before they were raised, the shortest first."""
        found = []
        for setting in self._of_groups():
            if setting.is_group:
                raised = self._raised.get(setting.key)
                found.append(raised[0] if raised else _try(setting.read))
        return sorted(seconds for seconds in found if seconds is not None)

    def now(self) -> list[float]:
        """The timeouts that the process groups have, the shortest first."""
        found = [_try(setting.read) for setting in self._of_groups() if setting.is_group]
        return sorted(seconds for seconds in found if seconds is not None)

    def names(self) -> list[str]:
        """The process groups whose timeout is raised."""
        return sorted({key[1].split()[0] for key in list(self._raised) if key[0] == "group"})

    def watch(self, on_created: Callable[[], None]) -> None:
        """Has `on_created` called in the thread that makes a process group, before it uses it."""
        module = sys.modules.get(_C10D)
        create = getattr(module, _CREATE, None)
        if module is None or create is None or self._create is not None:
            return

        def created(*args: Any, **options: Any) -> Any:  # noqa: ANN401 - as torch calls it
            result = create(*args, **options)
            on_created()
            return result

        self._create, self._wrapper = create, created
        setattr(module, _CREATE, created)

    def sequence(self) -> dict[str, int]:
        """How many operations each group has issued in this process."""
        counted = {name: _try(_counter(group)) for name, group, _ in self._groups()}
        return {name: int(number) for name, number in counted.items() if number is not None}

    def world(self) -> tuple[int | None, int]:
        """This process's rank and the size of its default group; None and 0 without one."""
        module = sys.modules.get(_C10D)
        group = getattr(getattr(module, "_world", None), "default_pg", None)
        if group is None or id(group) in self._inherited:
            return None, 0
        return int(group.rank()), int(group.size())

    def forget(self) -> None:
        """In a forked child: its groups are its parent's."""
        self._inherited = {id(group) for _, group, _ in self._groups()}
        self._raised = {}
        self._unwatch()

    def _raise(self, setting: Setting, seconds: float) -> None:
        try:
            current = setting.read()
            if current >= seconds:
                return
            setting.write(seconds)
            if setting.read() < seconds:
                raise RuntimeError("it did not follow")
        except Exception as error:  # noqa: BLE001 - whatever torch raises, it is told
            if setting.is_group:
                self.refused[setting.name] = _line(error)
            return
        known = self._raised.get(setting.key)
        # What is not as we left it is the program's own choice, and what it gets back.
        before = known[0] if known is not None and known[1] == current else current
        self._raised[setting.key] = (before, seconds)

    def _unwatch(self) -> None:
        module, create = sys.modules.get(_C10D), self._create
        if create is not None and getattr(module, _CREATE, None) is self._wrapper:
            setattr(module, _CREATE, create)
        self._create = self._wrapper = None

    def _groups(self) -> list[tuple[str, Any, Any]]:
        """Name, group and store of each."""
        module = sys.modules.get(_C10D)
        table = getattr(getattr(module, "_world", None), "pg_map", None) or {}
        kind = getattr(module, "ProcessGroup", ())
        # The program may make or destroy one meanwhile; a copy of the table is one operation.
        found = [(g, entry[1]) for g, entry in list(table.items()) if isinstance(g, kind)]
        return [(str(g.group_name), g, s) for g, s in found if id(g) not in self._inherited]

    def _of_groups(self) -> Iterator[Setting]:
        for name, group, store in self._groups():
            yield from _of_group(name, group)
            yield Setting(
                ("store", name), partial(_patience_of, store), partial(_set_patience_of, store)
            )


def patience() -> float:
    """How long a stop that nobody prepared may last, in seconds; endless if nobody waits.

    Others do: ranks in a collective that has begun, or will at once, with the timeout of now, and
    the process that trains for the batch of a loader's worker.
    """
    return min(_patience_of_ranks(), _patience_of_loader())


def _patience_of_loader() -> float:
    # A forked worker runs below the call that made the loader's iterator, with a copy of it. One
    # that was spawned is not told the timeout.
    kind: Any = getattr(sys.modules.get(_LOADER), "_MultiProcessingDataLoaderIter", None)
    worker = getattr(sys.modules.get(_WORKER), "_worker_info", None)
    frame = main_frame() if kind is not None and worker is not None else None
    while frame is not None:
        if frame.f_code is kind.__init__.__code__:
            timeout = float(getattr(frame.f_locals["self"], "_timeout", 0.0))
            return timeout * LOADER_SHARE if timeout > 0 else math.inf  # 0 means for ever
        frame = frame.f_back
    return math.inf


def _patience_of_ranks() -> float:
    try:
        rank, size = Timeouts().world()
        shortest = Timeouts().now()
    except Exception:  # noqa: BLE001 - whatever torch raises: the program called `breakpoint()`
        return math.inf
    if rank is None or size < 2:
        return math.inf
    return max(0.0, shortest[0] - MARGIN_SECONDS) if shortest else math.inf


def _of_group(name: str, group: Any) -> Iterator[Setting]:  # noqa: ANN401 - a ProcessGroup
    seen: list[Any] = []
    for device in group._device_types:  # noqa: SLF001 - as torch's own _set_pg_timeout does
        try:
            backend = group._get_backend(device)  # noqa: SLF001 - as above
        except RuntimeError:
            continue  # The group has no backend for a device that it names.
        if any(backend is other for other in seen):
            continue
        seen.append(backend)
        yield Setting(
            ("group", f"{name} {device}"),
            partial(_timeout_of, backend),
            partial(_set_timeout_of, backend),
            f"process group {name} ({backend.name()})",
        )


def _timeout_of(backend: Any) -> float:  # noqa: ANN401 - a Backend
    timeout = getattr(getattr(backend, "options", None), "_timeout", None)
    if timeout is None:
        raise RuntimeError("its backend does not tell its timeout")
    return float(timeout.total_seconds())


def _set_timeout_of(backend: Any, seconds: float) -> None:  # noqa: ANN401 - a Backend
    # torch has deprecated the private name for the public one (its pull request 187387).
    change = getattr(backend, "set_timeout", None) or backend._set_default_timeout  # noqa: SLF001 - as above
    change(_delta(seconds))


def _patience_of(store: Any) -> float:  # noqa: ANN401 - a Store
    return float(store.timeout.total_seconds())


def _set_patience_of(store: Any, seconds: float) -> None:  # noqa: ANN401 - a Store
    store.set_timeout(_delta(seconds))


def _of_loaders() -> Iterator[Setting]:
    """Loaders that wait for workers: only a process that has children has one."""
    module = sys.modules.get(_LOADER)
    children = getattr(sys.modules.get("multiprocessing.process"), "_children", None)
    kind = getattr(module, "_MultiProcessingDataLoaderIter", None)
    if not children or kind is None:
        return
    # A look at a million objects takes 50 ms, and other threads run meanwhile.
    for found in [each for each in gc.get_objects() if type(each) is kind]:
        if found._timeout > 0:  # noqa: SLF001 - 0 means for ever
            yield Setting(
                ("loader", str(id(found))),
                partial(getattr, found, "_timeout"),
                partial(setattr, found, "_timeout"),
            )


def _delta(seconds: float) -> Any:  # noqa: ANN401 - a timedelta; torch has imported the module
    return sys.modules["datetime"].timedelta(seconds=seconds)


def _counter(group: Any) -> Callable[[], float]:  # noqa: ANN401 - a ProcessGroup
    return lambda: int(group._get_sequence_number_for_group())  # noqa: SLF001 - torch's own way


def _try(read: Callable[[], float]) -> float | None:
    try:
        return read()
    except Exception:  # noqa: BLE001 - whatever torch raises: it is not known
        return None


def _line(error: Exception) -> str:
    text = str(error).strip()
    return text.splitlines()[0][:200] if text else type(error).__name__
