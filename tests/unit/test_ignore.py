"""Ignore rules, judged by git itself, by pathspec and by ripgrep's walker."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pathspec
import pytest
import rignore
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from rdev.client.sync.explain import Fate, explain
from rdev.client.sync.tree import Tree
from rdev.protocol.ignore import Rules
from rdev.protocol.patterns import parse

NAMES = st.sampled_from(["a", "b", "ab", "a.py", "x.txt", "[x]", "a b", "é", "-"])
# Git matches bytes, so that its `?` is half an é.
GIT_PATHS = st.lists(NAMES.filter(str.isascii), min_size=1, max_size=4).map("/".join)
PATHS = st.lists(NAMES, min_size=1, max_size=4).map("/".join)
PIECES = st.sampled_from(
    ["a", "b", "*", "?", "**", "*.py", "a*", "[ab]", "[!a]", "[a-c]*", "x.txt", r"\[x]", "a b"]
)
PATTERNS = st.tuples(
    st.sampled_from(["", "", "", "!"]),
    st.sampled_from(["", "/"]),
    st.lists(PIECES, min_size=1, max_size=3).map("/".join),
    st.sampled_from(["", "", "/"]),
).map("".join)


def is_ignored(rules: Rules, path: str) -> bool:
    """As a walk would find it: a file below an ignored folder is ignored."""
    parts = path.split("/")
    for number in range(1, len(parts) + 1):
        at = "/".join(parts[:number])
        if rules.verdict(at, is_directory=number < len(parts)).ignored:
            return True
    return False


def gitignore(lines: list[str]) -> Rules:
    return Rules().entering("", lines, None)


@settings(max_examples=400, deadline=None)
# Where pathspec and git part (re-inclusion below an ignored folder, a closing `**/`), git is right.
@given(st.lists(PATTERNS.filter(lambda p: p[0] != "!" and p[-3:] != "**/"), max_size=5), PATHS)
@example(["a/**/b"], "a/b")
@example(["a/**"], "a/b")
def test_as_pathspec_reads_it(lines: list[str], path: str):
    oracle = pathspec.GitIgnoreSpec.from_lines(lines)
    assert is_ignored(gitignore(lines), path) == oracle.match_file(path)


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    if shutil.which("git") is None:
        pytest.skip("git is not installed")
    root = tmp_path_factory.mktemp("repository")
    subprocess.run(["git", "init", "-q", str(root)], check=True)
    return root


def git_ignores(root: Path, lines: list[str], paths: list[str]) -> set[str]:
    (root / ".gitignore").write_text("\n".join(lines) + "\n")
    done = subprocess.run(
        ["git", "-c", "core.excludesFile=/dev/null", "check-ignore", "--no-index", "--stdin", "-z"],
        cwd=root,
        input="\0".join(paths).encode() + b"\0",
        capture_output=True,
        check=False,
    )
    assert done.returncode in (0, 1), done.stderr
    return set(filter(None, done.stdout.decode().split("\0")))


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(lines=st.lists(PATTERNS, min_size=1, max_size=5), paths=st.lists(GIT_PATHS, min_size=5))
def test_as_git_reads_it(repository: Path, lines: list[str], paths: list[str]):
    rules = gitignore(lines)
    ours = {path for path in paths if is_ignored(rules, path)}
    assert ours == git_ignores(repository, lines, paths)


@pytest.mark.parametrize(
    "line",
    [
        "foo\\",
        "foo\\ ",
        "foo ",
        "foo  ",
        "\\!a",
        "\\#a",
        "#a",
        "a[",
        "[]a]",
        "[]-a]",
        "[!]a]",
        "[^a]b",
        "[[:alpha:]]x",
        "[[:digit:][:punct:]]",
        "[a-]",
        "[z-a]",
        "a\\*",
        "**a",
        "a**b",
        "/**",
        "**/",
        "**",
        "*",
        "/*",
        "!*",
        "a//b",
        "/a/",
        "./a",
        "a/.",
        "a\tb",
        "[\\]]",
        "***",
        "a/***/b",
    ],
)
def test_odd_lines_as_git_reads_them(repository: Path, line: str):
    paths = [
        "a",
        "b",
        "foo",
        "foo ",
        "foo\\",
        "a/b",
        "a/x/b",
        "ab",
        "axb",
        "!a",
        "#a",
        "a[",
        "]",
        "]a",
    ]
    paths += ["cb", "qx", "4", "-", "a*", "z", "xa", "a\tb", "foo/a", "x/foo/y", "."]
    paths.remove(".")
    rules = gitignore([line])
    ours = {path for path in paths if is_ignored(rules, path)}
    assert ours == git_ignores(repository, [line], paths)


def test_deeper_files_win_and_rdevignore_wins_over_all():
    rules = Rules().entering("", ["*.log", "/build/"], ["!keep.bin"])
    inner = rules.entering("sub", ["!own.log", "keep.bin"], None)
    assert inner.verdict("sub/x.log", is_directory=False).ignored
    assert not inner.verdict("sub/own.log", is_directory=False).ignored
    assert not inner.verdict("sub/keep.bin", is_directory=False).ignored
    assert inner.verdict("build", is_directory=True).ignored
    assert not inner.verdict("sub/build", is_directory=True).ignored


@pytest.mark.parametrize(
    ("path", "is_directory", "secret"),
    [
        (".env", False, True),
        ("deep/.env.local", False, True),
        (".envrc", False, True),
        ("x/key.pem", False, True),
        (".netrc", False, True),
        ("id_rsa", False, True),
        ("id_ed25519.pub", False, True),
        ("id_custom", False, True),
        (".aws", True, True),
        ("x/.ssh", True, True),
        ("id_map.py", False, False),
        ("id_cards", True, False),
        ("environment.py", False, False),
        ("pem", False, False),
    ],
)
def test_secrets(path: str, is_directory: bool, secret: bool):
    rules = Rules().entering("", ["!*", "!.env", "!*.pem"], None)
    verdict = rules.verdict(path, is_directory=is_directory)
    assert (verdict.ignored, verdict.secret) == (secret, secret)
    again = Rules().entering("", None, [f"!{path.rpartition('/')[2]}"])
    assert not again.verdict(path, is_directory=is_directory).ignored


def test_our_own_folder_never_travels():
    rules = Rules().entering("", ["!.rdev"], ["!.rdev", "!.RDEV"])
    assert rules.verdict(".rdev", is_directory=True).ignored
    assert rules.verdict(".RDEV", is_directory=True).ignored
    assert not rules.verdict("src/.rdev.py", is_directory=False).ignored


@pytest.mark.parametrize("name", [".git", ".venv", "__pycache__", "wandb", "checkpoints"])
def test_built_in_folders(name: str):
    assert Rules().verdict(f"x/{name}", is_directory=True).ignored
    assert not Rules().entering("", [f"!{name}"], None).verdict(name, is_directory=True).ignored


def make(root: Path, files: list[str]) -> None:
    for name in files:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x")


def test_a_walk_finds_what_ripgreps_walker_finds(tmp_path: Path):
    make(tmp_path, ["a.py", "b.log", "src/a.py", "src/gen/x.py", "src/gen/keep.py", "docs/b.log"])
    make(tmp_path, ["deep/er/still/a.py", "deep/er/tmp/b", "tmp", "docs/tmp/c", "src/!odd", "#h"])
    (tmp_path / ".gitignore").write_text("*.log\ntmp/\n/src/gen/*\n!/src/gen/keep.py\n\\#h\n")
    (tmp_path / "docs" / ".gitignore").write_text("!b.log\n")
    (tmp_path / "deep" / ".gitignore").write_text("/er/still/\n")
    tree = Tree(str(tmp_path))
    tree.walk()
    ours = {found.path for visit in tree.visits.values() for found in visit.found}
    walker = rignore.walk(tmp_path, ignore_hidden=False, require_git=False)
    theirs = {path.relative_to(tmp_path).as_posix() for path in walker} - {"."}
    assert ours == theirs


def test_a_walk_of_the_dirty_folders_finds_what_a_whole_walk_finds(tmp_path: Path):
    make(tmp_path, ["a/b/c.py", "a/d.py", "e/f/g.py", "h.py"])
    tree = Tree(str(tmp_path))
    tree.walk()
    make(tmp_path, ["a/b/new.py", "a/fresh/x/y.py"])
    shutil.rmtree(tmp_path / "e" / "f")
    tree.walk({"a", "a/b", "e", "nowhere"})
    whole = Tree(str(tmp_path))
    whole.walk()
    assert tree.visits.keys() == whole.visits.keys()
    for path, visit in whole.visits.items():
        assert [each.path for each in tree.visits[path].found] == [
            each.path for each in visit.found
        ]


def test_an_environment_is_known_by_its_marker_whatever_its_name(tmp_path: Path):
    make(tmp_path, ["my-env/pyvenv.cfg", "my-env/lib/x.py", "a.py"])
    tree = Tree(str(tmp_path))
    tree.walk()
    assert tree.visits.keys() == {""}


def test_git_rules_above_a_root_inside_a_repository_hold(tmp_path: Path):
    make(tmp_path, [".git/info/exclude", "sub/project/a.py", "sub/project/out/b", "sub/project/c"])
    (tmp_path / ".git" / "info" / "exclude").write_text("/sub/project/c\n")
    (tmp_path / ".gitignore").write_text("/sub/project/out/\n")
    tree = Tree(str(tmp_path / "sub" / "project"))
    tree.walk()
    assert {found.path for visit in tree.visits.values() for found in visit.found} == {"a.py"}


def test_a_path_is_explained_by_the_rule_that_decides(tmp_path: Path):
    make(tmp_path, ["data/x.csv", "src/a.py", ".env", "src/w.pt", "my-env/pyvenv.cfg"])
    (tmp_path / ".gitignore").write_text("# data\ndata/\n!src/a.py\n")
    (tmp_path / "link").symlink_to("src")
    root = str(tmp_path)
    assert explain(root, "data/x.csv") == Fate(travels=False, rule=".gitignore:2: data/")
    assert explain(root, ".env").secret
    assert explain(root, "src/w.pt").rule.startswith("built-in: ")
    assert explain(root, "src/w.pt").rule.endswith(": *.pt")
    assert explain(root, "my-env/pyvenv.cfg").rule == "built-in: a Python environment"
    assert explain(root, ".rdev").rule == "rdev's own folder"
    assert explain(root, "src/a.py") == Fate(travels=True, rule=".gitignore:3: !src/a.py")
    assert explain(root, "src") == explain(root, "link") == Fate(travels=True)


def test_a_path_that_does_not_exist_is_explained_as_if_it_did(tmp_path: Path):
    make(tmp_path, ["src/a.py"])
    (tmp_path / ".gitignore").write_text("data/\n")
    root = str(tmp_path)
    assert explain(root, "not/there.py") == Fate(travels=True, exists=False)
    assert explain(root, "src/a.py/x") == Fate(travels=True, exists=False)
    absent = Fate(travels=False, exists=False, rule=".gitignore:1: data/")
    assert explain(root, "data/x.csv") == explain(root, "src/data/x.csv") == absent


def test_a_path_that_no_rule_leaves_out_is_explained_by_its_problem(tmp_path: Path):
    make(tmp_path, ["Readme", "src/README", "src/readme", os.fsdecode(b"bad\xff")])
    os.mkfifo(tmp_path / "src" / "pipe")
    (tmp_path / "out").symlink_to("/etc")
    with open(tmp_path / "huge.bin", "wb") as file:
        file.truncate(51 << 20)
    root = str(tmp_path)
    assert "51 MiB" in explain(root, "huge.bin").problem
    assert "FIFO" in explain(root, "src/pipe").problem
    assert "link not synced" in explain(root, "out").problem
    assert "not synced" in explain(root, os.fsdecode(b"bad\xff")).problem
    left_out = ("huge.bin", "src/pipe", "out", os.fsdecode(b"bad\xff"))
    assert not any(explain(root, path).travels for path in left_out)
    twin = explain(root, "src/readme")  # both travel, and a Mac cannot hold both
    assert (twin.travels, "by case only" in twin.problem) == (True, True)


def test_names_that_a_mac_confuses_are_named(tmp_path: Path):
    make(tmp_path, ["Readme", "README", "e\u0301.py", "\u00e9.py"])
    if len(os.listdir(tmp_path)) < 4:
        pytest.skip("this file system folds names")
    tree = Tree(str(tmp_path))
    tree.walk()
    visit = tree.visits[""]
    assert {each.kind for each in visit.problems} == {"CASE_COLLISION"}
    assert len(visit.problems) == 2
    assert {each.path for each in visit.found} == {"Readme", "README", "\u00e9.py"}


def test_a_byte_order_mark_is_no_part_of_a_pattern():
    assert parse(["\ufeffa"])[0].text == "a"
