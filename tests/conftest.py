"""Fixtures that every kind of test shares."""

import os
import signal
from pathlib import Path

import pytest
from hypothesis import settings
from tests.support.command import Rdev
from tests.support.session import Sessioned

# A run in the background of a shell has these ignored, and so would everything that tests start.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGQUIT, signal.SIG_DFL)

# On a busy machine any example may take a second.
settings.register_profile("rdev", deadline=None)
settings.load_profile("rdev")

# Commands run in processes of their own, and leave none behind; tests of the session ask for it.
os.environ["RDEV_SESSION"] = "0"


_AGENTS = ("shared_agent", "own_agent")


@pytest.fixture
def rdev(request: pytest.FixtureRequest, tmp_path: Path):
    """A person with an empty home and an empty workspace, and the real commands.

    Tests marked `shared_agent` share one home, in which an agent runs that knows no job, and a
    session that runs the commands; its store is what earlier tests have left, and all else is
    empty.
    """
    cwd = tmp_path / "project"
    cwd.mkdir()
    (cwd / "rdev.toml").touch()
    shares, owns = (request.node.get_closest_marker(name) for name in _AGENTS)
    if shares and not owns:
        person = Sessioned(request.getfixturevalue("shared_home"), cwd)
        if not person.pids:  # the first test's, or after one that has ended it
            person.start()
        yield person
        person.clear()
        return
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    person = Rdev(home, cwd)
    yield person
    person.tidy()


@pytest.fixture(scope="session")
def shared_home(tmp_path_factory: pytest.TempPathFactory):
    """The home of the agent that tests marked `shared_agent` have in common."""
    home = tmp_path_factory.mktemp("shared") / "home"
    home.mkdir(mode=0o700)
    person = Sessioned(home, home)
    assert person.command("rdev-agent", "serve", "--detach").returncode == 0
    yield home
    person.tidy()
