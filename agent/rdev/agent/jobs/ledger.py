"""The jobs that have not ended, noted in the home where their own files lie on a local disk.

    accepted --> noted --ended, files there--> struck out
                   '--its files have vanished--> LOST, by whoever loads the jobs next

A cleaner of temporary files or a reboot may take that disk's folder away. Without a note nobody
would ever hear of the jobs again that were in it.
"""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections.abc import Collection, Iterator

from rdev.wire.blocks import FilesError, read_file, reserve_block, write_block, write_file
from rdev.wire.files import STATE_SLOT, JobFiles
from rdev.wire.job import JobState, Reason
from rdev.wire.records import Accepted, Status

_log = logging.getLogger(__name__)

_ENDING = ".json"
_VANISHED = "its files lay on a local disk and have vanished"


class Ledger:
    """The notes of one machine. Its methods block.

    Args:
        folder: Holds them, if it is there; None keeps none.
    """

    def __init__(self, folder: str | None) -> None:
        self._folder = folder

    @property
    def is_kept(self) -> bool:
        """False where nothing is ever noted."""
        return self._folder is not None and os.path.isdir(self._folder)

    def note(self, accepted: Accepted) -> None:
        """Notes a job before it is made.

        Raises:
            OSError: It could not.
        """
        if self._folder is not None and self.is_kept:
            write_file(self._path(self._folder, accepted.id), accepted.to_json())

    def strike(self, job_id: str) -> None:
        """Strikes out a job of which nothing can be lost any more; again is harmless."""
        if self._folder is not None:
            with contextlib.suppress(OSError):  # what stays noted is struck out by the next agent
                os.unlink(self._path(self._folder, job_id))

    def vanished(self, present: Collection[str]) -> Iterator[Accepted]:
        """The jobs that are noted and not present, by id."""
        for name in self._names():
            job_id, ending = os.path.splitext(name)
            if ending != _ENDING or job_id in present:
                continue
            try:
                yield Accepted.from_json(read_file(os.path.join(self._folder or "", name)))
            except (FilesError, OSError, KeyError, TypeError, ValueError) as error:
                _log.warning("unable to read what is noted of the job %s: %s", job_id, error)

    def _names(self) -> list[str]:
        try:
            return sorted(os.listdir(self._folder)) if self._folder is not None else []
        except FileNotFoundError:
            return []

    @staticmethod
    def _path(folder: str, job_id: str) -> str:
        return os.path.join(folder, job_id + _ENDING)


def write_lost(files: JobFiles, accepted: Accepted) -> Status:
    """Makes a directory for a job whose own has vanished; it says so, and nothing else.

    Raises:
        OSError: It could not be made.
    """
    lost = Status(
        state=JobState.LOST,
        reason=Reason.KEEPER_LOST,
        message=_VANISHED,
        ended=time.time(),
        revision=1,
    )
    os.makedirs(files.path("logs"), mode=0o700, exist_ok=True)
    for path in (files.index, files.events):
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))
    with contextlib.suppress(FileExistsError):
        reserve_block(files.state, STATE_SLOT)
    write_block(files.state, lost.to_json())
    write_file(files.spec, accepted.to_json())
    return lost
