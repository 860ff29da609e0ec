"""Snapshots that jobs keep, whoever lets go of them at the same time."""

import os
import sys
import threading

import pytest

from rdev.agent.workspace.manager import WorkspaceManager
from rdev.agent.workspace.pins import Pins
from rdev.protocol.errors import NotFound
from rdev.protocol.snapshot import Snapshot
from rdev.wire.blocks import FilesError

NOTHING = Snapshot.of()
KEY = NOTHING.digest.hex()
FIRST, SECOND = "0123456789ab", "123456789abc"


@pytest.fixture
def pins(tmp_path):
    pins = Pins(str(tmp_path / "store"))
    pins.remember(NOTHING)
    return pins


@pytest.fixture
def eager_threads():
    """Threads take turns as often as they can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("eager_threads")
def test_a_snapshot_that_one_job_takes_while_another_lets_go_of_it_is_kept(pins):
    for _ in range(200):
        pins.pin(KEY, FIRST)
        threads = [
            threading.Thread(target=pins.pin, args=(KEY, SECOND)),
            threading.Thread(target=pins.unpin, args=(FIRST,)),
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert pins.entries(KEY) == ()
        pins.unpin(SECOND)
        with pytest.raises(NotFound):
            pins.entries(KEY)


async def test_an_agent_starts_although_a_kept_snapshot_is_damaged(tmp_path, caplog):
    folder = tmp_path / "store" / "snapshots"
    folder.mkdir(parents=True)
    (folder / f"{KEY}.json").write_text('{"format": 1, "ent')
    async with WorkspaceManager(str(tmp_path)) as manager:
        pass
    assert "unable to tidy the store" in caplog.text
    with pytest.raises(FilesError):
        manager.collect()


def test_a_snapshot_that_was_half_written_is_nobodys(pins, tmp_path):
    (tmp_path / "store" / "snapshots" / f"{KEY}.json.new").write_text('{"format"')
    assert pins.digests() == set()
    assert os.listdir(tmp_path / "store" / "pins") == []
