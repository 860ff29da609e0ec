"""The job directories on disk: made whole or not at all, read again after a restart, removed.

Nothing here is asynchronous; the manager calls it in threads.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import shutil
import struct
from collections.abc import Iterator, Sequence
from dataclasses import replace

from rdev.agent.jobs.gpus import VISIBLE_VARIABLE
from rdev.agent.jobs.ledger import Ledger, write_lost
from rdev.wire.blocks import (
    FilesError,
    read_block,
    read_file,
    reserve_block,
    sync_directory,
    write_block,
    write_file,
)
from rdev.wire.files import SMALL_SLOT, JobFiles, output_size, read_status, state_slot
from rdev.wire.home import boot_id
from rdev.wire.input import reserve_input
from rdev.wire.job import Gpu, JobState, Stream
from rdev.wire.output import reserve_gaps
from rdev.wire.records import Accepted, Launch, Status

_log = logging.getLogger(__name__)

# A job directory under these names is not, or no longer, one.
_UNFINISHED = ".new-"
_DOOMED = ".gone-"

# struct flock of fcntl(2) on 64-bit Linux: type, whence, start, length, pid.
_FLOCK = struct.Struct("hhqqi4x")


class JobStore:
    """All jobs below one folder.

    Args:
        folder: Holds one directory a job; made if it is missing.
        ledger: Where live jobs are noted beside it, see `rdev.agent.jobs.ledger`.
    """

    def __init__(self, folder: str, *, ledger: str | None = None) -> None:
        self.folder = folder
        self._ledger = Ledger(ledger)

    def files(self, job_id: str) -> JobFiles:
        """The paths of one job."""
        return JobFiles(os.path.join(self.folder, job_id))

    def load(self) -> list[tuple[Accepted, Status]]:
        """All jobs; what a killed agent left half made or half removed is cleared away."""
        os.makedirs(self.folder, mode=0o700, exist_ok=True)
        found = []
        for name in sorted(os.listdir(self.folder)):
            path = os.path.join(self.folder, name)
            if name.startswith((_UNFINISHED, _DOOMED)):
                shutil.rmtree(path, ignore_errors=True)
                continue
            try:
                files = JobFiles(path)
                found.append((Accepted.from_json(read_file(files.spec)), read_status(files)))
            except (FilesError, OSError, KeyError, TypeError, ValueError) as error:
                _log.warning("unable to read the job in %s: %s", path, error)
        for accepted, status in found:
            if status.state.is_final:
                self._ledger.strike(accepted.id)
        return [*found, *self._lost({accepted.id for accepted, _ in found})]

    def _lost(self, present: set[str]) -> Iterator[tuple[Accepted, Status]]:
        for accepted in self._ledger.vanished(present):
            files = self.files(accepted.id)
            if os.path.exists(files.spec):  # it is there, and cannot be read
                continue
            yield accepted, write_lost(files, accepted)
            self._ledger.strike(accepted.id)

    def note_end(self, job_id: str) -> None:
        """A job has ended; if its directory says so, nothing can be lost of it any more."""
        if self._ledger.is_kept and os.path.exists(self.files(job_id).state):
            self._ledger.strike(job_id)

    def create(self, accepted: Accepted, launch: Launch) -> None:
        """Makes the directory of a new job.

        Raises:
            OSError: It could not; nothing is left behind.
        """
        scratch = os.path.join(self.folder, _UNFINISHED + accepted.id)
        try:
            self._ledger.note(accepted)
            _fill(JobFiles(scratch), accepted, launch)
            os.rename(scratch, os.path.join(self.folder, accepted.id))
        except OSError:
            shutil.rmtree(scratch, ignore_errors=True)
            self._ledger.strike(accepted.id)
            raise
        sync_directory(self.folder)

    def write_status(self, job_id: str, status: Status) -> None:
        """Records a status; only where no supervisor of the job lives."""
        write_block(self.files(job_id).state, status.to_json())

    def end_unstarted(self, job_id: str, status: Status) -> bool:
        """Records the end of a job that never had a keeper; False if it has or had one."""
        files = self.files(job_id)
        descriptor = os.open(files.keeper_lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            # A keeper looks whether the job has ended only once it has this.
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if read_status(files).state is not JobState.PENDING or read_block(files.started):
                return False
            self.write_status(job_id, status)
            self.note_end(job_id)
        except (BlockingIOError, PermissionError):
            return False
        finally:
            os.close(descriptor)
        return True

    def give_gpus(self, job_id: str, gpus: Sequence[Gpu]) -> None:
        """Lets a job see these GPUs and no others, before it has a keeper; again is harmless."""
        path = self.files(job_id).launch
        launch = Launch.from_json(read_file(path))
        visible = {VISIBLE_VARIABLE: ",".join(gpu.uuid for gpu in gpus)}
        if visible.items() <= launch.environment.items():
            return
        write_file(path, replace(launch, environment={**launch.environment, **visible}).to_json())

    def renew(self, accepted: Accepted) -> Accepted:
        """A job that has waited over a reboot is of this boot now."""
        renewed = replace(accepted, boot_id=boot_id())
        if renewed != accepted:
            # If there is no space for it, the next agent does it.
            with contextlib.suppress(OSError):
                write_file(self.files(accepted.id).spec, renewed.to_json())
        return renewed

    def streams(self, job_id: str) -> tuple[Stream, ...]:
        """The job's outputs and their sizes."""
        files = self.files(job_id)
        return tuple(
            Stream(rank, name, output_size(files, rank, name)) for rank, name in files.outputs()
        )

    def size(self, job_id: str) -> int:
        """Bytes that all that grows with what the job says takes; what was lost takes none."""
        files = self.files(job_id)
        logs = (files.log(*output) for output in files.outputs())
        return sum(map(_taken, (*logs, files.index, files.events)))

    def remove(self, job_id: str) -> None:
        """Removes a job and all it printed; again is harmless."""
        self._ledger.strike(job_id)
        doomed = os.path.join(self.folder, _DOOMED + job_id)
        with contextlib.suppress(FileNotFoundError):
            os.rename(os.path.join(self.folder, job_id), doomed)
        shutil.rmtree(doomed, ignore_errors=True)

    def has_begun(self, job_id: str) -> bool:
        """True if the job has a keeper or had one: whether it is over, only its files can say."""
        try:
            return self.has_keeper(job_id) or read_block(self.files(job_id).started) is not None
        except (FilesError, OSError):  # whoever follows it copes with that, and says so
            return True

    def has_keeper(self, job_id: str) -> bool:
        """True while a keeper of the job lives; asks for its lock without taking it."""
        try:
            descriptor = os.open(self.files(job_id).keeper_lock, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        try:
            asked = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
            answer = fcntl.fcntl(descriptor, fcntl.F_GETLK, asked)
        finally:
            os.close(descriptor)
        return bool(_FLOCK.unpack(answer)[0] != fcntl.F_UNLCK)


def _taken(path: str) -> int:
    try:
        found = os.stat(path)
    except FileNotFoundError:
        return 0
    # Blocks are of 512 bytes, stat(2); a hole has none.
    return min(found.st_size, found.st_blocks * 512)


def _fill(files: JobFiles, accepted: Accepted, launch: Launch) -> None:
    for folder in ("", "fifo", "logs"):
        os.makedirs(files.path(folder), mode=0o700, exist_ok=True)
    for output in launch.outputs:
        os.mkfifo(files.fifo(*output), 0o600)
        reserve_gaps(files.gaps(*output))
    if launch.takes_input:
        reserve_input(files)
    logs = (files.log(*output) for output in launch.outputs)
    # The lock too: a job that waits can be stopped, and started, on a disk that is full by then.
    for path in (files.index, files.events, files.keeper_lock, *logs):
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))
    slot = state_slot(retries=launch.retries, outputs=len(launch.outputs))
    reserve_block(files.state, slot)
    reserve_block(files.started, SMALL_SLOT)
    reserve_block(files.exit, SMALL_SLOT)
    write_file(files.launch, launch.to_json())
    write_file(files.spec, accepted.to_json())
    sync_directory(files.directory)
