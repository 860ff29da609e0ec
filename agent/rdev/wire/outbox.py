"""The events a process still owes its supervisor: numbered, bounded, and exact about what is lost.

Pure bookkeeping without I/O, so that its promise can be tested by itself: every event added is
received once, or counted in exactly one `events_dropped` report, whatever breaks in between.

    add -> held (unsent) -> taken (in flight) -> acknowledged, forgotten
             |                 |
             | overflow        | overflow: in doubt until an ack or the next welcome decides
             v                 v
           missing <--------- in doubt
"""

from __future__ import annotations

TYPE_CHECKING = False  # not from `typing`, see rdev.hook
if TYPE_CHECKING:
    from collections import deque
    from collections.abc import Callable
else:
    from _collections import deque  # `collections` is many times dearer, and has this one

# What one process keeps for a supervisor that is away; about 10 MB of short events.
CAPACITY = 65_536

# One write carries at most this much: it fits the socket's buffer and bounds what a break repeats.
BATCH_BYTES = 64 * 1024


class Outbox:
    """Events in the order of their sequence numbers, oldest dropped first when there are too many.

    Numbers begin where the peer's knowledge of this process ends: a program that replaced itself
    by `exec` kept its process id, and its predecessor's numbers are taken.

    Args:
        report: Makes the event that reports a number of missing ones, encoded as for `add`.
        capacity: How many unacknowledged events are kept.
    """

    __slots__ = ("_base", "_capacity", "_doubt", "_held", "_missing", "_report", "_sent", "_seq")

    def __init__(self, report: Callable[[int], bytes], *, capacity: int = CAPACITY) -> None:
        # Numbers in here count from 1; the peer's are larger by this, once the peer is known.
        self._base: int | None = None
        self._report = report
        self._capacity = capacity
        # (seq, event, events that are missing if this one is): 1, or the count of a report.
        self._held: deque[tuple[int, bytes, int]] = deque()
        self._doubt: deque[tuple[int, int]] = deque()
        self._missing = 0
        self._seq = 0
        self._sent = 0

    @property
    def unacknowledged(self) -> int:
        """How many lines are kept, sent or not, and reports not yet made count as one."""
        return len(self._held) + (1 if self._missing else 0)

    def add(self, event: bytes) -> None:
        """Numbers an event and keeps it; it is a JSON object of at least one key, on one line."""
        self._seq += 1
        if len(self._held) >= self._capacity:
            self._drop_oldest()
        self._held.append((self._seq, event, 1))

    def lose(self, count: int = 1) -> None:
        """Counts events that were dropped before they could be added."""
        self._missing += count

    def take(self) -> bytes:
        """The next lines to send, oldest first, at most about `BATCH_BYTES`; empty if none."""
        if self._missing:
            self._settle()
        lines: list[bytes] = []
        size = 0
        for seq, event, _ in self._unsent():
            line = b'{"type":"event","seq":%d,%b\n' % (seq + (self._base or 0), event[1:])
            lines.append(line)
            size += len(line)
            self._sent = seq
            if size >= BATCH_BYTES:
                break
        return b"".join(lines)

    def acknowledge(self, seq: int) -> None:
        """The peer has recorded everything up to `seq`."""
        seq -= self._base or 0
        while self._held and self._held[0][0] <= seq:
            self._held.popleft()
        while self._doubt and self._doubt[0][0] <= seq:
            self._doubt.popleft()
        self._sent = max(self._sent, seq)

    def reconnected(self, seq: int) -> None:
        """A new connection: the peer has everything up to `seq`, and nothing else is in flight."""
        if self._base is None:
            self._base = seq
        self.acknowledge(seq)
        self._missing += sum(weight for _, weight in self._doubt)
        self._doubt.clear()
        self._sent = seq - self._base

    def _unsent(self) -> list[tuple[int, bytes, int]]:
        if not self._held:
            return []
        # Numbers in the box have no gaps, so the position follows from the number.
        first = max(0, self._sent + 1 - self._held[0][0])
        # Enough for a batch even if every line were as short as a line can be.
        last = min(len(self._held), first + BATCH_BYTES // 32)
        return [self._held[position] for position in range(first, last)]

    def _drop_oldest(self) -> None:
        seq, _, weight = self._held.popleft()
        if seq <= self._sent:
            self._doubt.append((seq, weight))
        else:
            self._missing += weight

    def _settle(self) -> None:
        # Room first: what this drops belongs into the same report.
        if len(self._held) >= self._capacity:
            self._drop_oldest()
        self._seq += 1
        self._held.append((self._seq, self._report(self._missing), self._missing))
        self._missing = 0
