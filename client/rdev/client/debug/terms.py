"""On which terms a debugger is attached: from when, how long a stop may last, what it may do."""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from rdev.protocol.errors import InvalidRequest

_DURATION = re.compile(r"(?P<number>[0-9]{1,9}(?:\.[0-9]{1,3})?)(?P<unit>ms|s|m|h|)")
_UNITS = {"ms": 0.001, "s": 1.0, "": 1.0, "m": 60.0, "h": 3600.0}

# The agent takes no longer one; a day is for whoever leaves a stop over night on purpose.
_LONGEST_LEASE = 24 * 3600.0


# What the wire carries.
_MOST_STEPS = 2**63


@dataclass(frozen=True, slots=True)
class Terms:
    """What was asked for.

    Attributes:
        lease: Seconds that a stop may last after the client's last word; None is the usual time.
        allow_kill: `terminate` ends the job.
        unsafe: Attach though other ranks may run into a timeout meanwhile.
        takes_over: Go on with a session of the same person's whose client is gone; only a client
            that attaches as every other one which can, as the agent does not attach it anew.
        from_step: Attach when this step is about to begin, and not before; 0 is at once.
    """

    lease: float | None = None
    allow_kill: bool = False
    unsafe: bool = False
    takes_over: bool = False
    from_step: int = 0

    def over(self, arguments: Mapping[str, Any]) -> Terms:
        """These, and what they leave open as an `attach` says it.

        Raises:
            InvalidRequest: What it says is none.
        """
        lease = self.lease
        if lease is None and arguments.get("lease") is not None:
            try:
                lease = duration(str(arguments["lease"]))
            except argparse.ArgumentTypeError as error:
                raise InvalidRequest("attach to a job", f"lease: {error}") from None
        return replace(
            self,
            lease=lease,
            allow_kill=self.allow_kill or arguments.get("allowKill") is True,
            unsafe=self.unsafe or arguments.get("unsafe") is True,
            from_step=self.from_step or _step(arguments.get("fromStep", 0)),
        )


def _step(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < _MOST_STEPS:
        raise InvalidRequest("attach to a job", f"fromStep: {value!r} is no step's number")
    return value


def duration(word: str) -> float:
    """Seconds for a time as typed, such as `90s`, `15m`, `1h` or `30`; for argparse."""
    match = _DURATION.fullmatch(word)
    seconds = float(match["number"]) * _UNITS[match["unit"]] if match else 0.0
    if not 0 < seconds <= _LONGEST_LEASE:
        raise argparse.ArgumentTypeError(f"{word!r} is no time up to 24h, such as 90s, 15m or 1h")
    return seconds
