"""Bytes that are kept until the other end has them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rdev.protocol.resend import Unacknowledged


@given(
    st.lists(st.binary(max_size=20), max_size=12),
    st.integers(0, 240),
    st.integers(1, 30),
)
def test_whatever_was_received_the_rest_is_read_on_from_there(pieces, received, most):
    kept = Unacknowledged()
    for piece in pieces:
        kept.append(piece)
    stream = b"".join(pieces)
    received = min(received, len(stream))
    kept.acknowledge(received)
    assert (kept.begin, kept.end, len(kept)) == (received, len(stream), len(stream) - received)
    read, place = b"", received
    while data := kept.since(place, most):
        assert len(data) <= most
        read, place = read + data, place + len(data)
    assert read == stream[received:]


def test_nobody_can_have_what_was_never_sent_nor_ask_for_what_is_forgotten():
    kept = Unacknowledged()
    kept.append(b"abc")
    with pytest.raises(ValueError, match="cannot have been received"):
        kept.acknowledge(4)
    kept.acknowledge(2)
    kept.acknowledge(1)  # an older word that comes late
    assert kept.since(2, 9) == b"c"
    for gone in (0, 1, 4):
        with pytest.raises(ValueError, match="are kept"):
            kept.since(gone, 9)
