"""Lets the program's threads run between as much as can be while the debugger comes in.

A step of torch gives the interpreter's lock away at every operation, and waits for it again for up
to the switch interval, 5 ms by default, each time while a thread of ours imports. Ten operations of
a step of 0.3 ms make 50 ms of that.
"""

from __future__ import annotations

import contextlib
import sys

TYPE_CHECKING = False  # not from `typing`, see rdev.hook
if TYPE_CHECKING:
    from collections.abc import Iterator

# A change of threads costs some 10 us, so shorter ones would only make the attach longer.
INTERVAL = 0.0005


@contextlib.contextmanager
def gentle() -> Iterator[None]:
    """Within it whoever waits for the interpreter's lock gets it ten times as soon."""
    before = sys.getswitchinterval()
    if before <= INTERVAL:
        yield
        return
    sys.setswitchinterval(INTERVAL)
    ours = sys.getswitchinterval()
    try:
        yield
    finally:
        # Unless the program has chosen one meanwhile.
        if sys.getswitchinterval() == ours:
            sys.setswitchinterval(before)
