"""The control socket and peers that go away."""

import selectors
import socket
import struct

from rdev.supervisor.connections import Server
from rdev.wire.channel import encode


class Fragile:
    """Fails when it is told that somebody has gone."""

    def __init__(self):
        self.gone = []

    def on_hello(self, peer):
        peer.send({"type": "welcome", "text": "x" * 900_000})

    def on_message(self, peer, message):
        pass

    def on_read(self, peer):
        pass

    def on_gone(self, peer):
        self.gone.append(peer)
        raise ValueError("on purpose")


def serve(selector):
    for key, events in selector.select(5):
        key.data(events)


def test_what_goes_wrong_while_a_peer_is_written_to_costs_only_its_connection(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    listener = Fragile()
    with selectors.DefaultSelector() as selector:
        server = Server(selector, listener, job_id="0" * 12)
        with socket.socket(socket.AF_UNIX) as first, socket.socket(socket.AF_UNIX) as second:
            first.connect("job.sock")
            first.sendall(encode({"type": "hello", "role": "hook", "pid": 1}))
            serve(selector)
            serve(selector)
            # It does not read: more waits for it than the socket takes. Then it is gone.
            (peer,) = server.peers
            assert selector.get_key(peer.connection).events & selectors.EVENT_WRITE
            first.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            first.close()
            serve(selector)
            assert (server.peers, listener.gone) == ([], [peer])
            second.connect("job.sock")
            serve(selector)
            assert len(server.peers) == 1
            server.close()
    assert "on purpose" in capsys.readouterr().err
