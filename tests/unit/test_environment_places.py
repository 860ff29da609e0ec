"""Environments are found by their files, and what they hold is read from files."""

import os
import sys

import pytest
from tests.support.prefixes import conda_env, package, virtual

from rdev.agent.environment.contents import Looks, has_module, look
from rdev.agent.environment.found import Kind, Place
from rdev.agent.environment.places import at_path, listed, of_interpreter, on_path, places

RUNNING = ".".join(map(str, sys.version_info[:3]))


@pytest.fixture
def home(tmp_path):
    folder = tmp_path / "home"
    folder.mkdir()
    return folder


def names(home, **options):
    login = {"HOME": str(home), **options.pop("login", {})}
    inside = (place for place in places(login, **options) if str(home.parent) in place.prefix)
    return [(place.name, place.kind) for place in inside]


def test_conda_environments_in_all_places_that_conda_knows(home, tmp_path):
    conda_env(home / "miniconda3")
    conda_env(home / "miniconda3" / "envs" / "one", python=False)
    conda_env(tmp_path / "elsewhere" / "two", python=False)
    conda_env(tmp_path / "scratch" / "three", python=False)
    conda_env(tmp_path / "root" / "envs" / "four", python=False)
    (home / ".conda").mkdir()
    listing = f"{home}/miniconda3\n{tmp_path}/elsewhere/two\n/gone\n"
    (home / ".conda" / "environments.txt").write_text(listing)
    (home / ".condarc").write_text(f"channels:\n  - x\nenvs_dirs:\n  - {tmp_path}/scratch\n")
    found = names(home, login={"MAMBA_ROOT_PREFIX": str(tmp_path / "root")})
    assert sorted(found, key=str) == sorted(
        [(name, Kind.CONDA) for name in ("base", "one", "two", "three", "four")], key=str
    )


def test_an_environment_that_is_listed_twice_or_linked_is_one(home):
    conda_env(home / "miniforge3" / "envs" / "one", python=False)
    (home / "envs").mkdir()
    (home / "envs" / "same").symlink_to(home / "miniforge3" / "envs" / "one")
    (home / ".conda").mkdir()
    (home / ".conda" / "environments.txt").write_text(f"{home}/miniforge3/envs/one\n")
    assert names(home) == [("one", Kind.CONDA)]


def test_virtual_environments_of_a_workspace_come_first(home, tmp_path):
    virtual(tmp_path / "project" / "other")
    virtual(tmp_path / "project" / ".venv")
    virtual(home / ".virtualenvs" / "mine")
    found = names(home, workspace=str(tmp_path / "project"))
    assert found == [(name, Kind.VENV) for name in (".venv", "other", "mine")]


def test_virtual_environments_lie_in_the_home_itself_or_where_tools_keep_them(home):
    for folder in ("torchenv", ".venv", ".virtualenvs/a", "venvs/b", "envs/c"):
        virtual(home / folder)
    (home / "project").mkdir()
    found = names(home)
    assert sorted(found, key=str) == sorted(
        [(name, Kind.VENV) for name in ("torchenv", ".venv", "a", "b", "c")], key=str
    )


def test_of_a_home_of_very_many_folders_only_some_are_looked_at(home, monkeypatch):
    monkeypatch.setattr("rdev.agent.environment.places._MOST_FOLDERS", 2)
    for name in ("a", "b", "c"):
        virtual(home / name)
    assert names(home) == [("a", Kind.VENV), ("b", Kind.VENV)]


def test_pythons_of_pyenv_and_of_uv(home):
    for name in ("3.12.1", "3.9.0"):
        python = home / ".pyenv" / "versions" / name / "bin" / "python"
        python.parent.mkdir(parents=True)
        python.symlink_to(sys.executable)
    uv = home / ".local/share/uv/python/cpython-3.13.0-linux-x86_64-gnu/bin/python3.13"
    uv.parent.mkdir(parents=True)
    uv.touch(0o755)
    (uv.parent / "python").symlink_to(uv)
    assert sorted(names(home)) == [
        (name, Kind.SYSTEM) for name in ("3.12.1", "3.9.0", "cpython-3.13.0-linux-x86_64-gnu")
    ]
    assert look(at_path(str(uv.parent.parent))).version == "3.13.0"


@pytest.mark.parametrize(
    "text",
    [
        "envs_dirs:\n  - /a\n  - '/b'  # ours\nchannels:\n  - /c\n",
        'envs_dirs:\n- /a\n- "/b"\n',
        "envs_dirs: [/a, '/b']\n",
    ],
)
def test_lists_in_a_condarc(text):
    assert listed(text, "envs_dirs") == ["/a", "/b"]


def test_versions_are_read_and_nothing_is_run(tmp_path):
    conda = conda_env(tmp_path / "conda", version="3.10.14")
    package(conda, "torch", "2.13.0+cpu")
    # Whoever executed it would notice.
    (conda / "bin" / "python").unlink()
    (conda / "bin" / "python").write_text("#!/bin/false\n")
    (conda / "bin" / "python").chmod(0o755)
    seen = look(Place("conda", Kind.CONDA, str(conda)))
    assert (seen.version, seen.torch) == ("3.10.14", "2.13.0+cpu")
    made = look(Place("venv", Kind.VENV, str(virtual(tmp_path / "venv"))))
    assert (made.version, made.torch) == (RUNNING, "")


def test_what_was_installed_since_is_seen(tmp_path):
    place = Place("venv", Kind.VENV, str(virtual(tmp_path / "venv")))
    looks = Looks()
    assert looks.at(place).torch == ""
    package(tmp_path / "venv", "torch", "2.1.0")
    assert looks.at(place).torch == "2.1.0"
    assert looks.at(place) is looks.at(place)


def test_modules_packages_and_extensions_are_found_by_name(tmp_path):
    prefix = virtual(tmp_path / "venv")
    seen = look(Place("venv", Kind.VENV, str(prefix)))
    package(prefix, "single")
    sites = next(prefix.glob("lib/python3*/site-packages"))
    (sites / "whole").mkdir()
    (sites / "fast.cpython-311-x86_64-linux-gnu.so").touch()
    (tmp_path / "src" / "edited").mkdir(parents=True)
    (sites / "editable.pth").write_text(f"import sys\n/nowhere\n{tmp_path / 'src'}\n")
    names = ("single", "whole", "fast", "edited", "absent")
    assert [has_module(seen, name) for name in names] == [True, True, True, True, False]


def test_an_interpreter_belongs_to_the_environment_around_it(tmp_path):
    prefix = virtual(tmp_path / "venv")
    python = str(prefix / "bin" / "python3")
    assert of_interpreter(python) == Place("venv", Kind.VENV, str(prefix), python)
    assert of_interpreter("/usr/bin/env").kind is Kind.SYSTEM
    assert at_path(str(tmp_path)) is None


def test_our_own_folders_are_passed_over_on_the_path(tmp_path):
    for name in ("dist/1.0/bin", "theirs"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "python3").touch(0o755)
    path = os.pathsep.join(str(tmp_path / name) for name in ("dist/1.0/bin", "theirs"))
    found = on_path(["python3"], path, without=[str(tmp_path / "dist")])
    assert found == str(tmp_path / "theirs" / "python3")
