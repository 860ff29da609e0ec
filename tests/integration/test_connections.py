"""The control socket, peers that go away, and output that moves meanwhile."""

import asyncio
import os
import selectors
import signal
import socket
import struct
import time

from tests.support.jobs import DEADLINE, jobs_in, tidy
from tests.support.processes import until

from rdev.supervisor.connections import Server
from rdev.wire.channel import encode
from rdev.wire.events import Event
from rdev.wire.output import unpack_arrivals
from rdev.wire.unix import short_socket_path


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


def welcomed(path):
    """Dials as a process of the job; returns the welcome, and when it was asked for and came."""
    with socket.socket(socket.AF_UNIX) as peer:
        peer.settimeout(DEADLINE)
        with short_socket_path(path) as short:
            peer.connect(short)
        begun = time.time_ns()
        peer.sendall(encode({"type": "hello", "role": "loop", "pid": 1}))
        return peer.recv(4096), begun, time.time_ns()


async def test_output_moves_while_a_long_record_of_events_is_read(tmp_path):
    source = "import time\nwhile True: print('tick', flush=True); time.sleep(0.002)\n"
    async with tidy(tmp_path / "jobs") as folder, jobs_in(folder) as jobs:
        job = await jobs.python(source)
        await jobs.first_bytes(job)
        files, before = jobs.files(job), jobs.supervisor(job)
        events = (Event("metric", 1.0, pid=1, seq=seq) for seq in range(1, 200_001))
        with open(files.events, "w", encoding="utf-8") as file:
            file.writelines(event.to_json() + "\n" for event in events)
        os.kill(before, signal.SIGKILL)
        await until(lambda: jobs.supervisor(job) not in (0, before))
        await jobs.manager.peers(job.id)
        welcome, begun, ended = await asyncio.to_thread(welcomed, files.socket)
        assert b'"acknowledged":200000' in welcome
        with open(files.index, "rb") as file:
            arrived = [arrival.time_ns for arrival in unpack_arrivals(file.read())]
        assert len([moment for moment in arrived if begun < moment < ended]) > 5
