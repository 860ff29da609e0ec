"""Messages of a log put together and taken apart around their bytes, which are copied once a side.

A TailLogResponse with a chunk is one field, the chunk, whose own fields may come in any order
(https://protobuf.dev/programming-guides/encoding#order); here the data comes last:

    0A length  { rank, stream, offset, time as protobuf has them }  22 length  data

Everything else is left to protobuf.
"""

from __future__ import annotations

from dataclasses import dataclass

from rdev.v1 import log_pb2

# A field's number and wire type 2: a length and so many bytes.
_CHUNK = log_pb2.TailLogResponse.CHUNK_FIELD_NUMBER << 3 | 2
_DATA = log_pb2.LogChunk.DATA_FIELD_NUMBER << 3 | 2

_VARINT, _COUNTED = 0, 2


@dataclass(frozen=True, slots=True)
class Response:
    """A TailLogResponse; a chunk stands for one that holds it.

    Attributes:
        head: The chunk without its data, or the message if it has no chunk.
        data: The chunk's data.
    """

    head: log_pb2.LogChunk | log_pb2.TailLogResponse
    data: bytes = b""


def to_bytes(response: Response) -> bytes:
    """As protobuf would encode the whole."""
    if not isinstance(response.head, log_pb2.LogChunk):
        return response.head.SerializeToString()
    chunk, count = response.head.SerializeToString(), len(response.data)
    head = b"%b%c%b" % (chunk, _DATA, _varint(count))
    return b"".join((b"%c" % _CHUNK, _varint(len(head) + count), head, response.data))


def from_bytes(message: bytes) -> Response:
    """The inverse, of any encoding of a TailLogResponse."""
    head = _head_of(message)
    if head is None:
        whole = log_pb2.TailLogResponse.FromString(message)
        if not whole.HasField("chunk"):
            return Response(whole)
        data = whole.chunk.data
        whole.chunk.ClearField("data")
        return Response(whole.chunk, data)
    first, end = head
    chunk = log_pb2.LogChunk.FromString(message[first:end])
    _count, begin = _read_varint(message, end + 1)
    return Response(chunk, message[begin:])


def _head_of(message: bytes) -> tuple[int, int] | None:
    """Where a chunk's fields lie before its data, if the data is last; else None."""
    try:
        if message[0] != _CHUNK:
            return None
        length, first = _read_varint(message, 1)
        position, end = first, first + length
        while end == len(message) and position < end:
            tag, after = _read_varint(message, position)
            count, after = _read_varint(message, after)
            if tag == _DATA:
                return (first, position) if after + count == end else None
            if tag & 7 not in (_VARINT, _COUNTED):
                return None
            position = after + (count if tag & 7 == _COUNTED else 0)
    except IndexError:  # damaged; protobuf says so
        pass
    return None


def _varint(number: int) -> bytes:
    content = bytearray()
    while number > 0x7F:
        content.append(number & 0x7F | 0x80)
        number >>= 7
    content.append(number)
    return bytes(content)


def _read_varint(message: bytes, position: int) -> tuple[int, int]:
    """The number at a position, and the position after it."""
    number = shift = 0
    while (byte := message[position]) & 0x80:
        number |= (byte & 0x7F) << shift
        position, shift = position + 1, shift + 7
    return number | byte << shift, position + 1
