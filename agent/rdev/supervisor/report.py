"""What torchrun's report says of how its ranks ended: they are its children, so nobody else knows.

The report is the last thing in the stream `launcher`. Each failed rank has a block in it with the
lines `time      : 2026-11-22_18:31:14` and `exitcode  : -9 (pid: 123)`, the latter from the rank's
wait status; see torch.distributed.elastic.multiprocessing.errors.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import time

from rdev.wire.files import JobFiles
from rdev.wire.job import Attempt

# A block takes some 300 bytes, and nothing follows the report: enough for thousands of ranks.
_AT_MOST = 1 << 20

_FAILURE = re.compile(
    rb"^ *time +: (\d{4})-(\d\d)-(\d\d)_(\d\d):(\d\d):(\d\d)\n"
    rb"(?: *(?:host|rank) +: .*\n)*"
    rb" *exitcode +: (-?\d{1,3}) \(pid: \d+\)",
    re.MULTILINE,
)

# Once a rank has failed, torchrun ends the others by TERM, and half a minute later by KILL. That is
# in the report, too; nobody has wanted memory then.
_TOGETHER = 20.0

# As a rank's own, and as a shell says it of the command it ran.
_KILLED = frozenset({-signal.SIGKILL, 128 + signal.SIGKILL})


def names_killed_rank(report: bytes) -> bool:
    """True if a rank died of KILL before torchrun itself sent that to any.

    Args:
        report: The end of what torchrun has printed.
    """
    failures = []
    for found in _FAILURE.findall(report):
        *moment, code = map(int, found)
        year, month, day, hour, minute, second = moment
        with contextlib.suppress(OverflowError):  # no moment at all, so it is none of torchrun's
            ended = time.mktime((year, month, day, hour, minute, second, 0, 0, -1))
            failures.append((ended, code))
    first = min((ended for ended, _ in failures), default=0.0)
    return any(code in _KILLED and ended < first + _TOGETHER for ended, code in failures)


def read_report(files: JobFiles, attempts: tuple[Attempt, ...]) -> bytes:
    """The end of what the launcher has printed in the attempt after those; empty if it is lost."""
    ends = attempts[-1].ends if attempts else ()
    begin = next((end.size for end in ends if (end.rank, end.name) == (0, "launcher")), 0)
    try:
        with open(files.log(0, "launcher"), "rb") as log:
            log.seek(max(begin, os.fstat(log.fileno()).st_size - _AT_MOST))
            return log.read()
    except OSError:
        return b""
