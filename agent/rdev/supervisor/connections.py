"""The supervisor's end of the job's control socket: who is connected, and what they say.

waiting -> accepted -> (not our user: closed) -> hello -> welcome -> lines both ways -> closed
   '--no descriptor or memory for it--> (a second later) waiting
"""

from __future__ import annotations

import contextlib
import os
import selectors
import socket
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Protocol

from rdev.supervisor.platform import complain
from rdev.wire.channel import (
    VERSION,
    ChannelError,
    LineBuffer,
    clean_text,
    decode,
    encode,
    small_number,
)
from rdev.wire.unix import peer_uid

AGENT = "agent"

# What a peer that does not read may have waiting; beyond it the connection is dropped, and the
# peer dials again and asks for the state.
_OUT_LIMIT = 4 << 20

# How long nobody is let in after that failed for want of a descriptor or memory; who dials waits.
_PAUSE = 1.0

_NAME = "job.sock"


class Listener(Protocol):
    """What the supervisor does with a connection; called from its one thread, must not block."""

    def on_hello(self, peer: Peer) -> None:
        """The peer has said who it is."""

    def on_message(self, peer: Peer, message: dict[str, Any]) -> None:
        """The peer says something else."""

    def on_read(self, peer: Peer) -> None:
        """All that arrived together has been passed on; the peer may be closed by now."""

    def on_gone(self, peer: Peer) -> None:
        """The connection is closed."""


class Peer:
    """One connection."""

    def __init__(self, connection: socket.socket, server: Server) -> None:
        self.connection = connection
        self.role = ""
        self.rank = 0
        self.pid = 0
        self.script = ""
        self.python = ""
        self._server = server
        self._lines = LineBuffer()
        self._out = bytearray()

    def send(self, message: Mapping[str, Any]) -> None:
        """Sends a message now or as soon as the peer reads; a closed connection takes it."""
        if self.connection.fileno() < 0:
            return
        self._out += encode(message)
        if len(self._out) > _OUT_LIMIT:
            self._server.drop(self)
            return
        self.flush()

    def flush(self) -> None:
        """Sends what is waiting, as far as the peer takes it."""
        try:
            sent = self.connection.send(self._out) if self._out else 0
            del self._out[:sent]
        except BlockingIOError:
            pass
        except OSError:
            self._server.drop(self)
            return
        self._server.watch(self, is_writing=bool(self._out))

    def describe(self) -> dict[str, Any]:
        """The peer for the answer to `peers`."""
        names = ("role", "rank", "pid", "script", "python")
        return {name: getattr(self, name) for name in names}

    def receive(self) -> list[dict[str, Any]] | None:
        """Reads once and returns the messages that are whole; None if there is nothing to read.

        The end of the input drops the peer.
        """
        try:
            data = self.connection.recv(1 << 18)
        except BlockingIOError:
            return None
        except OSError:
            data = b""
        try:
            messages = [decode(line) for line in self._lines.feed(data) if line]
        except ChannelError:
            data, messages = b"", []
        if not data:
            self._server.drop(self)
            return None
        return messages


class Server:
    """The listening socket and all connections.

    Attributes:
        resume_at: When `resume` wants to be called, on CLOCK_MONOTONIC; None while all are let in.
    """

    def __init__(
        self, selector: selectors.BaseSelector, listener: Listener, *, job_id: str
    ) -> None:
        self.peers: list[Peer] = []
        self._selector = selector
        self._listener = listener
        self._job_id = job_id
        self._socket = _listen()
        self.resume_at: float | None = None
        selector.register(self._socket, selectors.EVENT_READ, self._accept)

    def welcome(self, peer: Peer, *, acknowledged: int) -> None:
        """Answers a hello."""
        body = {"type": "welcome", "version": VERSION, "job": self._job_id}
        peer.send({**body, "acknowledged": acknowledged})

    def find(self, role: str, rank: int, *, pid: int | None = None) -> Peer | None:
        """The peer of that role and rank that connected first; of that process, if one is named."""
        for peer in self.peers:
            if (peer.role, peer.rank) == (role, rank) and pid in (None, peer.pid):
                return peer
        return None

    def find_process(self, pid: int) -> Peer | None:
        """Any peer, hook or loop, of that process."""
        return next((peer for peer in self.peers if peer.pid == pid and peer.role != AGENT), None)

    def tell_agents(self, message: Mapping[str, Any]) -> None:
        """Sends to every agent."""
        for peer in [peer for peer in self.peers if peer.role == AGENT]:
            peer.send(message)

    def watch(self, peer: Peer, *, is_writing: bool) -> None:
        """Waits for room to write too, or not any more."""
        events = selectors.EVENT_READ | (selectors.EVENT_WRITE if is_writing else 0)
        key = self._selector.get_key(peer.connection)
        if key.events != events:
            self._selector.modify(peer.connection, events, key.data)

    def drop(self, peer: Peer) -> None:
        """Closes a connection; again is harmless."""
        if peer not in self.peers:
            return
        self.peers.remove(peer)
        self._selector.unregister(peer.connection)
        peer.connection.close()
        self._listener.on_gone(peer)

    def drain(self) -> None:
        """Takes in all that processes of the job have said and that nobody has read yet."""
        with contextlib.suppress(OSError):  # no descriptor: then without those who still wait
            while self._accept_one():
                pass
        for peer in [peer for peer in self.peers if peer.role != AGENT]:
            while self._guarded(peer, partial(self._pass_on, peer)):
                pass

    def resume(self) -> None:
        """Lets peers in again once the pause is over."""
        if self.resume_at is not None and time.monotonic() >= self.resume_at:
            self.resume_at = None
            self._selector.register(self._socket, selectors.EVENT_READ, self._accept)

    def close(self) -> None:
        """Says goodbye: what is waiting is sent if the peer takes it within half a second."""
        for peer in list(self.peers):
            peer.connection.settimeout(0.5)
            peer.flush()
            peer.connection.close()
        self._socket.close()
        with contextlib.suppress(FileNotFoundError):
            os.unlink(_NAME)

    def _accept(self, _events: int) -> None:
        try:
            self._accept_one()
        except OSError:
            # Whoever dials stays in the queue, so the socket stays readable: it is not asked.
            self._selector.unregister(self._socket)
            self.resume_at = time.monotonic() + _PAUSE

    def _accept_one(self) -> bool:
        """Lets one peer in; False if nobody waits.

        Raises:
            OSError: There is no descriptor or no memory for it.
        """
        try:
            connection, _ = self._socket.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return False
        if peer_uid(connection) != os.geteuid():
            connection.close()
            return True
        connection.settimeout(0)
        peer = Peer(connection, self)
        self._selector.register(
            connection, selectors.EVENT_READ, lambda events: self._serve(peer, events)
        )
        self.peers.append(peer)
        return True

    def _serve(self, peer: Peer, events: int) -> None:
        if events & selectors.EVENT_WRITE:
            self._guarded(peer, peer.flush)
        if events & selectors.EVENT_READ and peer in self.peers:
            self._guarded(peer, partial(self._pass_on, peer))

    def _guarded(self, peer: Peer, call: Callable[[], bool | None]) -> bool:
        """What the call returns; False if it failed, and the connection is closed then."""
        try:
            return bool(call())
        except Exception:  # noqa: BLE001  # whatever one peer says, the job and the others go on
            complain()
            self.drop(peer)
            return False

    def _pass_on(self, peer: Peer) -> bool:
        """Reads once and passes on what is whole; False if there was nothing to read."""
        messages = peer.receive()
        for message in messages or ():
            if message.get("type") == "hello":
                _introduce(peer, message)
                self._listener.on_hello(peer)
            elif peer.role:
                self._listener.on_message(peer, message)
        if messages:
            self._listener.on_read(peer)
        return messages is not None


def _introduce(peer: Peer, hello: Mapping[str, Any]) -> None:
    peer.role = clean_text(hello.get("role", ""))
    peer.rank = small_number(hello.get("rank"))
    peer.pid = small_number(hello.get("pid"))
    peer.script = clean_text(hello.get("script", ""))
    peer.python = clean_text(hello.get("python", ""))


def _listen() -> socket.socket:
    """Binds in the current folder, the job's: the path may be longer than a socket's may be."""
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listening.settimeout(0)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(_NAME)
    listening.bind(_NAME)
    os.chmod(_NAME, 0o600)
    listening.listen(128)
    return listening
