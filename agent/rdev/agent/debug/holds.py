"""Tells the hooks of a running job when to stop by themselves and wait for a debugger."""

from __future__ import annotations

from dataclasses import dataclass

from rdev.agent.debug.target import Jobs
from rdev.protocol.errors import DebuggerUnavailable, RdevError
from rdev.wire.job import DebugStart

# A hook answers at once unless its process sits in C code that keeps the interpreter's lock.
ANSWER_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Told:
    """Which ranks were told, and which of them have nobody who counts steps."""

    ranks: tuple[int, ...]
    uncounted: tuple[int, ...]


async def set_stops(jobs: Jobs, job_id: str, stops: DebugStart, *, rank: int | None) -> Told:
    """Tells every process with a hook; `rank` None means those of all ranks.

    Raises:
        DebuggerUnavailable: No process of that rank has a hook, or none answered.
    """
    action = f"let job {job_id} wait for a debugger"
    peers = [
        peer
        for peer in await jobs.peers(job_id)
        if peer.get("role") == "hook" and rank in (None, peer.get("rank"))
    ]
    told: dict[int, bool] = {}
    cause = "no process of it has the debug hook"
    for peer in peers:
        number = int(peer.get("rank", 0))
        args = {"exception": stops.on_exception, "step": stops.step}
        try:
            answer = await jobs.command(
                job_id, "hook", number, "stops", args, pid=peer.get("pid"), timeout=ANSWER_SECONDS
            )
        except (RdevError, TimeoutError) as error:
            cause = error.message if isinstance(error, RdevError) else "the process did not answer"
            continue
        told[number] = told.get(number, False) or bool(answer.get("counted"))
    if not told:
        raise DebuggerUnavailable(action, cause)
    uncounted = tuple(sorted(number for number, counted in told.items() if not counted))
    return Told(tuple(sorted(told)), uncounted if stops.step else ())
