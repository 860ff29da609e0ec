"""A little listener at the supervisor's end of the job channel, speaking `rdev.wire.channel`."""

import os
import socket
import threading
from contextlib import suppress

from rdev.wire import channel
from rdev.wire.unix import short_socket_path


class Listener:
    """Welcomes dialers, records their events, acknowledges them, and can be stopped and replaced.

    Events are recorded in `events` by (pid, seq), once each, whatever number of times they come.
    """

    def __init__(self, directory, *, known=None, acknowledging=True):
        self.path = str(directory / "job.sock")
        self.events = {} if known is None else known
        self.hellos = []
        self.results = []
        self.changed = threading.Condition()
        self.acknowledging = acknowledging
        self._connections = []
        self._threads = []
        self._socket = socket.socket(socket.AF_UNIX)
        with suppress(FileNotFoundError):
            os.unlink(self.path)
        with short_socket_path(self.path) as path:
            self._socket.bind(path)
        self._socket.listen()
        self._start(self._accept)

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.stop()

    def stop(self):
        """Dies: closes the listener and every connection."""
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self.break_connections()
        for thread in self._threads:
            thread.join(5)

    def break_connections(self):
        """Closes every connection and goes on listening."""
        for connection in list(self._connections):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def command(self, name, **args):
        """Sends a command to the process that dialed last and returns its answer."""
        asked = len(self.results)
        message = {"type": "command", "id": str(asked), "name": name, "args": args}
        self._connections[-1].sendall(channel.encode(message))
        self.wait(lambda: len(self.results) > asked)
        return self.results[-1]

    def wait(self, condition, *, seconds=10):
        """Waits until the condition holds; fails the test if it does not in time."""
        with self.changed:
            assert self.changed.wait_for(condition, seconds), "nothing happened in time"

    def kinds(self):
        """Kinds of the recorded events, in order of their numbers, over all processes."""
        return [self.events[key]["kind"] for key in sorted(self.events)]

    def of_kind(self, kind):
        """Recorded events of one kind, in order."""
        return [self.events[key] for key in sorted(self.events) if self.events[key]["kind"] == kind]

    def _start(self, body, *arguments):
        thread = threading.Thread(target=body, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self):
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            self._start(self._serve, connection)

    def _serve(self, connection):
        lines = channel.LineBuffer()
        with connection, suppress(OSError):
            pid = 0
            while data := connection.recv(65536):
                for line in lines.feed(data):
                    message = channel.decode(line)
                    if message["type"] == "hello":
                        pid = message["pid"]
                        self._welcome(connection, message)
                    else:
                        self._note(pid, message)
                if self.acknowledging and pid:
                    reply = {"type": "ack", "seq": self._highest(pid)}
                    connection.sendall(channel.encode(reply))

    def _welcome(self, connection, message):
        self._connections.append(connection)
        welcome = {"type": "welcome", "version": channel.VERSION, "job": "0" * 12}
        welcome["acknowledged"] = self._highest(message["pid"])
        connection.sendall(channel.encode(welcome))
        with self.changed:
            self.hellos.append(message)
            self.changed.notify_all()

    def _note(self, pid, message):
        with self.changed:
            if message["type"] == "event":
                self.events.setdefault((pid, message["seq"]), message)
            else:
                self.results.append(message)
            self.changed.notify_all()

    def _highest(self, pid):
        return max((seq for owner, seq in list(self.events) if owner == pid), default=0)
