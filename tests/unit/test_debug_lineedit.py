"""Editing a line at the debugger's prompt."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rdev.client.debug.lineedit import LineEditor, Typed, width


def typed(keys: bytes, history=()) -> LineEditor:
    editor = LineEditor(history)
    editor.take(keys)
    while editor.step() is not None:
        pass
    return editor


@pytest.mark.parametrize(
    ("keys", "text", "cursor"),
    [
        (b"p loss", "p loss", 6),
        (b"p los\x1b[D\x1b[Dx", "p lxos", 4),
        (b"loss\x01p \x05!", "p loss!", 7),
        (b"one two\x17three", "one three", 9),
        (b"one two\x15x\x19", "xone two", 8),
        (b"one two\x1bb\x0b", "one ", 4),
        (b"ab\x7f\x7f\x7fc", "c", 1),
        (b"ab\x01\x04", "b", 0),
        (b"one two\x01\x1bd", "two", 0),
        ("é漢".encode() + b"\x1b[D", "é漢", 1),
        (b"a\x00\x1b[99~b", "ab", 2),
        (b"a\x1b[1;5Db", "ba", 1),
    ],
)
def test_keys_edit_as_in_a_shell(keys, text, cursor):
    editor = typed(keys)
    assert (editor.text, editor.cursor) == (text, cursor)


def test_a_key_may_arrive_in_pieces():
    editor = LineEditor()
    for byte in "a漢\x1b[Db".encode():
        editor.take(bytes([byte]))
        editor.step()
    assert editor.text == "ab漢"


def test_lines_end_and_what_follows_waits_for_the_next():
    editor = LineEditor()
    editor.take(b"n\nc\r")
    assert editor.step() is Typed.LINE
    assert editor.text == "n"
    editor.begin()
    assert editor.step() is Typed.LINE
    assert editor.text == "c"


def test_the_arrows_recall_earlier_lines_and_return_to_the_one_begun():
    editor = typed(b"ne\x1b[A\x1b[A\x1b[A", ["n", "p loss"])
    assert editor.text == "n"
    editor.take(b"\x1b[B\x1b[B")
    editor.step()
    assert editor.text == "ne"


def test_the_same_line_twice_is_remembered_once():
    editor = typed(b"n")
    editor.begin()
    editor.take(b"n")
    editor.step()
    editor.begin()
    editor.take(b"\x10\x10")
    editor.step()
    assert editor.text == "n"


def test_the_end_is_ctrl_d_on_an_empty_line():
    editor = LineEditor()
    editor.take(b"\x04")
    assert editor.step() is Typed.END
    editor.take(b"\x03")
    assert editor.step() is Typed.INTERRUPT


@given(st.text(max_size=200), st.integers(1, 120), st.lists(st.sampled_from([b"\x1b[D", b"\x01"])))
def test_what_is_shown_fits_the_terminal_and_holds_the_cursor(text, columns, keys):
    editor = LineEditor()
    editor.insert("".join(letter for letter in text if letter.isprintable()))
    for key in keys:
        editor.take(key)
    editor.step()
    view = editor.view("(rdev) ", columns)
    assert width(view.text) <= max(columns, 16)
    assert width("(rdev) ") <= view.column <= width(view.text)


@given(st.binary(max_size=60))
def test_no_bytes_however_odd_break_it(data):
    editor = typed(data)
    assert 0 <= editor.cursor <= len(editor.text)


def test_what_was_typed_ahead_can_be_dropped():
    editor = LineEditor()
    editor.take(b"n\nhalf")
    editor.forget()
    assert editor.step() is None
    assert editor.text == ""
