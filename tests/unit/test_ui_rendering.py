"""Output on a terminal that several ranks share, and with labels in a file."""

import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rdev.client.logs import Chunk
from rdev.client.ui.rendering import Labelled, Lines, Raw, Screen, rank_label, time_label


def chunk(data, rank=0, stream="stdout", at=1.0):
    return Chunk(rank, stream, 0, data, at)


def ranks(columns=80):
    return Labelled(
        rank_label(is_coloured=False), columns=None if columns is None else lambda: columns
    )


def screen(data):
    """The lines that a terminal of any width shows, and the one that the cursor is in."""
    lines, column = [""], 0
    for part in re.findall(rb"\x1b\[[0-9;]*[mK]|\r|\n|[^\x1b\r\n]+|\x1b", data):
        if part == b"\r":
            column = 0
        elif part == b"\n":
            lines.append("")
            column = 0
        elif part == b"\x1b[K":
            lines[-1] = lines[-1][:column]
        elif not part.startswith(b"\x1b["):
            text = part.decode(errors="replace")
            lines[-1] = lines[-1][:column].ljust(column) + text + lines[-1][column + len(text) :]
            column += len(text)
    return lines


def test_raw_output_is_every_byte():
    data = b"\x1b]0;t\x07\r\xff\n"
    assert Raw().feed(chunk(data)) == data


def test_a_screen_is_filtered_and_folded_for_each_output():
    shown = Screen()
    assert shown.feed(chunk(b"\x1b]0;ti")) == b""
    assert shown.feed(chunk(b"err\n", stream="stderr")) == b"err\n"
    assert shown.feed(chunk(b"tle\x07 1%\r 2%\r 3%")) == b" 3%"
    assert shown.feed(chunk(b"\x1b[?25l")) == b"\x1b[?25l"
    assert shown.end() == b"\x1b[?25h", "the cursor is given back"


def test_lines_of_ranks_come_whole_with_their_labels():
    shown = ranks()
    text = b"".join(
        shown.feed(part)
        for part in (
            chunk(b"a0 ", 0),
            chunk(b"b1\n", 1),
            chunk(b"c0\nd0\n", 0),
            chunk(b"nccl\n", 0, "launcher"),
        )
    )
    assert text.decode().splitlines() == [
        "[rank 1] b1",
        "[rank 0] a0 c0",
        "[rank 0] d0",
        "[launcher] nccl",
    ]


def test_a_line_that_does_not_end_is_shown_after_a_while_and_stays_below():
    shown = ranks()
    assert shown.feed(chunk(b"loading...")) == b""
    assert shown.is_waiting
    text = shown.settle()
    assert screen(text) == ["[rank 0] loading..."]
    assert not shown.is_waiting
    text += shown.feed(chunk(b"other\n", 1))
    assert screen(text) == ["[rank 1] other", "[rank 0] loading..."]
    text += shown.feed(chunk(b" done\n"))
    assert screen(text) == ["[rank 1] other", "[rank 0] loading... done", ""]


def test_bars_of_two_ranks_do_not_garble_each_other():
    shown, text = ranks(), b""
    for step in range(50):
        text += shown.feed(chunk(b"\r%d%% of mine" % step, step % 2))
        if step % 7 == 0:
            text += shown.settle()
        assert len(screen(text)) == 1
    text += shown.feed(chunk(b"\n", 1))
    text += shown.end()
    assert screen(text) == ["[rank 1] 49% of mine", "[rank 0] 48% of mine", ""]


def test_a_bar_wider_than_the_terminal_takes_one_row():
    shown = ranks(columns=20)
    shown.feed(chunk("\x1b[31m█████████████████\x1b[m".encode()))
    (row,) = screen(shown.settle())
    assert row == "[rank 0] ██████████"


def test_what_never_ended_is_shown_at_the_end():
    shown = ranks()
    shown.feed(chunk(b"\x1b[31mno newline"))
    assert screen(shown.end()) == ["[rank 0] no newline", ""]
    assert shown.end() == b""


def test_a_very_long_line_is_shown_in_parts_on_a_terminal():
    shown = ranks()
    text = shown.feed(chunk(b"x" * (200 << 10))) + shown.end()
    assert text.replace(b"\n", b"").replace(b"[rank 0] ", b"") == b"x" * (200 << 10)


def test_keras_goes_back_by_backspaces():
    shown = ranks()
    text = shown.feed(chunk(b"1/9\b\b\b\b\b\b\b\b\b\b\b\b\b\r2/9\b\b\b\b\b\b\b\b\r3/9\n"))
    assert screen(text) == ["[rank 0] 3/9", ""]


def test_labels_have_a_colour_for_each_rank():
    label = rank_label(is_coloured=True)
    labels = {label(rank, "stdout", 0.0) for rank in range(6)} | {label(0, "launcher", 0.0)}
    assert len(labels) == 7
    assert label(1, "stderr", 0.0) == label(7, "stdout", 0.0).replace(b"rank 7", b"rank 1")


def test_a_file_with_labels_keeps_every_byte_of_its_lines():
    shown = ranks(columns=None)
    text = shown.feed(chunk(b"\x1b]0;t\x07 1%\r 2%\nno end"))
    assert text == b"[rank 0] \x1b]0;t\x07 1%\r 2%\n"
    assert not shown.is_waiting
    assert shown.end() == b"[rank 0] no end"


def test_a_line_has_the_time_of_its_first_byte(monkeypatch):
    shown = Labelled(time_label, columns=None)
    shown.feed(chunk(b"begun ", at=1795356185.1234))
    text = shown.feed(chunk(b"ended\nnext\n", at=1795356190.5))
    stamps = [line.split()[0].decode() for line in text.splitlines()]
    assert [stamp[-6:] for stamp in stamps] == ["05.123", "10.500"]
    assert re.fullmatch(r"2026-11-2\dT\d\d:\d\d:\d\d\.\d{3}", stamps[0])


PARTS = st.lists(
    st.tuples(
        st.integers(0, 2),
        st.sampled_from([b"a", b"bc ", b"\n", b"\n", b"\r", b"\x1b[31m", "█".encode(), b"\x1b[A"]),
        st.booleans(),
    ),
    max_size=40,
)


@given(PARTS)
def test_every_line_of_every_rank_is_shown_once_and_in_order(parts):
    shown, text, wanted = ranks(), b"", {0: b"", 1: b"", 2: b""}
    for rank, data, settles in parts:
        text += shown.feed(chunk(data, rank))
        wanted[rank] += data
        if settles:
            text += shown.settle()
    text += shown.end()
    lines = screen(text)
    assert lines[-1] == ""
    for rank, said in wanted.items():
        data = said.replace(b"\x1b[A", b"")
        if not data.endswith(b"\n") and re.sub(rb"\x1b\[31m", b"", data.rsplit(b"\n", 1)[-1]):
            data = data + b"\n"
        label = f"[rank {rank}] "
        mine = [line.removeprefix(label).rstrip() for line in lines if line.startswith(label)]
        mine = [line for line in mine if line]
        assert mine == [line.rstrip() for line in screen(data) if line.strip()]


@pytest.mark.parametrize("size", [1, 3])
def test_how_chunks_are_cut_makes_no_difference_to_lines(size):
    data = b"one\ntwo\r\nthr\xc3\xa9e\n\n\x1b[31mred\x1b[m\n"
    shown = ranks()
    parts = [data[i : i + size] for i in range(0, len(data), size)]
    text = b"".join(shown.feed(chunk(part)) for part in parts)
    assert screen(text) == screen(ranks().feed(chunk(data)))


def test_ranks_that_share_a_file_take_turns_by_whole_lines():
    shown = Lines()
    assert shown.feed(chunk(b"sum ", rank=0)) == b""
    assert shown.feed(chunk(b"hello\nsu", rank=1)) == b"hello\n"
    assert shown.feed(chunk(b"1.0\n", rank=0)) == b"sum 1.0\n"
    assert shown.end() == b"su", "a line without an end comes at the end"
    assert shown.end() == b""


@given(st.lists(st.tuples(st.integers(0, 2), st.binary(max_size=40)), max_size=30))
def test_no_byte_of_a_rank_is_lost_or_changed_in_a_shared_file(parts):
    shown, written, apart = Lines(), {0: b"", 1: b"", 2: b""}, {0: b"", 1: b"", 2: b""}
    for rank, data in parts:
        apart[rank] += data
        written[rank] += shown.feed(chunk(data, rank=rank))
    left = shown.end()
    for rank, data in apart.items():
        assert data.startswith(written[rank])
        assert data[len(written[rank]) :] in left
    assert len(left) == sum(len(apart[rank]) - len(written[rank]) for rank in apart)


def test_bytes_without_lines_go_on_in_a_shared_file():
    shown = Lines()
    assert shown.feed(chunk(b"x" * 100_000)) == b"x" * 100_000


@pytest.mark.parametrize("columns", [None, 80])
@pytest.mark.parametrize("update", [b"\r%d%% of the epoch is done", b"%d, "])
def test_sixty_thousand_updates_of_a_line_cost_no_square(columns, update):
    # Well under a second; joining the whole line anew for each update took more than a minute.
    shown, begun = ranks(columns), time.process_time()
    for step in range(60_000):
        shown.feed(chunk(update % step))
    text = shown.end()
    assert time.process_time() - begun < 10
    assert (update % 59_999).strip() in text


def test_a_bar_in_a_file_keeps_every_state():
    shown, states = ranks(columns=None), [b"\r%d%%" % step for step in range(5000)]
    assert b"".join(shown.feed(chunk(state)) for state in states) == b""
    assert shown.feed(chunk(b"\n")) == b"[rank 0] " + b"".join(states) + b"\n"


@pytest.mark.parametrize(
    ("written", "row"),
    [
        (b"ring\x07 the \x0bbell\x0c", "[rank 0] ring the bell"),
        (b"a\tb", "[rank 0] a      b"),
        (b"\x1b[31ma\x1b[m\tb", "[rank 0] a      b"),
        (b"at |\b/\b-", "[rank 0] at -"),
        (b"10%\b\b\b11%\b\b", "[rank 0] 11%"),
        (b"next\xc2\x85line", "[rank 0] nextline"),
    ],
)
def test_an_unfinished_line_does_nothing_but_stand_there(written, row):
    shown = ranks()
    shown.feed(chunk(written))
    text = shown.settle() + shown.feed(chunk(b"other\n", 1)) + shown.settle()
    assert screen(text) == ["[rank 1] other", row]
    assert not re.search(rb"[\x00-\x09\x0b\x0c\x0e-\x1a\x1c-\x1f\x7f]|\xc2\x85", text)


def test_a_line_with_tabs_takes_one_row_of_a_narrow_terminal():
    shown = ranks(columns=20)
    shown.feed(chunk(b"1\t2\t3\t4"))
    (row,) = screen(shown.settle())
    assert row == "[rank 0] 1      2  "
