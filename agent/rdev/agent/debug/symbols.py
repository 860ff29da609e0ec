"""Where functions of a running process are: its memory map, and the symbols of the files in it."""

from __future__ import annotations

import mmap
import os
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

# <elf.h>, 64 bits, little endian.
_MAGIC = b"\x7fELF\x02\x01"
_HEADER = struct.Struct("<16xHHIQQQIHHHHHH")
_PROGRAM = struct.Struct("<IIQQQQQQ")
_SECTION = struct.Struct("<IIQQQQIIQQ")
_SYMBOL = struct.Struct("<IBBHQQ")
_LOAD = 1  # PT_LOAD
_DYNAMIC_SYMBOLS = 11  # SHT_DYNSYM


@dataclass(frozen=True, slots=True)
class Mapped:
    """A file that a process has mapped.

    Attributes:
        path: As the process sees it.
        start: Where its first byte is.
        is_deleted: The file is not there any more, or is another by now.
    """

    path: str
    start: int
    is_deleted: bool = False


def mapped(maps: str) -> list[Mapped]:
    """The files in a process's memory map, see proc(5); each once.

    Args:
        maps: The text of `/proc/PID/maps`.
    """
    found: dict[str, Mapped] = {}
    for line in maps.splitlines():
        words = line.split(maxsplit=5)
        if len(words) < 6 or not words[5].startswith("/") or int(words[2], 16):
            continue
        path = words[5].removesuffix(" (deleted)")
        start = int(words[0].partition("-")[0], 16)
        found.setdefault(path, Mapped(path, start, words[5].endswith(" (deleted)")))
    return list(found.values())


def addresses(file: str, start: int, names: Sequence[str]) -> dict[str, int]:
    """Where functions are in a process that has mapped an ELF file.

    Args:
        file: Path of the file.
        start: Where its first byte is in the process.
        names: Of the functions.

    Returns:
        The address of each name that the file exports.

    Raises:
        ValueError: It is no ELF file of 64 bits.
        OSError: It cannot be read.
    """
    with (
        open(file, "rb") as opened,
        mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as content,
    ):
        if content[:6] != _MAGIC:
            raise ValueError(f"{file} is no program of 64 bits")
        bias = start - _first_address(content)
        wanted = set(names)
        return {name: value + bias for name, value in _exported(content) if name in wanted}


def _first_address(content: mmap.mmap) -> int:
    header = _HEADER.unpack_from(content)
    table, size, count = header[4], header[8], header[9]
    for number in range(count):
        kind, _, offset, address, *_ = _PROGRAM.unpack_from(content, table + number * size)
        if kind == _LOAD:
            return int(address - offset) & -os.sysconf("SC_PAGESIZE")
    raise ValueError("it has nothing to load")


def _exported(content: mmap.mmap) -> Iterator[tuple[str, int]]:
    header = _HEADER.unpack_from(content)
    table, size, count = header[5], header[10], header[11]
    sections = [_SECTION.unpack_from(content, table + i * size) for i in range(count)]
    for _, kind, _, _, offset, length, link, *_ in sections:
        if kind != _DYNAMIC_SYMBOLS:
            continue
        names = sections[link][4]
        for place in range(offset, offset + length, _SYMBOL.size):
            name, _, _, section, value, _ = _SYMBOL.unpack_from(content, place)
            if not section or not value:  # it is another file's
                continue
            begin = names + name
            end = content.find(b"\0", begin)
            yield content[begin:end].decode("ascii", "replace"), value
