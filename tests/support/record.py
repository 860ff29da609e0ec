"""The log of a job as a supervisor would have left it, without one."""

from __future__ import annotations

import errno
import os
from dataclasses import replace

from rdev.wire.blocks import reserve_block, write_block
from rdev.wire.files import STATE_SLOT, JobFiles, output_size
from rdev.wire.job import Attempt, JobState, Reason, Stream
from rdev.wire.output import Arrival, GapTable, reserve_gaps
from rdev.wire.records import Status


class Record:
    """Writes outputs, index, gaps and status of a job in a folder."""

    def __init__(self, folder, *, ranks=1):
        self.files = JobFiles(str(folder))
        os.mkdir(self.files.path("logs"))
        outputs = [(rank, stream) for rank in range(ranks) for stream in ("stdout", "stderr")]
        self.sizes = dict.fromkeys(outputs, 0)
        for output in outputs:
            reserve_gaps(self.files.gaps(*output))
            self.append(self.files.log(*output), b"")
        self.append(self.files.index, b"")
        self.status = Status(state=JobState.RUNNING)
        reserve_block(self.files.state, STATE_SLOT)
        self.tell()

    def append(self, path, content):
        with open(path, "ab") as file:
            file.write(content)

    def tell(self, **changes):
        """Records the status, changed."""
        self.status = replace(self.status, **changes)
        write_block(self.files.state, self.status.to_json())

    def write(self, stream, data, *, rank=0, at=1.0, is_indexed=True):
        offset = self.sizes[rank, stream]
        with open(self.files.log(rank, stream), "rb+") as file:
            file.seek(offset)
            file.write(data)
        if is_indexed:
            arrival = Arrival(round(at * 1e9), offset, len(data), rank, stream)
            self.append(self.files.index, arrival.pack())
        self.sizes[rank, stream] += len(data)

    def lose(self, stream, length, *, rank=0):
        table = GapTable(self.files.gaps(rank, stream))
        table.add(self.sizes[rank, stream], length, error=errno.ENOSPC)
        table.close()
        self.sizes[rank, stream] += length

    def retry(self):
        """Ends the attempt; what is written from here on is the next one's."""
        ends = tuple(Stream(*output, output_size(self.files, *output)) for output in self.sizes)
        ended = Attempt(self.status.attempt, Reason.EXITED, exit_code=1, ends=ends)
        attempts = (*self.status.attempts, ended)
        self.tell(attempt=self.status.attempt + 1, attempts=attempts)


def everything(reader):
    """All that a reader reads of a log that does not grow."""
    pieces = []
    while batch := reader.read() or reader.rest():
        pieces += batch
    return pieces
