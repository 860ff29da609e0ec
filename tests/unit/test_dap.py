"""The DAP framing: any cut of the bytes gives the same messages; garbage is refused."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rdev.protocol.dap import MAX_BODY, MAX_HEADER, DapError, Framer, encode

messages = st.lists(
    st.dictionaries(st.text(), st.none() | st.integers() | st.text() | st.lists(st.text())),
    max_size=6,
)


@given(messages, st.lists(st.integers(min_value=1, max_value=40), max_size=60))
def test_messages_survive_any_cut_of_the_stream(sent, cuts):
    stream = b"".join(map(encode, sent))
    framer, received, at = Framer(), [], 0
    for size in cuts:
        received += framer.feed(stream[at : at + size])
        at += size
    received += framer.feed(stream[at:])
    assert received == sent


@given(st.binary(max_size=300))
def test_garbage_is_refused_or_waited_for_and_nothing_else_escapes(data):
    with contextlib.suppress(DapError):
        Framer().feed(data)


def test_other_header_fields_and_any_case_are_accepted():
    body = b'{"a":1}'
    stream = b"content-length: 7\r\nContent-Type: application/vscode-jsonrpc\r\n\r\n" + body
    assert Framer().feed(stream) == [{"a": 1}]


def test_the_length_counts_bytes_not_characters():
    [message] = Framer().feed(b'Content-Length: 10\r\n\r\n{"a":"\xc3\xa9"}')
    assert message == {"a": "é"}


@pytest.mark.parametrize(
    "stream",
    [
        b"Content-Length: x\r\n\r\n",
        b"Content-Length: -1\r\n\r\n",
        b"Content-Length: 99999999999999\r\n\r\n",
        b"Content-Length: %d\r\n\r\n" % (MAX_BODY + 1),
        b"Host: example\r\n\r\n",
        b"Content-Length: 2\r\n\r\n[]",
        b"Content-Length: 2\r\n\r\n{]",
        b"x" * (MAX_HEADER + 1),
    ],
)
def test_a_broken_header_or_body_is_an_error(stream):
    with pytest.raises(DapError):
        Framer().feed(stream)
