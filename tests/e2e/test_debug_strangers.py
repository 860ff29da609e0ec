"""`rdev debug --pid`: a debugger in a Python process that rdev did not start."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tests.support.command import DEADLINE
from tests.support.guest import as_guest
from tests.support.interpreters import INTERPRETERS

pytestmark = [
    pytest.mark.shared_agent,
    pytest.mark.skipif(os.uname().machine != "x86_64", reason="strangers are entered on x86-64"),
]

LOOP = """\
import os
import threading
import time

def train():
    total = step = 0
    while not os.path.exists("stop"):
        loss = step * 2
        total += loss
        step += 1
        time.sleep(0.002)
    return total == step * (step - 1)

print("begun", flush=True)
print("right" if train() else "wrong")
print(threading.main_thread().native_id == os.getpid(), threading.active_count())
"""
