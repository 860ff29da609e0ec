"""Which line of the job is which line of the editor."""

from __future__ import annotations

import time

from hypothesis import given, settings
from hypothesis import strategies as st

from rdev.client.debug.mapping import Counterpart, Kinship, LineMap, lines_of

TRAIN = ["import os", "", "def train():", "    for step in steps:", "        loss = f(step)", ""]


def test_three_lines_put_in_above_move_all_that_follow():
    lines = LineMap(TRAIN, ["# a", "# b", "# c", *TRAIN])
    assert lines.to_job(8) == Counterpart(5, Kinship.SAME)
    assert lines.to_editor(5) == Counterpart(8, Kinship.SAME)
    assert not lines.to_job(2).is_there
    assert lines.edits == 1


def test_a_line_that_was_taken_out_has_no_counterpart():
    lines = LineMap(TRAIN, [*TRAIN[:3], *TRAIN[4:]])
    assert not lines.to_editor(4).is_there
    assert lines.to_editor(5) == Counterpart(4, Kinship.SAME)


def test_a_line_whose_number_was_changed_is_the_same_line():
    lines = LineMap(TRAIN, [*TRAIN[:4], "        loss = f(step, 2)", TRAIN[5]])
    assert lines.to_job(5) == Counterpart(5, Kinship.EDITED)
    assert lines.to_editor(5) == Counterpart(5, Kinship.EDITED)
    assert lines.edits == 1


def test_a_line_that_was_replaced_by_another_is_another():
    lines = LineMap(TRAIN, [*TRAIN[:4], "        raise SystemExit", TRAIN[5]])
    assert not lines.to_job(5).is_there


def test_another_text_is_not_recognized():
    assert not LineMap(TRAIN, ["a", "b", "c", "d"]).is_recognizable
    assert LineMap(TRAIN, ["a", *TRAIN, "b"]).is_recognizable
    assert LineMap([], []).is_recognizable


def test_lines_are_counted_as_python_counts_them():
    assert lines_of(b"a\r\nb\rc\x0cd\n\ne") == ["a", "b", "c\x0cd", "", "e"]
    assert lines_of(b"\xef\xbb\xbfa\n") == ["a"]
    assert lines_of(b"") == []


def test_a_long_file_that_was_rewritten_is_mapped_in_time():
    old = [line for n in range(4000) for line in (f"x{n} = {n}", "", "else:")]
    new = [line for n in range(4000) for line in (f"x{n + 7} = {n}", "", "else:")]
    begun = time.monotonic()
    lines = LineMap(old, new)
    assert time.monotonic() - begun < 5
    assert lines.to_job(1).line >= 1


words = st.sampled_from(["", "    x = 1", "else:", "for i in y:", "        z += i", "return z"])
texts = st.lists(words, max_size=30)


@given(texts, st.data())
def test_a_line_that_no_edit_touched_maps_to_and_fro(job, data):
    # Each kept line is marked, so that it is known which one it is among equal ones.
    marked = [f"{line}  # {number}" for number, line in enumerate(job)]
    editor: list[str] = []
    for line in marked:
        editor += data.draw(st.lists(words, max_size=2), label="put in before")
        if data.draw(st.booleans(), label="kept"):
            editor.append(line)
    lines = LineMap(marked, editor)
    for number, line in enumerate(editor, 1):
        if line in marked:
            there = lines.to_job(number)
            assert there == Counterpart(marked.index(line) + 1, Kinship.SAME)
            assert lines.to_editor(there.line).line == number


@given(texts, texts, st.integers(1, 40))
@settings(max_examples=300)
def test_what_is_mapped_comes_back_and_never_leaves_the_file(job, editor, line):
    lines = LineMap(job, editor)
    there = lines.to_job(line)
    assert 1 <= there.line <= max(1, len(job))
    if there.is_there:
        assert line <= len(editor)
        assert lines.to_editor(there.line) == Counterpart(line, there.kinship)
    if there.kinship is Kinship.SAME:
        assert job[there.line - 1] == editor[line - 1]


@given(texts, texts)
def test_mapped_lines_keep_their_order(job, editor):
    lines = LineMap(job, editor)
    there = [lines.to_job(n) for n in range(1, len(editor) + 1)]
    mapped = [found.line for found in there if found.is_there]
    assert mapped == sorted(set(mapped))
