"""Which keys are rdev's and which the job's."""

import itertools
from itertools import groupby

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rdev.client.keys import Keys, Wish, detach_keys


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


@pytest.mark.parametrize(
    ("word", "keys"),
    [
        ("ctrl-p,ctrl-q", b"\x10\x11"),
        ("CTRL-A,d", b"\x01d"),
        ("ctrl-@", b"\x00"),
        ("ctrl-],ctrl-_,~", b"\x1d\x1f~"),
    ],
)
def test_keys_to_detach_are_written_as_in_docker(word, keys):
    assert detach_keys(word) == keys


@pytest.mark.parametrize(
    "word", ["", ",", "ctrl-", "ctrl-1", "ctrl-pq", "a,", "pq", "ctrl-\u00e9", "\t"]
)
def test_what_names_no_key_is_refused(word):
    with pytest.raises(ValueError, match="is no key"):
        detach_keys(word)


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        ([b"a\x10\x11"], [b"a", Wish.LEAVE]),
        ([b"a\x10", b"\x11"], [b"a", Wish.LEAVE]),
        ([b"\x10"], []),
        ([b"\x10", b"b"], [b"\x10b"]),
        ([b"\x10\x10\x11"], [b"\x10", Wish.LEAVE]),
        ([b"\x11\x10x\x11"], [b"\x11\x10x\x11"]),
        ([b"\r~d"], [b"\r", Wish.LEAVE]),
        ([b"\x1b[200~\x10\x11\x1b[201~"], [b"\x1b[200~\x10\x11\x1b[201~"]),
    ],
)
def test_chosen_keys_detach_and_their_beginnings_are_the_jobs(parts, expected):
    keys, found = Keys(b"\x10\x11"), []
    for part in parts:
        found += keys.feed(part)
    assert [
        b"".join(run) if kind is bytes else Wish.LEAVE for kind, run in groupby(found, type)
    ] == expected


@given(st.lists(st.sampled_from([b"a", b"b", b"ab", b"aab"]), max_size=20).map(b"".join))
def test_chosen_keys_are_found_wherever_they_stand(typed):
    found = list(Keys(b"aab").feed(typed))
    before, chosen, _ = typed.partition(b"aab")
    shown = b"".join(iter_until_leave(found))
    assert (Wish.LEAVE in found) == bool(chosen)
    assert before.startswith(shown)
    assert not chosen or shown == before


def iter_until_leave(found):
    return itertools.takewhile(lambda item: item is not Wish.LEAVE, found)
