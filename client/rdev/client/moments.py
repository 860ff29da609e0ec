"""Moments as people type them: how long ago, at what time today, on which day, or RFC 3339."""

from __future__ import annotations

import re
from datetime import datetime, time

_AGO = re.compile(r"(?:(\d+)w)?(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m)?(?:(\d+(?:\.\d+)?)s?)?")
_UNITS = (604800, 86400, 3600, 60, 1)
_CLOCK = re.compile(r"\d{1,2}:\d{2}(:\d{2})?")


def moment(word: str, *, now: float) -> float:
    """The moment that a word names, in seconds since the epoch.

    Args:
        word: `10m`, `2h30m`, `3d`, `90s` or `90` (ago), `14:03` or `14:03:05` (today),
            `2026-11-22`, or RFC 3339; without a zone the time is this machine's.
        now: Seconds since the epoch.

    Raises:
        ValueError: It names none; the error's text says what would.
    """
    if word and (ago := _AGO.fullmatch(word)):
        parts = zip(ago.groups(), _UNITS, strict=True)
        return now - sum(float(number) * unit for number, unit in parts if number)
    try:
        if _CLOCK.fullmatch(word):
            at = time.fromisoformat(word.rjust(len(word) + (word[1] == ":"), "0"))
            return datetime.combine(datetime.fromtimestamp(now), at).timestamp()  # noqa: DTZ006  # local
        return datetime.fromisoformat(word).timestamp()
    except (ValueError, OverflowError):
        raise ValueError(f"{word!r} is no time such as 10m, 14:03 or 2026-11-22T14:03:05") from None
