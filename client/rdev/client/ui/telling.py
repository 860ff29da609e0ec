"""Our own words on stderr: in order, and rather unsaid than never ending.

A script may read our stderr only once we have ended, and a pipe holds 64 KiB.
"""

from __future__ import annotations

from rdev.client.ui.pump import write_within

_STDERR = 2

# Who reads at all reads within this, in seconds; and who did not, hardly does so later.
_PATIENCE, _IMPATIENCE = 3.0, 0.5


class _Reader:
    """Who reads our stderr, as far as we have noticed."""

    is_away = False


_reader = _Reader()


def tell(text: bytes, *, is_leaving: bool = False) -> None:
    """Writes to stderr, after what is being written there; drops it if nobody reads.

    Args:
        text: Whole lines.
        is_leaving: Hardly waits, as the person does not.
    """
    seconds = _IMPATIENCE if is_leaving or _reader.is_away else _PATIENCE
    _reader.is_away = not write_within(_STDERR, text, seconds=seconds)
