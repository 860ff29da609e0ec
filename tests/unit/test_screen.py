"""What is shown again to somebody who returns, and what is undone when somebody leaves."""

import pytest

from rdev.client.replay import replayed
from rdev.client.terminal import Modes, window_of
from rdev.wire.job import Window


def changed_by(*parts: bytes) -> bytes:
    modes = Modes()
    for part in parts:
        modes.feed(part)
    return modes.undoing()


@pytest.mark.parametrize("question", [b"\x05", b"\x1b[c", b"\x1b[6n", b"\x1b]11;?\x07"])
def test_questions_to_the_terminal_are_not_asked_again(question):
    assert replayed(b"a\n" + question + b"b", lines=9, is_whole=True) == b"a\nb"


@pytest.mark.parametrize(
    "kept", [b"\x1b[31mred\x1b[m", b"\x1b[2J\x1b[H", b"\x1b[?1049h", b"\x1b[4;7H", b"\xff\xfe"]
)
def test_colours_and_movements_are_shown_again(kept):
    assert replayed(kept, lines=9, is_whole=True) == kept


def test_only_the_last_lines_are_shown_again():
    recorded = b"".join(b"%d\r\n" % number for number in range(100)) + b"$ "
    assert replayed(recorded, lines=2, is_whole=True) == b"98\r\n99\r\n$ "


def test_a_recording_that_begins_in_the_middle_begins_with_a_whole_line():
    assert replayed(b"1mhalf\r\nwhole\r\n", lines=9, is_whole=False) == b"whole\r\n"


def test_a_full_screen_program_without_lines_begins_with_a_whole_sequence():
    assert replayed(b"1mhalf\x1b[2Jscreen", lines=9, is_whole=False) == b"\x1b[2Jscreen"


def test_nothing_is_undone_after_a_program_that_changed_nothing():
    assert changed_by(b"\x1b[31mplain\x1b[m\r\n") == b""


def test_what_a_program_left_switched_on_is_switched_off():
    undone = changed_by(b"\x1b[?1049h\x1b[?25l\x1b[?1000;1006h\x1b=")
    assert undone.startswith(b"\x1b>")
    for sequence in (b"\x1b[?1006l", b"\x1b[?1000l", b"\x1b[?25h", b"\x1b[?1049l"):
        assert sequence in undone


def test_what_a_program_switched_off_itself_stays_so():
    assert changed_by(b"\x1b[?1049h\x1b[?25l", b"\x1b[?25h\x1b[?1049l") == b""


def test_a_sequence_that_comes_in_two_parts_is_noticed():
    assert b"\x1b[?1049l" in changed_by(b"text\x1b[?10", b"49h")


def test_what_is_no_terminal_has_the_customary_size(tmp_path):
    with open(tmp_path / "file", "w") as file:
        assert window_of(file.fileno()) == Window(24, 80)
