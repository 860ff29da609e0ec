"""Feeding a job's input where reading it fails."""

import os
import selectors

import pytest

from rdev.supervisor.feed import Conduit, Feed
from rdev.wire.files import JobFiles
from rdev.wire.input import Spool, reserve_input


@pytest.fixture
def files(tmp_path):
    files = JobFiles(str(tmp_path))
    os.mkdir(files.path("fifo"))
    reserve_input(files)
    spool = Spool(files)
    spool.write(b"a" * 16, b"hello")
    spool.close()
    return files


def test_input_that_cannot_be_read_is_fed_once_it_can(files, capsys):
    conduit = Conduit.open(files)
    good, bad = os.dup(conduit.spool), os.open(files.input, os.O_WRONLY)
    with selectors.DefaultSelector() as selector:
        feed = Feed(conduit, selector, keeper=0, can_end=True)
        os.dup2(bad, conduit.spool)
        feed.step()
        first = feed.retry_at
        feed.step()
        assert first < feed.retry_at
        assert capsys.readouterr().err.count("Traceback") == 1
        os.dup2(good, conduit.spool)
        feed.step()
        assert feed.retry_at is None
        assert os.read(conduit.reader, 100) == b"hello"
    for opened in (good, bad, conduit.spool, conduit.writes, conduit.reader, conduit.writer):
        os.close(opened)
