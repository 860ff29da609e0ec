"""Folders of the laptop that cannot be written: what may be done without, and what a person is told."""

import os

import pytest

from rdev.client.bootstrap.release import release_id
from rdev.client.known import KnownHost, remember
from rdev.client.laptop import examine_laptop
from rdev.client.sync.root import cache_folder, client_id
from rdev.protocol.errors import PermissionRefused, os_failure

GPU1 = KnownHost("gpu1", "", "", "/home/me/.rdev", "bridge", "/home/me/.rdev/dist/1", "1")


@pytest.fixture(autouse=True)
def laptop(tmp_path, monkeypatch):
    """A home in which no folder can be made, whoever we are."""
    (tmp_path / "file").touch()
    for name in ("HOME", "XDG_STATE_HOME", "XDG_CACHE_HOME"):
        monkeypatch.setenv(name, str(tmp_path / "file"))


@pytest.mark.parametrize(
    ("write", "variable"),
    [
        (client_id, "XDG_STATE_HOME"),
        (lambda: remember(GPU1), "XDG_STATE_HOME"),
        (cache_folder, "XDG_CACHE_HOME"),
    ],
)
def test_what_cannot_be_kept_names_the_variable_that_moves_it(write, variable):
    with pytest.raises(OSError) as failure:  # noqa: PT011  # of many kinds
        write()
    hint = os_failure("run `rdev ps`", failure.value).hint
    assert f"set {variable} to a folder that can" in hint


def test_a_disk_that_is_mounted_read_only_is_a_refusal():
    error = OSError(30, os.strerror(30), "/home/me/.cache")
    error.add_note("mount it anew")
    told = os_failure("run", error)
    assert (type(told), told.hint) == (PermissionRefused, "mount it anew")


def test_a_cache_is_not_needed():
    assert release_id()


def test_the_checkup_says_so_instead_of_failing():
    found = {each.what: each for each in examine_laptop()}
    for what, variable in (("cache here", "XDG_CACHE_HOME"), ("state here", "XDG_STATE_HOME")):
        assert not found[what].ok
        assert variable in found[what].remedy
