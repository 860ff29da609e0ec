"""The zygote: a small process that forks keepers, so that the agent never forks itself.

The agent starts it isolated (`-I -S`) and says over a socket pair, one JSON line each, which job
directory wants a keeper; it answers whether that keeper has taken the job. It holds no state: it
may be killed and replaced at any time, and ends with its agent.
"""

from __future__ import annotations

import gc
import os
import signal
import socket

from rdev.supervisor.keeper import keep
from rdev.supervisor.platform import set_process_name
from rdev.wire.channel import decode, encode


def main(descriptor: int) -> None:
    """Serves requests on a socket until its other end is closed."""
    set_process_name("rdev-zygote")
    # Ctrl-C in the terminal that started the agent is for the agent.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    connection = socket.socket(fileno=descriptor)
    requests = connection.makefile("rb")
    # What is alive now is shared with all keepers; the collector must not touch its pages.
    gc.collect()
    gc.freeze()
    while line := requests.readline():
        request = decode(line)
        taken = _fork_keeper(str(request["directory"]), connection)
        connection.sendall(encode({"type": "answer", "id": request["id"], "taken": taken}))


def _fork_keeper(directory: str, connection: socket.socket) -> bool:
    """Forks twice, so that the keeper is nobody's child here; True once it has the job."""
    ready_read, ready_write = os.pipe()
    middle = os.fork()
    if middle == 0:
        os.close(ready_read)
        connection.detach()
        if os.fork():
            os._exit(0)
        _close_all_but(ready_write)
        keep(directory, ready=ready_write)
    os.close(ready_write)
    os.waitpid(middle, 0)
    taken = os.read(ready_read, 1) == b"k"
    os.close(ready_read)
    return taken


def _close_all_but(keep_open: int) -> None:
    os.closerange(3, keep_open)
    os.closerange(keep_open + 1, 4096)
