"""The debug adapter: debugpy's own, in a process of its own, without a TCP port.

Run by path as `python -I adapter.py`. The first line of stdin is its order, one JSON object:

    debugpy       folder that holds the package debugpy
    client        descriptor of a connected unix socket that speaks DAP with the agent
    socket        path at which the job's process will connect, once; made 0600
    server_token  what the adapter says to pydevd
    client_token  what pydevd must say to the adapter

It writes one JSON object a line to stdout: `{"listening": true}`, then `{"debuggee": PID}` or
`{"error": CAUSE}`. It ends with its session, or when stdin ends, which is when the agent is gone.

debugpy's stock adapter listens on a TCP port that asks for no secret and takes its token from the
command line, where everybody can read it; its classes do neither.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import threading
from importlib import import_module
from typing import Any, NoReturn

from rdev.wire.unix import peer_uid, short_socket_path

# The hook connects as soon as it is asked to; a busy interpreter may take its time to import.
DEBUGGEE_SECONDS = 60.0


def main() -> NoReturn:
    """Serves one debug session."""
    order = json.loads(sys.stdin.readline())
    threading.Thread(target=_end_with_the_agent, daemon=True).start()
    sys.path.insert(0, order["debugpy"])
    adapter, clients, servers, sessions = _debugpy()
    servers.access_token = order["server_token"]
    adapter.access_token = order["client_token"]
    listener = _listen(order["socket"])
    servers.listener, clients.listener = _Elsewhere(), None
    sessions.report_sockets = lambda: None  # it tells the client TCP addresses, and there are none
    clients.Client(socket.socket(fileno=order["client"]))
    threading.Thread(target=_accept, args=(servers, listener, order["socket"]), daemon=True).start()
    _say({"listening": True})
    sessions.wait_until_ended()
    # Threads of debugpy's may still wait for a peer; nothing is left to write.
    os._exit(0)


def _debugpy() -> tuple[Any, Any, Any, Any]:
    names = ("adapter", "adapter.clients", "adapter.servers", "adapter.sessions")
    adapter, clients, servers, sessions = (import_module(f"debugpy.{name}") for name in names)
    return adapter, clients, servers, sessions


class _Elsewhere:
    """What debugpy takes for its listener for servers: it only asks for the address, to show it."""

    def getsockname(self) -> tuple[str, int]:
        return ("unix", 0)

    def close(self) -> None:
        """Nothing to close: the real listener is closed after its one connection."""


def _listen(path: str) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    os.umask(0o177)
    with short_socket_path(path) as address:
        listener.bind(address)
    listener.listen(1)
    listener.settimeout(DEBUGGEE_SECONDS)
    return listener


def _accept(servers: Any, listener: socket.socket, path: str) -> None:  # noqa: ANN401 - a module of debugpy's
    try:
        with listener:
            connection = _accept_own_user(listener)
    except OSError as error:
        _say({"error": f"the process did not connect: {error}"})
        return
    finally:
        os.unlink(path)
    server = servers.Connection(connection)
    if server.pid is None or server.disconnected:
        _say({"error": "the process connected and did not prove what it is"})
        return
    _say({"debuggee": server.pid})


def _accept_own_user(listener: socket.socket) -> socket.socket:
    while True:
        connection, _ = listener.accept()
        if peer_uid(connection) == os.geteuid():
            return connection
        connection.close()


def _end_with_the_agent() -> NoReturn:
    while sys.stdin.readline():
        pass
    os._exit(0)


def _say(message: dict[str, Any]) -> None:
    os.write(sys.stdout.fileno(), json.dumps(message).encode() + b"\n")


if __name__ == "__main__":
    main()
