"""The dialer against a listener of its channel: breaks, resends, commands, forks, exits."""

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from tests.support.interpreters import ROOT, interpreters
from tests.support.supervisor import Listener

from rdev.wire.dial import Dialer


@pytest.fixture
def listener(tmp_path):
    with Listener(tmp_path) as listener:
        yield listener


@pytest.fixture
def dial():
    dialers = []

    def make(path, **options):
        dialer = Dialer("loop", path, **options)
        dialers.append(dialer)
        dialer.start()
        return dialer

    yield make
    for dialer in dialers:
        dialer.close(flush_seconds=0)


def numbers(listener):
    return [event["number"] for event in listener.of_kind("metric")]


def test_events_emitted_before_the_welcome_arrive_in_order(listener, dial):
    dialer = dial(listener.path)
    for number in range(1000):
        dialer.emit("metric", {"number": number})
    assert dialer.flush(10)
    assert numbers(listener) == list(range(1000))


def test_the_hello_says_who_dials(listener, dial):
    dial(listener.path, rank=3)
    listener.wait(lambda: listener.hellos)
    hello = listener.hellos[0]
    assert (hello["role"], hello["rank"], hello["pid"]) == ("loop", 3, os.getpid())


def test_a_socket_path_longer_than_an_address_is_reached(tmp_path, dial):
    folder = tmp_path / ("x" * 120)
    folder.mkdir()
    with Listener(folder) as listener:
        dial(listener.path).emit("metric", {"number": 1})
        listener.wait(lambda: listener.events)


def test_a_replaced_supervisor_gets_every_event_once(tmp_path, dial):
    with Listener(tmp_path) as first:
        dialer = dial(first.path)
        dialer.emit("metric", {"number": 0})
        assert dialer.flush(10)
    for number in range(1, 500):
        dialer.emit("metric", {"number": number})
    with Listener(tmp_path, known=first.events) as second:
        assert dialer.flush(10)
        assert numbers(second) == list(range(500))


def test_breaks_in_a_stream_of_events_lose_and_repeat_nothing(listener, dial):
    dialer = dial(listener.path)
    for number in range(3000):
        dialer.emit("metric", {"number": number})
        if number % 500 == 499:
            listener.wait(lambda: len(listener.events) > 0)
            listener.break_connections()
    assert dialer.flush(20)
    assert numbers(listener) == list(range(3000))
    assert len(listener.hellos) > 1


def test_what_was_not_acknowledged_is_sent_again(tmp_path, dial):
    with Listener(tmp_path, acknowledging=False) as deaf:
        dialer = dial(deaf.path)
        dialer.emit("metric", {"number": 7})
        deaf.wait(lambda: deaf.events)
        assert not dialer.flush(0.05)
    with Listener(tmp_path) as second:
        assert dialer.flush(10)
        assert numbers(second) == [7]


def test_events_beyond_the_capacity_are_counted(tmp_path, dial):
    dialer = dial(str(tmp_path / "job.sock"), capacity=50)
    for number in range(500):
        dialer.emit("metric", {"number": number})
    with Listener(tmp_path) as listener:
        assert dialer.flush(10)
        dropped = sum(event["count"] for event in listener.of_kind("events_dropped"))
        assert dropped > 0
        assert len(numbers(listener)) + dropped == 500
        assert numbers(listener)[-1] == 499


def test_a_value_no_line_can_carry_is_counted_and_does_not_end_the_channel(listener, dial):
    dialer = dial(listener.path)
    dialer.emit("metric", {"number": object()})
    dialer.emit("metric", {"number": "x" * (2 << 20)})
    dialer.emit("metric", lambda: {"number": 1 / 0})
    dialer.emit("metric", {"number": 1})
    assert dialer.flush(10)
    assert numbers(listener) == [1]
    assert sum(event["count"] for event in listener.of_kind("events_dropped")) == 3


def test_fields_are_asked_for_on_the_channels_thread(listener, dial):
    dialer = dial(listener.path)
    dialer.emit("metric", lambda: {"number": threading.get_ident()})
    assert dialer.flush(10)
    assert numbers(listener)[0] != threading.get_ident()


def test_two_dialers_of_one_process_number_their_events_together(listener, dial):
    first, second = dial(listener.path), dial(listener.path, rank=0)
    for number in range(100):
        (first, second)[number % 2].emit("metric", {"number": number})
    assert second.flush(10)
    assert numbers(listener) == list(range(100))
    listener.wait(lambda: len(listener.hellos) == 2)


def channel_threads():
    return [thread for thread in threading.enumerate() if thread.name == "rdev-channel"]


def test_threads_that_all_emit_first_share_one_channel(listener):
    for _ in range(20):  # each round is a race
        dialer = Dialer("loop", listener.path)
        at_once = threading.Barrier(8)

        def emit(number, dialer=dialer, at_once=at_once):
            at_once.wait()
            dialer.emit("metric", {"number": number})

        threads = [threading.Thread(target=emit, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(channel_threads()) == 1
        assert dialer.close(flush_seconds=10)
        assert channel_threads() == []
    assert sorted(numbers(listener)) == sorted([*range(8)] * 20)


def test_a_program_that_replaces_itself_loses_no_event(listener):
    code = (
        "import os, sys\n"
        "from rdev.wire.dial import Dialer\n"
        "dialer = Dialer('loop', sys.argv[1])\n"
        "for number in range(5): dialer.emit('metric', {'number': sys.argv[2]})\n"
        "assert dialer.flush(10)\n"
        "if sys.argv[2] == 'a': os.execv(sys.executable, [*sys.orig_argv[:-1], 'b'])\n"
    )
    environment = {"PYTHONPATH": str(ROOT / "agent"), "PATH": os.environ["PATH"]}
    command = [sys.executable, "-c", code, listener.path, "a"]
    subprocess.run(command, env=environment, check=True, timeout=30)
    assert numbers(listener) == ["a"] * 5 + ["b"] * 5


def test_a_command_is_answered_by_the_callback(listener, dial):
    dial(listener.path, on_command=lambda name, args: {"said": f"{name} {args['n']}"})
    listener.wait(lambda: listener.hellos)
    answer = listener.command("step", n=3)
    assert answer["ok"] is True
    assert answer["said"] == "step 3"


def test_a_command_that_fails_says_why_and_the_channel_goes_on(listener, dial):
    def refuse(name, args):
        raise LookupError("no such command")

    dialer = dial(listener.path, on_command=refuse)
    listener.wait(lambda: listener.hellos)
    answer = listener.command("fly")
    assert (answer["ok"], answer["cause"]) == (False, "no such command")
    dialer.emit("metric", {"number": 1})
    assert dialer.flush(10)


def test_an_answer_that_no_line_can_carry_is_refused_and_the_channel_goes_on(listener, dial):
    def shout(name, args):
        if name == "fail":
            raise LookupError("x" * (2 << 20))
        return {"said": "x" * (2 << 20)}

    dial(listener.path, on_command=shout)
    listener.wait(lambda: listener.hellos)
    assert listener.command("say")["cause"] == "the answer is longer than 1 MiB"
    assert set(listener.command("fail")["cause"]) == {"x"}
    assert len(listener.hellos) == 1, "the connection broke"


def test_garbage_from_the_peer_breaks_the_connection_and_it_is_made_again(listener, dial):
    dialer = dial(listener.path)
    listener.wait(lambda: listener.hellos)
    listener._connections[-1].sendall(b"\xff not json\n")
    listener.wait(lambda: len(listener.hellos) == 2)
    dialer.emit("metric", {"number": 1})
    assert dialer.flush(10)


def test_a_process_whose_supervisor_is_gone_ends_soon(tmp_path):
    dialer = Dialer("loop", str(tmp_path / "job.sock"))
    dialer.start()
    dialer.emit("metric", {"number": 1})
    began = time.monotonic()
    assert dialer.close() is False
    assert time.monotonic() - began < 2


CLOSES_ALL = """\
import os, sys, time
from rdev.wire.dial import Dialer
dialer = Dialer("hook", sys.argv[1])
dialer.start()
while not dialer.connected:
    time.sleep(0.001)
time.sleep(0.1)  # the channel's thread comes to rest
os.closerange(3, 256)
files = [os.open(f"{sys.argv[2]}/{n}", os.O_RDWR | os.O_CREAT) for n in range(16)]
began = time.monotonic()
if os.fork() == 0:
    os._exit(0)
os.wait()
dialer.emit("metric", {})
dialer.close(flush_seconds=0.2)
print([os.fstat(file).st_size for file in files], time.monotonic() - began < 0.9)
"""


def test_the_files_of_a_program_that_closed_all_descriptors_are_its_own(listener, tmp_path):
    command = [sys.executable, "-c", CLOSES_ALL, listener.path, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
    assert done.stdout == f"{[0] * 16} True\n"


def test_a_closed_dialer_has_no_thread_and_takes_no_memory(listener):
    dialer = Dialer("loop", listener.path)
    dialer.start()
    assert dialer.close()
    for _ in range(10):
        dialer.emit("metric", {})
    assert not dialer._inbox
    assert channel_threads() == []


def times_woken(thread):
    status = Path(f"/proc/self/task/{thread.native_id}/status").read_text()
    return sum(int(line.split()[1]) for line in status.splitlines() if "ctxt_switches" in line)


def test_a_channel_without_events_comes_to_rest_and_is_not_woken(listener, dial):
    dialer = dial(listener.path)
    dialer.emit("metric", {"number": 1})
    assert dialer.flush(10)
    [thread] = channel_threads()
    deadline = time.monotonic() + 20
    woken = -1
    while woken != (woken := times_woken(thread)):
        assert time.monotonic() < deadline, "it never rests"
        time.sleep(0.5)  # the time in which nothing may wake it


FORKING = """
import os, sys, threading
from rdev.wire.dial import Dialer

dialer = Dialer("loop", sys.argv[1], redial_in_children=True)
dialer.start()
for round in range(20):
    dialer.emit("metric", {"number": round})
    child = os.fork()
    if child == 0:
        dialer.emit("child", {"number": round, "parent": os.getppid()})
        done = dialer.flush(10)
        os._exit(0 if done else 3)
    assert os.waitpid(child, 0)[1] == 0
assert dialer.flush(10)
assert [t.name for t in threading.enumerate()].count("rdev-channel") == 1
dialer.close()
"""


@pytest.mark.parametrize("version", ["3.10", "3.11", "3.12", "3.13", "3.14"])
def test_a_process_that_forks_is_not_warned_and_both_sides_report(version, listener):
    python = interpreters().get(version)
    if python is None:
        pytest.skip(f"no Python {version} on this machine")
    result = subprocess.run(
        [python, "-W", "error", "-c", FORKING, listener.path],
        env={"PYTHONPATH": str(ROOT / "agent"), "PATH": os.environ["PATH"]},
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (result.returncode, result.stderr) == (0, "")
    parents = {event["parent"] for event in listener.of_kind("child")}
    assert sorted(event["number"] for event in listener.of_kind("child")) == list(range(20))
    assert len(parents) == 1
    assert numbers(listener) == list(range(20))


def test_a_forked_child_that_never_speaks_does_not_dial(listener):
    code = (
        "import os, sys\n"
        "from rdev.wire.dial import Dialer\n"
        "dialer = Dialer('loop', sys.argv[1])\n"
        "dialer.start(); dialer.emit('metric', {'number': 1}); assert dialer.flush(10)\n"
        "child = os.fork()\n"
        "if child == 0: os._exit(len(os.listdir('/proc/self/task')) - 1)\n"
        "assert os.waitpid(child, 0)[1] == 0\n"
        "dialer.close()\n"
    )
    environment = {"PYTHONPATH": str(ROOT / "agent"), "PATH": os.environ["PATH"]}
    command = [sys.executable, "-W", "error", "-c", code, listener.path]
    subprocess.run(command, env=environment, check=True, timeout=30)
    assert len(listener.hellos) == 1
