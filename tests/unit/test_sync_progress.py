"""A sending that takes long says how far it has come, and does not say it too often."""

import pytest

from rdev.client.narration import narrator
from rdev.client.sync.progress import Progress


@pytest.fixture
def said():
    lines = []
    token = narrator.set(lines.append)
    yield lines
    narrator.reset(token)


def told(said: list[str], total: int, *, seconds: int) -> list[str]:
    """What is said of a sending of `total` bytes that goes on evenly for so long."""
    moment = [0.0]
    progress = Progress(total, clock=lambda: moment[0])
    for second in range(1, seconds + 1):
        moment[0] = float(second)
        progress.add(total // seconds)
    return said


def test_what_is_soon_over_is_not_told(said):
    assert told(said, 3_000_000, seconds=3) == []


def test_it_is_told_ever_more_seldom(said):
    lines = told(said, 600_000_000, seconds=600)
    assert lines[0] == "syncing: 3.0 MB of 600.0 MB sent after 3 s"
    assert [int(line.split()[-2]) for line in lines[:5]] == [3, 9, 21, 45, 93]
    assert len(lines) < 15
