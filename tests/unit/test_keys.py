"""Which keys are rdev's and which the job's."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rdev.client.keys import Keys, Wish


def typed(*parts: bytes) -> list[bytes | Wish]:
    """What comes of keys typed one part after the other; runs of the job's keys are joined."""
    keys, found = Keys(), []
    for part in parts:
        for item in keys.feed(part):
            if isinstance(item, bytes) and found and isinstance(found[-1], bytes):
                found[-1] += item
            else:
                found.append(item)
    return found


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        (b"ls\r", [b"ls\r"]),
        (b"~d", [Wish.LEAVE]),
        (b"~.", [Wish.LEAVE]),
        (b"ls\r~d", [b"ls\r", Wish.LEAVE]),
        (b"ls\n~d", [b"ls\n", Wish.LEAVE]),
        (b"sleep\x03~d", [b"sleep\x03", Wish.LEAVE]),
        (b"ls ~d", [b"ls ~d"]),
        (b"cd ~/d\r", [b"cd ~/d\r"]),
        (b"~/bin/x\r", [b"~/bin/x\r"]),
        (b"~~d\r", [b"~d\r"]),
        (b"~~~d", [b"~~d"]),
        (b"~?", [Wish.HELP]),
        (b"~?~d", [Wish.HELP, Wish.LEAVE]),
        (b"~\r~d", [b"~\r", Wish.LEAVE]),
        (b"\x1b[1~d", [b"\x1b[1~d"]),  # the Home key
        (b"~x~d", [b"~x~d"]),
        (b"\x1b[200~\r~d\r~~~\x1b[201~", [b"\x1b[200~\r~d\r~~~\x1b[201~"]),
        (b"\x1b[200~a\r\x1b[201~\r~d", [b"\x1b[200~a\r\x1b[201~\r", Wish.LEAVE]),
    ],
)
def test_a_tilde_counts_at_the_start_of_a_line(keys, expected):
    assert typed(keys) == expected
    assert typed(*(bytes((key,)) for key in keys)) == expected


def test_a_tilde_alone_waits_for_the_next_key():
    keys = Keys()
    assert list(keys.feed(b"\r~")) == [b"\r"]
    assert list(keys.feed(b"a")) == [b"~a"]


@given(st.lists(st.binary(min_size=1, max_size=6), max_size=20))
def test_keys_without_a_tilde_reach_the_job_unchanged(parts):
    plain = [part.replace(b"~", b"-") for part in parts]
    assert b"".join(typed(*plain)) == b"".join(plain)


@given(st.binary(max_size=40))
def test_how_keys_are_cut_makes_no_difference(keys):
    assert typed(keys) == typed(*(bytes((key,)) for key in keys))
