"""One value from those of all ranks, taken only of values of one and the same step.

Ranks sample by time, so two neighbours in a record are seldom of one step. A reduced value is
therefore given only for steps of which all ranks that report the metric have a sample: their first
one, the last of each epoch, and the steps at which the ranks of a job sample in common, see
`rdev.loop.grid`. A metric that only rank 0 logs is reduced over rank 0, and says so.

A step waits for the other ranks until all have come, or until every rank is known to be beyond it.
"""

from __future__ import annotations

import enum
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from rdev.client.ui.series import number_of, values_of
from rdev.wire.events import METRIC, Event

# A rank that has reported nothing so many seconds after another one began reports nothing at all.
_PATIENCE = 10.0

# So many steps wait at most; a rank that is further behind is not waited for.
_MOST_WAITING = 10_000


class Reduction(enum.Enum):
    """How the values of a step become one; not a number if one of them is none."""

    MEAN = "mean"
    MIN = "min"
    MAX = "max"

    def of(self, values: Sequence[float]) -> float:
        """The one value of at least one."""
        if any(map(math.isnan, values)):
            return math.nan
        if self is Reduction.MEAN:
            return sum(value / len(values) for value in values)
        return min(values) if self is Reduction.MIN else max(values)


@dataclass(frozen=True, slots=True)
class Reduced:
    """Values of one step, over ranks.

    Attributes:
        time: Seconds since the epoch, of the latest of them.
        step: The step of all.
        epoch: Its epoch.
        phase: Its phase, or empty.
        reduction: How they became one.
        ranks: Which ranks they are of.
        values: By name.
    """

    time: float
    step: int
    epoch: int
    phase: str
    reduction: Reduction
    ranks: tuple[int, ...]
    values: Mapping[str, float]

    def to_json(self) -> str:
        """As one line of JSON, in the words of a metric event."""
        head = {"kind": METRIC, "time": self.time, "reduce": self.reduction.value}
        place = {"ranks": self.ranks, "step": self.step, "epoch": self.epoch, "phase": self.phase}
        return json.dumps({**head, **place, "values": self.values}, separators=(",", ":"))


# A step of a run; runs of a rank are counted as (its process, the run in it), from 0.
_Place = tuple[int, int, int]


@dataclass(slots=True)
class _Step:
    """What has come of one phase of one step, by rank."""

    epoch: int
    time: float = 0.0
    values: dict[int, Mapping[str, float]] = field(default_factory=dict)


class Runs:
    """Counts the runs of each rank: a restarted job, or a second loop, begins with step 1 again."""

    def __init__(self) -> None:
        self._pids: dict[int, list[int]] = {}
        self._runs: dict[tuple[int, int], int] = {}

    def begin(self, event: Event) -> None:
        """A run of that rank and process has begun."""
        self._runs[event.rank, event.pid] = self._runs.get((event.rank, event.pid), -1) + 1

    def of(self, event: Event) -> tuple[int, int]:
        """Which process of its rank the event is of, and which run of that; both from 0."""
        pids = self._pids.setdefault(event.rank, [])
        if event.pid not in pids:
            pids.append(event.pid)
        return pids.index(event.pid), max(0, self._runs.get((event.rank, event.pid), 0))


class Reducer:
    """Takes in events in the order of the record and gives reduced values.

    Args:
        reduction: How.
        ranks: How many ranks the job has.
    """

    def __init__(self, reduction: Reduction, *, ranks: int) -> None:
        self._reduction = reduction
        self._ranks = ranks
        self._runs = Runs()
        self._steps: dict[tuple[_Place, str], _Step] = {}
        self._reached: dict[int, _Place] = {}
        self._members: dict[tuple[str, str], set[int]] = {}
        self._began = math.inf

    def add(self, event: Event) -> Iterator[Reduced]:
        """Takes in an event; yields the steps that it makes complete."""
        if event.kind != METRIC:
            self._runs.begin(event)
            return
        phase, values = str(event.fields.get("phase", "")), values_of(event)
        place: _Place = (*self._runs.of(event), number_of(event, "step"))
        self._began = min(self._began, event.time)
        self._reached[event.rank] = max(place, self._reached.get(event.rank, place))
        for name in values:
            self._members.setdefault((phase, name), set()).add(event.rank)
        step = self._steps.setdefault((place, phase), _Step(number_of(event, "epoch")))
        step.time = max(step.time, event.time)
        step.values[event.rank] = {**step.values.get(event.rank, {}), **values}
        yield from self._settle(event.time)

    def finish(self) -> Iterator[Reduced]:
        """Yields what has waited for ranks of which nothing came any more."""
        for key in sorted(self._steps):
            yield from self._reduced(key)

    def _settle(self, now: float) -> Iterator[Reduced]:
        reached = self._reached
        waited = now - self._began > _PATIENCE
        everyone = len(reached) >= self._ranks or waited
        low = min(reached.values())
        done = [
            key
            for key, step in self._steps.items()
            if (everyone and (key[0] < low or len(step.values) >= len(reached)))
        ]
        if len(self._steps) > _MOST_WAITING:
            done = sorted(self._steps)[: _MOST_WAITING // 2]
        for key in sorted(done):
            yield from self._reduced(key)

    def _reduced(self, key: tuple[_Place, str]) -> Iterator[Reduced]:
        """What can be said of a step: of each metric that all have who report it."""
        (_, _, number), phase = key
        step = self._steps.pop(key)
        by_ranks: dict[tuple[int, ...], dict[str, float]] = {}
        for name in dict.fromkeys(name for values in step.values.values() for name in values):
            found = {rank: one[name] for rank, one in sorted(step.values.items()) if name in one}
            if found.keys() >= self._members[phase, name]:
                value = self._reduction.of(list(found.values()))
                by_ranks.setdefault(tuple(found), {})[name] = value
        for ranks, values in by_ranks.items():
            yield Reduced(step.time, number, step.epoch, phase, self._reduction, ranks, values)
