"""Tells the hooks of a running job when to stop by themselves and wait for a debugger."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from rdev.protocol.errors import DebuggerUnavailable, RdevError
from rdev.wire.job import DebugStart

# A hook answers at once unless its process sits in C code that keeps the interpreter's lock.
ANSWER_SECONDS = 10.0


class Jobs(Protocol):
    """What is needed of the jobs; the job manager is one, see `rdev.agent.debug.manager`."""

    async def peers(self, job_id: str) -> Sequence[Mapping[str, Any]]:
        """The processes that are connected to the job's supervisor."""
        ...

    async def command(
        self,
        job_id: str,
        role: str,
        rank: int,
        name: str,
        args: Mapping[str, Any] | None = None,
        *,
        pid: int | None = None,
        timeout: float = ...,  # noqa: ASYNC109 - callers know how long theirs may take
    ) -> Mapping[str, Any]:
        """Sends a command to the hook or loop of a rank and returns its result."""
        ...


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
