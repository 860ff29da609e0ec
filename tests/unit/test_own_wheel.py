"""rdev's own wheel: the same files make the same wheel, and another file another release."""

import io
import os
import subprocess
import sys
import time
import zipfile

import pytest

import rdev
from rdev.client.bootstrap import release, wheel


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "rdev" / "release.json"


@pytest.fixture
def portions(tmp_path, monkeypatch):
    """Two installed portions of a package that can be changed."""
    for name in ("one/a/b.py", "one/a/__pycache__/b.pyc", "one/a/.b.py.swp", "two/c/d.proto"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    monkeypatch.setattr(rdev, "__path__", [str(tmp_path / "one"), str(tmp_path / "two")])
    return tmp_path


def names(packed):
    with zipfile.ZipFile(io.BytesIO(packed.content)) as archive:
        return [name for name in archive.namelist() if ".dist-info/" not in name]


def test_all_portions_are_in_it_and_the_generated_wire():
    found = names(wheel.pack())
    for name in ("agent/main.py", "client/known.py", "v1/agent_pb2.py", "wire/home.py"):
        assert f"rdev/{name}" in found
    assert "rdev/client/bootstrap/probe.sh" in found
    assert "rdev/client/bootstrap/host.lock" in found
    assert not [name for name in found if "__pycache__" in name]


def test_the_same_files_make_the_same_bytes_wherever_they_lie(portions, monkeypatch):
    first = wheel.pack()
    assert names(first) == ["rdev/a/b.py", "rdev/c/d.proto"]
    os.utime(portions / "one/a/b.py", (1, 1))
    monkeypatch.setattr(rdev, "__path__", list(reversed(rdev.__path__)))
    assert wheel.pack() == first
    assert release.release_id() == first.release


def test_a_changed_file_is_another_release(portions):
    before = release.release_id()
    (portions / "one/a/b.py").write_text("changed")
    assert release.release_id() != before
    assert release.release_id() == wheel.pack().release


@pytest.mark.parametrize("noted", ["", "{}", "[]", '{"mark": 1, "release": "x"}'])
def test_a_cache_that_was_spoilt_is_made_anew(cache, portions, noted):
    right = release.release_id()
    cache.write_text(noted)
    assert release.release_id() == right


def test_a_cache_that_cannot_be_written_costs_only_time(portions, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", "/proc/none")
    assert release.release_id() == wheel.pack().release


def test_the_name_of_the_release_is_cheap_the_second_time(cache):
    def cost() -> float:
        start = time.process_time()
        release.release_id()
        return time.process_time() - start

    release.release_id()
    known = min(cost() for _ in range(20))
    fresh = []
    for _ in range(3):
        cache.unlink()
        fresh.append(cost())
    assert known < min(fresh) / 3  # measured: a tenth


@pytest.mark.slow
def test_pip_takes_the_wheel_for_one(tmp_path):
    packed = wheel.pack()
    (tmp_path / packed.file).write_bytes(packed.content)
    command = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-index"]
    command += ["--target", str(tmp_path / "site"), str(tmp_path / packed.file)]
    subprocess.run(command, check=True, capture_output=True, stdin=subprocess.DEVNULL)
    assert (tmp_path / "site" / "rdev" / "agent" / "main.py").exists()
