"""Memory for messages of some hundred kilobytes, kept for the next one.

The C library gives such a block back to the kernel as soon as it is free, and the next one comes in
pages that the kernel has to find and to clear one by one. A flood of output goes through a handful
of such blocks again and again: more than half of what it cost the agent was that.
"""

from __future__ import annotations

import contextlib
import ctypes

# glibc's mallopt(3).
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3

# Above any message, and the few that are under way at a time.
_LARGEST_BLOCK = 8 << 20
_KEPT = 16 << 20


def keep_buffers() -> None:
    """Has this process keep up to 16 MiB that it has used; for programs, not for libraries."""
    with contextlib.suppress(OSError, AttributeError):  # another C library than glibc
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_MMAP_THRESHOLD, _LARGEST_BLOCK)
        mallopt(_TRIM_THRESHOLD, _KEPT)
