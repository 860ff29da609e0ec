"""Fixtures that every kind of test shares."""

import os
import signal
from pathlib import Path

import pytest
from tests.support.command import Rdev

# A run in the background of a shell has SIGINT ignored, and so would everything that tests start.
signal.signal(signal.SIGINT, signal.default_int_handler)


# Commands run in processes of their own, and leave none behind; tests of the session ask for it.
os.environ["RDEV_SESSION"] = "0"


@pytest.fixture
def rdev(tmp_path: Path):
    """A person with an empty home and an empty workspace, and the real commands."""
    home, cwd = tmp_path / "home", tmp_path / "project"
    home.mkdir(mode=0o700)
    cwd.mkdir()
    (cwd / "rdev.toml").touch()
    person = Rdev(home, cwd)
    yield person
    person.tidy()
