"""Follows what a job records: what is there, then what comes, until nothing more can come.

reading --nothing new--> (job not final) waiting for a change --> reading
                     '--> (job final) reading once more, then the rest --> the end
        --all there was--> waiting for a change --> reading

While much is written, what comes during the wait (see `rdev.agent.logs.inotify`) is read in one go;
so a flood is passed on in few large pieces, and a single line costs one read.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncIterator, Callable
from typing import Protocol, TypeVar

from rdev.agent.logs.inotify import Inotify
from rdev.wire.files import JobFiles, read_status

Item = TypeVar("Item")


class Reader(Protocol[Item]):
    """Reads a record that grows. Called by one at a time; `glance` alone never blocks."""

    @property
    def is_behind(self) -> bool:
        """True if the last `read` stopped at its bound, and there is more at once."""

    def read(self) -> list[Item]:
        """What comes next, bounded; empty if nothing new has arrived."""

    def glance(self) -> list[Item]:
        """As `read`, but never blocks; empty also if something would have to be waited for."""

    def rest(self) -> list[Item]:
        """What `read` leaves out as long as it may still change; bounded, empty at the end."""


async def follow(
    reader: Reader[Item],
    files: JobFiles,
    inotify: Inotify,
    *,
    path: str,
    is_endless: bool,
    is_over: Callable[[], bool] | None = None,
) -> AsyncIterator[list[Item]]:
    """Yields what is read, in batches, as fast as they are taken.

    Args:
        reader: What to read with.
        files: The job's directory.
        inotify: The agent's.
        path: The file that grows when there is more.
        is_endless: Go on until the job's record is complete; else end with what is there now.
        is_over: True once nothing can be added to what is read; by default, once the job has ended.
            Called in the reader's thread.
    """
    ended = is_over or functools.partial(_is_final, files)
    with inotify.watch(path, files.state) as watch:
        # It may have ended before it was watched; after that its state file changes when it ends.
        may_have_ended = True
        while True:
            batch, is_complete = await asyncio.to_thread(_step, reader, ended)
            if batch:
                yield batch
                if reader.is_behind or may_have_ended or not is_endless:
                    continue
            elif is_complete or not is_endless:
                break
            may_have_ended = files.state in await watch.wait()
            # A line that has just come is in memory: no need to have a thread look for it.
            while not may_have_ended and (batch := reader.glance()):
                yield batch
                if reader.is_behind:
                    break
                may_have_ended = files.state in await watch.wait()
    while batch := await asyncio.to_thread(reader.rest):
        yield batch


def _step(reader: Reader[Item], is_over: Callable[[], bool]) -> tuple[list[Item], bool]:
    """What is new, and whether nothing can follow it."""
    batch = reader.read()
    if batch:
        return batch, False
    # In this order: what was written before the status became final is seen by the second read.
    has_ended = is_over()
    batch = reader.read()
    return batch, has_ended and not batch


def _is_final(files: JobFiles) -> bool:
    try:
        return read_status(files).state.is_final
    except FileNotFoundError:  # it was deleted, which only ended jobs are
        return True
