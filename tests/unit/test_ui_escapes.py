"""What of a job's output a terminal gets to see, and what never reaches it."""

import itertools
import re
import time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from rdev.client.ui.escapes import EscapeFilter, Passing


def shown(data, passing=Passing.PLAIN):
    kept = EscapeFilter(passing)
    return kept.feed(data) + kept.flush()


@pytest.mark.parametrize(
    "string",
    [
        b"\x1b]0;title\x07",
        b"\x1b]2;\xe2\x9c\x93 title\x1b\\",
        b"\x1b]52;c;cm0gLXJmIC8=\x07",
        b"\x1b]8;;http://elsewhere\x1b\\",
        b"\x1b]11;?\x1b\\",
        b"\x1bPq#0;2;0;0;0\nsixel\x1b\\",
        b"\x1b_Ga=q;AAAA\x1b\\",
        b"\x1b^private\x1b\\",
        b"\x1bXstart of string\x1b\\",
        b"\x1bkscreen title\x1b\\",
        b"\x9d0;title\x9c",
        b"\x9d0;title\x07",
        b"\x90$q\x9c",
        b"\xc2\x9d0;title\xc2\x9c",
        b"\xc2\x9f apc \x1b\\",
        b"\x9b31m",
        b"\xc2\x9b6n",
        b"\x1b]0;given up by CAN\x18",
    ],
)
@pytest.mark.parametrize("passing", list(Passing))
def test_strings_and_c1_sequences_never_reach_a_terminal(string, passing):
    assert shown(b"a" + string + b"b", passing) == b"ab"


COLOURS = b"\x1b[1;31mred\x1b[0m \x1b[38;2;1;2;3mtrue\x1b[m \x1b[4:3mcurly\x1b[m"
MOVES = b"\x1b[2K\x1b[A\x1b[10;3H\x1b[s\x1b[u\x1b7\x1b8\x1b[?25l\x1b[?25h\x1b(0lqk\x1b(B"


@pytest.mark.parametrize("passing", sorted(set(Passing) - {Passing.LINE}, key=str))
@pytest.mark.parametrize("data", [COLOURS, MOVES, b"plain\r\n\ttext\x07\x08", b"", b"\x00\x7f"])
def test_colours_and_cursor_movement_pass(data, passing):
    assert shown(data, passing) == data


def test_one_of_several_outputs_stays_in_its_line():
    assert (
        shown(COLOURS + b"\x1b[K\x1b[A\x1b[5;5H\x1b7\x1b[?25l", Passing.LINE) == COLOURS + b"\x1b[K"
    )


QUESTIONS = [b"\x1b[6n", b"\x1b[?6n", b"\x1b[c", b"\x1b[>0c", b"\x1b[=c", b"\x1b[?2026$p", b"\x1b[4$p",
             b"\x1b[>q", b"\x1b[?u", b"\x1b[21t", b"\x1b[x", b"\x1bZ", b"\x05", b"\x1b[1$w", b"\x9a",
             b"\xc2\x9a", b"\x1b[?1;1;0S"]  # fmt: skip


@pytest.mark.parametrize("question", QUESTIONS)
def test_questions_reach_only_a_terminal_whose_program_waits_for_the_answer(question):
    text = b"a" + question + b"b"
    assert shown(text, Passing.PLAIN) == b"ab"
    assert shown(text, Passing.REPLAY) == b"ab"
    assert shown(text, Passing.PROGRAM) == text


@pytest.mark.parametrize(
    "mode",
    [b"\x1b[?1000h", b"\x1b[?1049h", b"\x1b[?2004h", b"\x1bc", b"\x1b=", b"\x1b[5i", b"\x1b[!p"],
)
def test_modes_that_would_outlive_the_job_are_for_programs_only(mode):
    assert shown(mode) == b""
    assert shown(mode, Passing.PROGRAM) == mode
    assert shown(mode, Passing.REPLAY) == mode


@pytest.mark.parametrize(
    ("data", "rest"),
    [
        (b"\x1b]0;no end\nnext line\n", b"\nnext line\n"),
        (b"\x9d0;no end\nnext", b"\nnext"),
        (b"\x1b]0;broken off\x1b[31mred", b"\x1b[31mred"),
        (b"\x1b]0;one\x1b]0;two\x07rest", b"rest"),
        (b"\x1bPno end" + b"x" * (64 << 10) + b"rest", b"rest"),
        (b"\x1b[3\n1m", b"\n1m"),
        (b"\xc2\x1b]\x07\x9b\n6n", b"\xc2\n6n"),
        (b"\x1b[" + b"1;" * 100 + b"\nrest", b"\nrest"),
        (b"\x1b", b""),
        (b"\x1b[31", b""),
        (b"\x1b]0;never ended", b""),
        (b"a\xc2", b"a\xc2"),
        (b"a\xe2", b"a\xe2"),
    ],
)
def test_what_is_unfinished_or_broken_hides_little(data, rest):
    found = shown(data)
    assert found.endswith(rest)
    assert len(found) <= len(rest) + 8


def test_a_dcs_without_an_end_is_given_up_however_it_comes():
    kept = EscapeFilter()
    text = b"\x1bP" + b"line\n" * 20_000
    assert b"line\n" in b"".join(kept.feed(text[i : i + 7]) for i in range(0, len(text), 7))


PIECES = st.one_of(
    st.binary(max_size=12),
    st.text(max_size=8).map(str.encode),
    st.sampled_from(
        [b"\x1b", b"\x1b[", b"\x1b]", b"\x1bP", b"\x1b\\", b"\x07", b"\n", b"\r", b"31m", b"6n", b"\xc2",
         b"\xe2\x96", b"\x9d", b"\x9c", b"\x9b", b"?25l", b"0;t", b";", b"\x18", "█▏".encode()]
    ),
)  # fmt: skip
OUTPUTS = st.lists(PIECES, max_size=20).map(b"".join)


@given(OUTPUTS, st.lists(st.integers(0, 200), max_size=6), st.sampled_from(list(Passing)))
@example(b"\xe2\x96\x88\xf0\x9f\x98\x80", [1, 2, 4, 5, 6], Passing.PLAIN)
@example(b"a\xc2\x9d0;t\xc2\x9cb", [2, 8], Passing.PLAIN)
@example(b"\x1b]0;t\x1b\\b", [1, 2, 6, 7], Passing.PLAIN)
def test_how_an_output_is_cut_makes_no_difference(data, cuts, passing):
    kept = EscapeFilter(passing)
    edges = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    parts = [kept.feed(data[a:b]) for a, b in itertools.pairwise(edges)]
    assert b"".join(parts) + kept.flush() == shown(data, passing)


FORBIDDEN = re.compile(
    rb"\x1b[\]PX^_kZ]|\x1b\[[0-?]*[ -/]*[ctnqi]|\x05|\xc2[\x90\x98\x9b\x9d-\x9f]"
)


@given(OUTPUTS)
def test_nothing_that_a_terminal_would_obey_slips_through(data):
    assert not FORBIDDEN.search(shown(data))


@given(OUTPUTS, st.sampled_from(list(Passing)))
def test_filtering_once_more_changes_nothing(data, passing):
    once = shown(data, passing)
    assert shown(once, passing) == once


@given(st.binary(max_size=200).map(lambda data: re.sub(rb"[\x05\x1b\x80-\x9f]", b"", data)))
def test_bytes_that_are_no_controls_survive_whatever_their_encoding(data):
    assert shown(data) == data


@given(st.text(st.characters(exclude_categories=("Cc", "Cs")), max_size=100))
def test_text_in_utf8_survives(text):
    assert shown(text.encode()) == text.encode()


@pytest.mark.slow
@pytest.mark.parametrize(
    "unit",
    [
        b"\x1b[31mloss 0.1\x1b[0m\n",
        b"\x1b",
        b"\x1b]",
        b"\xe2\x96\x88",
        b"\x1bP\x1b",
        b"\x9b1",
        b"\xc2",
    ],
)
def test_the_cost_grows_with_the_length_and_not_faster(unit):
    def cost(size):
        data = unit * (size // len(unit))
        begun = time.process_time()
        kept = EscapeFilter()
        for start in range(0, len(data), 1 << 16):
            kept.feed(data[start : start + (1 << 16)])
        return time.process_time() - begun

    cost(1 << 16)
    assert cost(1 << 20) < 32 * max(cost(1 << 17), 0.02)
