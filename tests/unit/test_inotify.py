"""A file's changes are told to those who wait for it, those of a flood together."""

import asyncio
import os
import sys

import pytest

from rdev.agent.logs.inotify import Inotify

DEADLINE = 20.0

# Writes for half a second, far more often than somebody is to be woken.
FLOOD = """
import os, sys, time
file, end = os.open(sys.argv[1], os.O_WRONLY | os.O_APPEND), time.monotonic() + 0.5
while time.monotonic() < end:
    os.write(file, b"x")
"""


@pytest.fixture
def files(tmp_path):
    paths = [str(tmp_path / name) for name in ("log", "state")]
    for path in paths:
        with open(path, "xb"):
            pass
    return paths


def grow(path: str) -> None:
    with open(path, "ab", buffering=0) as file:
        file.write(b"x")


async def test_who_waits_is_told_which_file_has_changed(files):
    async with asyncio.timeout(DEADLINE), Inotify() as inotify:
        with inotify.watch(*files) as watch:
            for path in files:
                grow(path)
                assert set(await watch.wait()) == {path}


async def test_what_changed_before_somebody_waits_is_told_at_once(files):
    async with asyncio.timeout(DEADLINE), Inotify() as inotify:
        with inotify.watch(*files) as watch, inotify.watch(files[0]) as other:
            for path in files:
                grow(path)
            assert set(await other.wait()) == {files[0]}  # by now all was told
            assert set(await watch.wait()) == set(files)


@pytest.mark.slow
async def test_a_flood_wakes_its_reader_a_thousand_times_a_second_at_most(files):
    async with asyncio.timeout(DEADLINE), Inotify() as inotify:
        with inotify.watch(files[0]) as watch:
            process = await asyncio.create_subprocess_exec(sys.executable, "-c", FLOOD, files[0])
            loop = asyncio.get_running_loop()
            await watch.wait()
            begun, told = loop.time(), 0
            while told < 2 or process.returncode is None:
                await watch.wait()
                told += 1
            took = loop.time() - begun
    assert told <= 2 + took * 1000


async def test_files_that_cannot_be_watched_are_all_looked_at_soon(files, tmp_path):
    missing = [str(tmp_path / name) for name in ("gone", "away")]
    async with asyncio.timeout(DEADLINE), Inotify() as inotify:
        with inotify.watch(files[0], *missing) as watch:
            loop = asyncio.get_running_loop()
            begun = loop.time()
            assert set(await watch.wait()) == {files[0], *missing}
            assert loop.time() - begun < 1.0  # a watched file's reader waits for 5 s
    assert not os.path.exists(missing[0])
