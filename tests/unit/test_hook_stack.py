"""Stacks of processes with many threads, long names and deep recursions fit into an answer."""

from __future__ import annotations

import sys
import threading

import pytest

from rdev.hook.stack import INNERMOST, OUTERMOST, stack
from rdev.wire import channel


def function_in(file):
    names = {}
    source = "def wait(number, event):\n    wait(number - 1, event) if number else event.wait()\n"
    exec(compile(source, file, "exec"), names)
    return names["wait"]


@pytest.fixture
def ends():
    event = threading.Event()
    threads = []
    yield event, threads
    event.set()
    for thread in threads:
        thread.join()


def test_the_answer_fits_however_many_threads_are_how_deep_in_files_of_long_names(ends):
    event, threads = ends
    wait = function_in("/" + "\N{SNOWMAN}" * 200 + ".py")
    for number in range(60):
        name = f"worker {number} " + "x" * 5000
        threads.append(threading.Thread(target=wait, args=(40, event), name=name))
        threads[-1].start()
    answer = stack({}, {})
    assert len(channel.encode(answer)) < channel.MAX_LINE - 10_000
    workers = [each for each in answer["threads"] if each["name"].startswith("worker")]
    assert len(workers) == 60
    assert workers[0]["frames"]


@pytest.fixture
def deep_recursion():
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(20_000)
    yield
    sys.setrecursionlimit(limit)


def test_of_a_deep_recursion_both_ends_are_told(deep_recursion, ends):
    event, threads = ends
    name = "deep"
    threads.append(threading.Thread(target=function_in("deep.py"), args=(10_000, event), name=name))
    threads[0].start()
    frames = []
    while len(frames) <= INNERMOST:
        frames = next(each["frames"] for each in stack({}, {})["threads"] if each["name"] == name)
    assert len(frames) == INNERMOST + 1 + OUTERMOST
    assert frames[INNERMOST][2].startswith("... ")
