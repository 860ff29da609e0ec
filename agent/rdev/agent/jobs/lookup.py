"""Finds the job a person means: by id, name, id prefix, or how long ago it was."""

from __future__ import annotations

import re
from collections.abc import Iterable

from rdev.protocol.errors import JobNotFound
from rdev.wire.job import Job

_AGO = re.compile(r"@-([1-9][0-9]{0,5})")


def newest_first(jobs: Iterable[Job]) -> list[Job]:
    """The jobs in the order in which `ps` shows and `@-N` counts them."""
    return sorted(jobs, key=lambda job: (job.created, job.id), reverse=True)


def find(jobs: Iterable[Job], reference: str, *, workspace_id: str = "") -> Job:
    """The job that a reference means.

    Args:
        jobs: All jobs.
        reference: A full id, a name (the latest job of that name; a live one comes first), an id
            prefix, or `@-N` for the N-th latest; empty is the latest. The last two leave out what
            was started aside: nobody means the shell that they type it in.
        workspace_id: Where to look first. The latest job is only looked for there: nobody means
            another project's by naming none.

    Raises:
        JobNotFound: There is none, or a prefix fits several.
    """
    ordered = newest_first(jobs)
    here = [job for job in ordered if job.spec.workspace_id == workspace_id]
    ago = _AGO.fullmatch(reference)
    if ago or not reference:
        counted = [job for job in (here if workspace_id else ordered) if not job.spec.aside]
        return _latest(counted, int(ago[1]) if ago else 1)
    for group in (here, ordered) if workspace_id else (ordered,):
        found = _in_group(group, reference)
        if found is not None:
            return found
    raise JobNotFound(f"find the job {reference!r}", "no job has that name or id")


def _latest(ordered: list[Job], count: int) -> Job:
    if count <= len(ordered):
        return ordered[count - 1]
    wanted = "the latest job" if count == 1 else f"the job @-{count}"
    known = f"there are only {len(ordered)} jobs" if ordered else "there are no jobs here yet"
    raise JobNotFound(f"find {wanted}", known)


def _in_group(group: list[Job], reference: str) -> Job | None:
    for job in group:
        if job.id == reference:
            return job
    named = [job for job in group if job.name == reference]
    if named:
        return next((job for job in named if not job.state.is_final), named[0])
    prefixed = [job for job in group if job.id.startswith(reference)]
    if len(prefixed) > 1:
        cause = f"the ids of {len(prefixed)} jobs begin with it"
        raise JobNotFound(f"find the job {reference!r}", cause, hint="give more of the id")
    return prefixed[0] if prefixed else None
