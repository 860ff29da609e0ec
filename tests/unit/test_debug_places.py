"""Which file and line a person means, here and on the host."""

from __future__ import annotations

import pytest

from rdev.client.debug.places import Place, Sources, parse_condition, parse_place, split_words
from rdev.client.debug.texts import Texts
from rdev.protocol.errors import UsageError


@pytest.mark.parametrize(
    ("word", "place"),
    [
        ("train.py:42", Place("train.py", 42)),
        ("src/a b/train.py:1", Place("src/a b/train.py", 1)),
        ("/abs/x.pyx:7", Place("/abs/x.pyx", 7)),
        ("train", None),
        ("train:42", None),
        ("train.py", None),
        ("train.py:", None),
        ("train.py:0", None),
        ("train.py:-1", None),
        ("train.py:4x", None),
        ("@-1", None),
        ("", None),
    ],
)
def test_a_word_is_a_place_only_with_a_file_name_and_a_line(word, place):
    assert parse_place(word) == place


def test_the_one_word_that_is_no_place_is_the_job():
    assert split_words(["a.py:1", "train", "b.py:2"]) == (
        "train",
        [Place("a.py", 1), Place("b.py", 2)],
    )
    assert split_words([]) == ("", [])


def test_two_jobs_are_refused():
    with pytest.raises(UsageError, match="'b' is not FILE:LINE"):
        split_words(["a", "b"])


@pytest.mark.parametrize("text", ["i ==", "i = 3", "", "import os", "a b", "\0"])
def test_a_condition_that_the_debugger_could_never_evaluate_is_refused(text):
    with pytest.raises(UsageError, match="is no Python expression"):
        parse_condition(text)


def test_a_condition_is_any_expression():
    assert parse_condition(" (n := step % 100) == 42 and n ") == "(n := step % 100) == 42 and n"


def test_a_file_is_found_from_a_folder_below_the_root(tmp_path, monkeypatch):
    (tmp_path / "pkg").mkdir()
    (tmp_path / "pkg" / "train.py").write_text("a\nb\nc\n")
    monkeypatch.chdir(tmp_path / "pkg")
    sources = Sources(str(tmp_path.resolve()), "/host/ws")
    assert sources.on_host("train.py") == "/host/ws/pkg/train.py"
    assert sources.on_host("../pkg/train.py") == "/host/ws/pkg/train.py"
    assert sources.shown("/host/ws/pkg/train.py") == "pkg/train.py"
    assert sources.here("/host/ws/pkg/train.py") == str(tmp_path / "pkg" / "train.py")


async def test_lines_are_those_that_the_job_runs(tmp_path):
    (tmp_path / "train.py").write_text("new\na\nb\n")
    (tmp_path / "same.py").write_text("x\n")
    snapshot = {"train.py": b"a\nb\n", "same.py": b"x\n"}

    async def fetch(path: str) -> bytes | None:
        return snapshot.get(path)

    texts = Texts(Sources(str(tmp_path.resolve()), "/host/ws"), fetch)
    assert await texts.lines("/host/ws/train.py", 1, 9) == [(1, "a"), (2, "b")]
    assert await texts.lines("/host/ws/train.py", 2, 2) == [(2, "b")]
    assert (await texts.pairing("/host/ws/train.py")).notice("run-7")
    assert not (await texts.pairing("/host/ws/same.py")).notice("run-7")
    assert not (await texts.pairing("/host/ws/gone.py")).notice("run-7")
    assert await texts.lines("/host/ws/gone.py", 1, 9) == []


def test_a_file_outside_the_workspace_keeps_its_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    sources = Sources(str(tmp_path.resolve()), "/host/ws")
    assert sources.on_host("/usr/lib/x.py") == "/usr/lib/x.py"
    assert sources.shown("/usr/lib/x.py") == "/usr/lib/x.py"
    assert sources.shown("/host/ws2/x.py") == "/host/ws2/x.py"


def test_without_the_workspace_here_paths_are_relative_to_the_hosts():
    sources = Sources("", "/host/ws")
    assert sources.on_host("train.py") == "/host/ws/train.py"
