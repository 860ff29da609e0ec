"""Stamps: a file's stat as proof that its content is still what it was when it was hashed.

A file may be written twice within one tick of the file system's clock, the second time without a
trace in its stat. Git calls such an entry "racily clean": a stamp taken less than `RACY_NS` after
the file last changed proves nothing, and the file is hashed again.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

# The coarsest clock among file systems in use (FAT, some network servers) ticks every two seconds.
RACY_NS = 2_000_000_000


@dataclass(frozen=True, slots=True)
class Stamp:
    """Stat of a file when its content was known.

    Attributes:
        size: Bytes.
        mtime_ns: Modification time.
        ino: Inode number.
        ctime_ns: Change time, which no program can set.
        taken_ns: Clock when the stat was taken, before the content was read.
    """

    size: int
    mtime_ns: int
    ino: int
    ctime_ns: int
    taken_ns: int

    @classmethod
    def of(cls, status: os.stat_result, taken_ns: int) -> Stamp:
        """The stamp of a stat."""
        return cls(status.st_size, status.st_mtime_ns, status.st_ino, status.st_ctime_ns, taken_ns)

    def row(self) -> list[int]:
        """The stamp as a JSON array; `Stamp(*row)` is the inverse."""
        return [self.size, self.mtime_ns, self.ino, self.ctime_ns, self.taken_ns]

    def matches(self, status: os.stat_result) -> bool:
        """True if the stat is the same, whatever that proves."""
        return (self.size, self.mtime_ns, self.ino, self.ctime_ns) == (
            status.st_size,
            status.st_mtime_ns,
            status.st_ino,
            status.st_ctime_ns,
        )

    def proves(self, status: os.stat_result) -> bool:
        """True if a file with this stat surely has the content that was hashed."""
        settled = self.taken_ns - max(self.mtime_ns, self.ctime_ns) >= RACY_NS
        return settled and self.matches(status)
