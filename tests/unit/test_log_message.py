"""Log messages are what protobuf would make of them, whoever encodes them."""

import pytest
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st

from rdev.protocol.log_message import Response, from_bytes, to_bytes
from rdev.v1 import log_pb2

CHUNKS = st.builds(
    log_pb2.LogChunk,
    rank=st.integers(0, 2**31 - 1),
    stream=st.sampled_from(("stdout", "stderr", "")),
    offset=st.integers(0, 2**63),
)
DATA = st.binary(max_size=300) | st.integers(0, 40_000).map(bytes)


@given(CHUNKS, DATA)
def test_a_chunk_is_read_by_protobuf_and_read_back(chunk, data):
    sent = to_bytes(Response(chunk, data))
    read = log_pb2.TailLogResponse.FromString(sent)
    assert read.chunk.data == data
    assert (read.chunk.rank, read.chunk.stream, read.chunk.offset) == (
        chunk.rank,
        chunk.stream,
        chunk.offset,
    )
    back = from_bytes(sent)
    assert (back.head, back.data) == (chunk, data)


@given(CHUNKS, DATA)
def test_what_protobuf_encoded_in_its_own_order_is_read_too(chunk, data):
    chunk.data = data
    chunk.time.seconds = 12345
    back = from_bytes(log_pb2.TailLogResponse(chunk=chunk).SerializeToString())
    assert back.data == data
    assert (back.head.offset, back.head.time.seconds) == (chunk.offset, 12345)


def test_gaps_and_the_end_are_left_to_protobuf():
    gap = log_pb2.TailLogResponse(gap=log_pb2.LogGap(offset=5, length=7, reason="no space"))
    end = log_pb2.TailLogResponse(end=log_pb2.LogEnd())
    for message in (gap, end):
        assert from_bytes(to_bytes(Response(message))) == Response(message)


@given(st.binary(max_size=40))
def test_damage_is_told_by_protobuf_and_by_nothing_else(message):
    try:
        log_pb2.TailLogResponse.FromString(message)
    except DecodeError:
        with pytest.raises(DecodeError):
            from_bytes(message)
    else:
        from_bytes(message)
