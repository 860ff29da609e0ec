"""`rdev run` at a real terminal: what Ctrl-C asks, and what the answers do."""

import os
import select
import time
from contextlib import contextmanager

import pytest
from tests.support.command import DEADLINE

CTRL_C = b"\x03"
SCRIPT = """
import signal, sys, time
signal.signal(signal.SIGINT, lambda *_: (print("interrupted", flush=True), sys.exit(9)))
print("ready", flush=True)
time.sleep(60)
"""


class Terminal:
    """The far end of a pseudo-terminal that a command runs in."""

    def __init__(self, descriptor, process):
        self.descriptor = descriptor
        self.process = process
        self.seen = b""

    def type(self, keys: bytes) -> None:
        os.write(self.descriptor, keys)

    def expect(self, text: bytes) -> None:
        """Returns once `text` has been shown."""
        deadline = time.monotonic() + DEADLINE
        while text not in self.seen:
            left = deadline - time.monotonic()
            assert left > 0, self.seen
            if select.select([self.descriptor], [], [], left)[0]:
                self.seen += os.read(self.descriptor, 65536)


@pytest.fixture
def terminal(rdev):
    @contextmanager
    def run(*words: str):
        ours, theirs = os.openpty()
        try:
            with rdev.started(
                *words,
                stdin=theirs,
                stdout=theirs,
                stderr=theirs,
                preexec_fn=lambda: _take_terminal(theirs),
            ) as process:
                yield Terminal(ours, process)
        finally:
            os.close(ours)
            os.close(theirs)

    return run


def _take_terminal(descriptor: int) -> None:
    import fcntl
    import termios

    os.setsid()
    fcntl.ioctl(descriptor, termios.TIOCSCTTY, 0)


def test_ctrl_c_then_d_detaches(rdev, terminal):
    rdev.write("train.py", SCRIPT)
    with terminal("run", "train.py") as shown:
        shown.expect(b"ready")
        shown.type(CTRL_C)
        shown.expect(b"d = detach")
        shown.type(b"d\n")
        shown.expect(b"rdev attach")
        assert shown.process.wait(DEADLINE) == 0
    assert rdev.json("ps")[0]["state"] == "running"


@pytest.mark.parametrize("answer", [b"\n", CTRL_C])
def test_ctrl_c_then_enter_or_ctrl_c_interrupts_the_job(rdev, terminal, answer):
    rdev.write("train.py", SCRIPT)
    with terminal("run", "train.py") as shown:
        shown.expect(b"ready")
        shown.type(CTRL_C)
        shown.expect(b"d = detach")
        shown.type(answer)
        shown.expect(b"interrupted")
        assert shown.process.wait(DEADLINE) == 9


def test_ctrl_c_in_attach_detaches_without_asking(rdev, terminal):
    rdev.write("train.py", SCRIPT)
    rdev.run("run", "-d", "train.py")
    with terminal("attach") as shown:
        shown.expect(b"ready")
        shown.type(CTRL_C)
        shown.expect(b"detached")
        assert shown.process.wait(DEADLINE) == 0
    assert rdev.json("ps")[0]["state"] == "running"


def test_a_terminal_that_goes_away_leaves_the_job_running(rdev, terminal):
    rdev.write("train.py", SCRIPT)
    with terminal("run", "train.py") as shown:
        shown.expect(b"ready")
        pid = shown.process.pid
    # The pseudo-terminal is closed and rdev killed with it, as when a window is closed.
    assert not os.path.exists(f"/proc/{pid}")
    assert rdev.json("ps")[0]["state"] == "running"
