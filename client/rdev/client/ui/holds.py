"""A training that is held, as people read it: in a table, and beside its output.

unknown --paused--> gathering --`GATHER_SECONDS`: told--> held --resumed--> folding --> told
                        '--resumed: nothing is told          ^--paused again: nothing--'
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from rdev.client.ui.escapes import one_line
from rdev.client.ui.pauses import FOLD_SECONDS, span
from rdev.wire.events import LOOP_PAUSED, LOOP_RESUMED, Event
from rdev.wire.job import Job, LoopPause

# All ranks are held after the same step, and say so within some milliseconds: a line for all.
GATHER_SECONDS = 0.3

KINDS = (LOOP_PAUSED, LOOP_RESUMED)

_BY = "paused by "


def place_of(step: int, phase: str) -> str:
    """Where it is held: `after step 1203`, or `in step 1203, after its phase critic`."""
    return f"in step {step}, after its phase {one_line(phase)}" if phase else f"after step {step}"


def why(reason: str) -> str:
    """Why it is held, in brackets: `(rdev ctl, ada@laptop)`, or a condition's own words."""
    if reason == "paused":
        return "(rdev ctl)"
    who = reason.removeprefix(_BY)
    return one_line(f"({reason})" if who == reason else f"(rdev ctl, {who})")


def rank_words(ranks: Collection[int]) -> str:
    """`rank 2`, `ranks 0-3`, `ranks 0, 2`."""
    numbers = sorted(ranks)
    is_row = len(numbers) > 1 and numbers == list(range(numbers[0], numbers[-1] + 1))
    shown = f"{numbers[0]}-{numbers[-1]}" if is_row else ", ".join(map(str, numbers))
    return f"rank{'s' if len(numbers) > 1 else ''} {shown}"


def together(pauses: Iterable[LoopPause]) -> list[list[LoopPause]]:
    """Those that are held at the same place, for the same reason, beside one another."""
    groups: dict[tuple[int, str, str], list[LoopPause]] = {}
    for pause in pauses:
        groups.setdefault((pause.step, pause.phase, pause.reason), []).append(pause)
    return list(groups.values())


@dataclass(slots=True)
class _Held:
    """A process whose training is held."""

    pause: LoopPause
    paused_at: float
    is_told: bool = False
    seconds: float = 0.0
    resumed_at: float | None = None


class Holds:
    """Turns events into lines; as `rdev.client.ui.pauses.Pauses` does of the debugger's.

    Args:
        job: Whose they are.
        resume: What lets it go on, as typed.
    """

    def __init__(self, job: Job, resume: str) -> None:
        self._job = job
        self._resume = resume
        self._held: dict[tuple[int, int], _Held] = {}

    def take(self, event: Event, now: float) -> list[str]:
        """Takes an event in; what is to be told of it is due later."""
        key = (event.rank, event.pid)
        held = self._held.get(key)
        if event.kind == LOOP_PAUSED:
            pause = _pause_of(event)
            if held is None:
                self._held[key] = _Held(pause, now)
            else:
                held.pause, held.resumed_at = pause, None
        elif event.kind == LOOP_RESUMED and held is not None:
            seconds = event.fields.get("seconds")
            held.seconds += seconds if isinstance(seconds, int | float) else 0.0
            held.resumed_at = now
            if not held.is_told:
                del self._held[key]
        return []

    def due(self, now: float) -> list[str]:
        """What is to be told by now: a line for all ranks that are alike."""
        lines = []
        if any(_is_untold(held) and now - held.paused_at >= GATHER_SECONDS for held in self._all):
            fresh = [held for held in self._all if _is_untold(held)]
            for held in fresh:
                held.is_told = True
            lines += [self._paused(group) for group in together(held.pause for held in fresh)]
        if any(_resumed_for(held, now) >= FOLD_SECONDS for held in self._all):
            gone = [(k, h) for k, h in self._held.items() if h.resumed_at is not None]
            for key, _ in gone:
                del self._held[key]
            longest = max(held.seconds for _, held in gone)
            lines.append(f"{self._who({rank for (rank, _), _ in gone})} after {span(longest)}")
        return lines

    def wait(self, now: float) -> float | None:
        """Seconds until something is due; None if nothing will be."""
        left = [h.paused_at + GATHER_SECONDS - now for h in self._all if _is_untold(h)]
        left += [h.resumed_at + FOLD_SECONDS - now for h in self._all if h.resumed_at is not None]
        return max(0.0, min(left)) if left else None

    @property
    def _all(self) -> Sequence[_Held]:
        return tuple(self._held.values())

    def _who(self, ranks: Collection[int]) -> str:
        if len(ranks) >= self._job.ranks:
            return f"{self._job.name} goes on"
        return f"{rank_words(ranks)} go{'es' if len(ranks) == 1 else ''} on"

    def _paused(self, group: Sequence[LoopPause]) -> str:
        ranks = {pause.rank for pause in group}
        is_all = len(ranks) >= self._job.ranks
        who = self._job.name if is_all else rank_words(ranks)
        verb = "is" if is_all or len(ranks) == 1 else "are"
        where = place_of(group[0].step, group[0].phase)
        return f"{who} {verb} paused {where} {why(group[0].reason)}: `{self._resume}` lets it go on"


def held_words(job: Job) -> list[tuple[str, LoopPause]]:
    """`PAUSED after step 1203 (rdev ctl, ada@laptop)`, once for those that are alike, with one."""
    words = []
    for group in together(job.pauses):
        ranks = {pause.rank for pause in group}
        who = "" if len(ranks) >= job.ranks else f"{rank_words(ranks)} "
        first = group[0]
        place = place_of(first.step, first.phase)
        words.append((f"{who}PAUSED {place} {why(first.reason)}", first))
    return words


def _is_untold(held: _Held) -> bool:
    return not held.is_told and held.resumed_at is None


def _resumed_for(held: _Held, now: float) -> float:
    return -1.0 if held.resumed_at is None else now - held.resumed_at


def _pause_of(event: Event) -> LoopPause:
    fields = event.fields
    return LoopPause(
        rank=event.rank,
        pid=event.pid,
        step=_number(fields.get("step")),
        epoch=_number(fields.get("epoch")),
        phase=str(fields.get("phase") or ""),
        reason=str(fields.get("reason") or ""),
        since=event.time,
    )


def _number(value: object) -> int:
    return value if isinstance(value, int) else 0
