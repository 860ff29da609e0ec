"""Progress bars: what is drawn over is left out, and the screen looks as if it were not."""

import itertools
import re
import time
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rdev.client.ui.folding import Folder, fold_line, width


def screen(data):
    """What a terminal shows: the lines, as far as anything was printed in them."""
    lines, row, column, style = [[]], 0, 0, ""
    for part in _parts(data):
        line = lines[row]
        if part == "\r":
            column = 0
        elif part == "\n":
            lines.append([])
            row, column = row + 1, 0
        elif part == "\x1b[K":
            del line[column:]
        elif part == "\x1b[2K":
            line.clear()
        elif part.startswith("\x1b"):
            style = "" if part == "\x1b[m" else style + part
        else:
            line += [(" ", "")] * (column + 1 - len(line))
            line[column] = (part, style)
            column += 1
    shown = [_stripped(line) for line in lines]
    return shown, column, style


def _stripped(line):
    while line and line[-1] == (" ", ""):
        line.pop()
    return line


def _parts(data):
    text = data.decode()
    position = 0
    while position < len(text):
        end = position + 1
        if text[position] == "\x1b":
            while not text[end].isalpha():
                end += 1
            end += 1
        yield text[position:end]
        position = end


@pytest.mark.parametrize(
    ("line", "folded"),
    [
        (b"a\rb\rc", b"c"),
        (b"long one\rab", b"long one\rab"),
        (b"long one\rab\rabc", b"long one\rabc"),
        (b"long one\rab\x1b[K", b"ab\x1b[K"),
        (b"long one\r\x1b[2Kab\rc", b"\x1b[2Kab\rc"),
        (b"45%\r46%\r", b"46%\r"),
        (b"windows line\r", b"windows line\r"),
        (b"\x1b[31m1\r2\x1b[m\r\x1b[32m3", b"\x1b[m\x1b[32m3"),
        (b"\x1b[31m1\r2\r3", b"\x1b[31m3"),
        (b"one\x1b[Aup\r2\r3", b"one\x1b[Aup\r3"),
        ("45%|███  |\r46%|████▏|".encode(), "46%|████▏|".encode()),
        (b"", b""),
    ],
)
def test_a_line_shows_its_last_state(line, folded):
    assert fold_line(line) == folded


@pytest.mark.parametrize(
    ("text", "columns"),
    [("abc", 3), ("é█▏", 3), ("日本", 4), ("e\u0301", 1), ("\x1b[31mab\x1b[K\x1b[m", 2), ("😀", 2)],
)
def test_how_wide_a_text_is(text, columns):
    assert width(text.encode()) == columns


PIECES = st.sampled_from(
    [
        b"a",
        b"bc",
        b"def ",
        b"\r",
        b"\r",
        b"\n",
        b"\r\n",
        b"\x1b[K",
        b"\x1b[2K",
        b"\x1b[31m",
        b"\x1b[m",
        "█é".encode(),
    ]
)
OUTPUTS = st.lists(PIECES, max_size=25).map(b"".join)


@given(OUTPUTS)
def test_a_folded_line_looks_the_same(data):
    for line in data.split(b"\n"):
        assert screen(fold_line(line)) == screen(line)


@given(OUTPUTS, st.lists(st.integers(0, 60), max_size=5))
def test_a_folded_output_looks_the_same_however_it_is_cut(data, cuts):
    edges = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    parts = [data[a:b] for a, b in itertools.pairwise(edges)]
    folder = Folder()
    try:
        [part.decode() for part in parts]
    except UnicodeDecodeError:
        return  # the filter before it cuts between characters
    if any(re.search(rb"\x1b(\[[0-9]*)?\Z", part) for part in parts):
        return  # and between sequences
    assert screen(b"".join(map(folder.feed, parts))) == screen(data)


def test_a_bar_that_was_redrawn_ten_thousand_times_costs_little():
    bar = "".join(
        f"\r{n / 100:5.1f}%|{'█' * (n // 500):20}| {n}/10000" for n in range(10_001)
    ).encode()
    begun = time.process_time()
    folded = Folder().feed(bar + b"\n")
    assert time.process_time() - begun < 0.5
    assert folded == f"100.0%|{'█' * 20}| 10000/10000\n".encode()


@pytest.mark.parametrize("unit", [b"\r", b"\rab", b"\r\x1b[31m1", b"\r\x1b[A", b"x\r\n", b"\n"])
def test_the_cost_grows_with_the_length_and_not_faster(unit):
    def cost(size):
        data = unit * (size // len(unit))
        begun = time.process_time()
        Folder().feed(data)
        return time.process_time() - begun

    cost(1 << 14)
    assert cost(1 << 18) < 32 * max(cost(1 << 15), 0.02)


def test_whatever_is_wide_in_unicode_takes_two_columns():
    wide = [
        chr(code)
        for code in range(0x1F300)
        if unicodedata.east_asian_width(chr(code)) in "WF"
        and unicodedata.category(chr(code)) not in ("Cn", "Mn")
    ]
    assert not [f"{letter} {ord(letter):x}" for letter in wide if width(letter.encode()) != 2]
    assert width("✓ ok | 10% «é»".encode()) == 14
