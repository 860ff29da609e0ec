"""What makes two environments the same: their lock file's contents, their Python, the platform."""

import pytest

from rdev.agent.environment.lock import lock_name, project_paths, read_lock
from rdev.agent.environment.managed import commands
from rdev.agent.environment.uv import failure, uv_environment
from rdev.protocol.errors import EnvironmentFailed


@pytest.fixture
def workspace(tmp_path):
    folder = tmp_path / "workspace"
    folder.mkdir()
    return folder


def digest(workspace, *, python="", fallback="/usr/bin/python3"):
    return read_lock(str(workspace), python=python, fallback=fallback).digest


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["requirements.txt", "uv.lock", "pylock.toml"], "uv.lock"),
        (["requirements.txt", "pylock.toml"], "pylock.toml"),
        (["requirements-dev.txt", "requirements.txt"], "requirements.txt"),
        (["requirements-gpu.txt", "train.py"], "requirements-gpu.txt"),
    ],
)
def test_what_pins_most_is_the_lock_file(names, expected):
    assert lock_name(names) == expected


def test_no_lock_file_and_several_are_refused_with_the_remedy():
    with pytest.raises(EnvironmentFailed, match="no lock file"):
        lock_name(["train.py"])
    with pytest.raises(EnvironmentFailed, match=r"requirements-a.txt, requirements-b.txt"):
        lock_name(["requirements-a.txt", "requirements-b.txt"])


def test_the_same_contents_are_the_same_environment_wherever_they_lie(workspace, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    for folder in (workspace, other):
        (folder / "requirements.txt").write_text("six==1.16.0\n")
    assert digest(workspace) == digest(other)


def test_contents_python_and_included_files_make_it_another(workspace):
    (workspace / "requirements.txt").write_text("-r base.txt\nsix\n")
    (workspace / "base.txt").write_text("idna==3.7\n")
    first = digest(workspace)
    seen = {first, digest(workspace, python="3.12"), digest(workspace, fallback="/bin/sh")}
    (workspace / "base.txt").write_text("idna==3.8\n")
    seen.add(digest(workspace))
    (workspace / ".python-version").write_text("3.13\n")
    seen.add(digest(workspace))
    assert len(seen) == 5


def test_a_package_that_lies_in_the_workspace_serves_that_workspace_alone(workspace, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    for folder in (workspace, other):
        (folder / "requirements.txt").write_text("-e .\nsix\n")
    assert digest(workspace) != digest(other)


def test_an_included_file_that_is_missing_is_said(workspace):
    (workspace / "requirements.txt").write_text("-r base.txt\n")
    with pytest.raises(EnvironmentFailed, match=r"base\.txt"):
        digest(workspace)


def test_a_project_that_is_a_package_is_found_where_it_lies(workspace):
    assert project_paths(str(workspace)) == []
    (workspace / "pyproject.toml").write_text("[project]\nname = 'x'\n[build-system]\nrequires=[]")
    assert project_paths(str(workspace)) == [str(workspace)]
    (workspace / "src").mkdir()
    assert project_paths(str(workspace)) == [str(workspace / "src")]


def test_each_kind_of_lock_has_its_command(workspace):
    (workspace / "requirements.txt").write_text("six\n")
    lock = read_lock(str(workspace), python="3.12", fallback="")
    make, install = commands("/bin/uv", lock, "/envs/new")
    assert make[-4:] == ["--python", "3.12", "--no-project", "/envs/new"]
    assert install[1:] == ["pip", "install", "--python", "/envs/new", "-r", "requirements.txt"]


def test_uv_meets_no_environment_of_the_user_and_knows_the_index_of_pip(tmp_path):
    login = {
        "HOME": str(tmp_path),
        "VIRTUAL_ENV": "/mine",
        "PIP_INDEX_URL": "https://mirror.example/simple",
        "PIP_FIND_LINKS": "/no/such/folder",
    }
    seen = uv_environment("/envs", login)
    assert "VIRTUAL_ENV" not in seen
    assert seen["UV_DEFAULT_INDEX"] == "https://mirror.example/simple"
    assert "UV_FIND_LINKS" not in seen
    assert uv_environment("/envs", login | {"UV_CACHE_DIR": "/c"})["UV_CACHE_DIR"] == "/c"


def test_what_uv_complains_of_is_one_line():
    newer = ["Resolved", "error: Request failed", "cause: Fetch: `x`", "cause: a", "cause: refused"]
    assert failure([*newer, "hint: none"], 2) == "Request failed: Fetch: `x`: refused"
    older = ["\u00d7 No solution found:", "╰─▶ Because absent was not found.", "and so on"]
    assert failure(older, 1) == "No solution found: Because absent was not found"
    assert failure(["no such option"], 2) == "no such option"
    assert failure([], 2) == "it ended with status 2"
