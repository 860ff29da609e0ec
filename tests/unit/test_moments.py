"""Moments as people type them."""

from datetime import UTC, datetime

import pytest

from rdev.client.moments import moment


def local(*parts):
    return datetime(*parts)  # noqa: DTZ001  # people type their own zone's time


NOW = local(2026, 11, 22, 14, 30).timestamp()  # this machine's zone, whichever it is


@pytest.mark.parametrize(
    ("word", "ago"),
    [
        ("10m", 600),
        ("2h30m", 9000),
        ("3d", 259200),
        ("90s", 90),
        ("90", 90),
        ("1w1d", 691200),
        ("0.5s", 0.5),
    ],
)
def test_how_long_ago(word, ago):
    assert moment(word, now=NOW) == NOW - ago


@pytest.mark.parametrize(
    ("word", "when"),
    [
        ("14:03", local(2026, 11, 22, 14, 3)),
        ("9:05", local(2026, 11, 22, 9, 5)),
        ("14:03:05", local(2026, 11, 22, 14, 3, 5)),
        ("2026-11-20", local(2026, 11, 20)),
        ("2026-11-20T10:00:00", local(2026, 11, 20, 10)),
        ("2026-11-20 10:00", local(2026, 11, 20, 10)),
        ("2026-11-20T10:00:00Z", datetime(2026, 11, 20, 10, tzinfo=UTC)),
        ("2026-11-20T10:00:00.25+00:00", datetime(2026, 11, 20, 10, 0, 0, 250_000, tzinfo=UTC)),
    ],
)
def test_when(word, when):
    assert moment(word, now=NOW) == when.timestamp()


@pytest.mark.parametrize(
    "word", ["", "m", "yesterday", "25:00", "10x", "1m2h", "-5m", "2026-13-01", "1:2"]
)
def test_what_is_no_time_is_said(word):
    with pytest.raises(ValueError, match="is no time such as 10m"):
        moment(word, now=NOW)
