"""An editor that speaks the Debug Adapter Protocol, at a socket or at an adapter's stdin and stdout."""

from __future__ import annotations

import os
import select
import socket
import subprocess
import time

from tests.support.command import DEADLINE

from rdev.protocol.dap import Framer, encode


class Editor:
    """Sends requests and finds the answers and events among what comes back.

    Attributes:
        seen: Every message received, in order.
    """

    def __init__(self, read: int, write: int) -> None:
        self._read, self._write = read, write
        self._framer, self._waiting, self._seq = Framer(), [], 0
        self.seen: list[dict] = []

    def send(self, command: str, **arguments) -> int:
        self._seq += 1
        message = {"seq": self._seq, "type": "request", "command": command}
        data = encode({**message, "arguments": arguments})
        while data:
            data = data[os.write(self._write, data) :]
        return self._seq

    def receive(self, condition) -> dict:
        deadline = time.monotonic() + DEADLINE
        while True:
            for message in self._waiting:
                if condition(message):
                    self._waiting.remove(message)
                    return message
            left = deadline - time.monotonic()
            assert left > 0, self.seen
            if not select.select([self._read], [], [], left)[0]:
                continue
            data = os.read(self._read, 65536)
            assert data, ("the session ended", self.seen)
            arrived = self._framer.feed(data)
            self.seen += arrived
            self._waiting += arrived

    def end(self) -> None:
        """Returns once the other side has hung up."""
        while os.read(self._read, 65536):
            pass

    def response(self, command: str, **arguments) -> dict:
        number = self.send(command, **arguments)
        return self.receive(lambda m: m.get("request_seq") == number)

    def ask(self, command: str, **arguments) -> dict:
        answer = self.response(command, **arguments)
        assert answer["success"], answer
        return answer.get("body") or {}

    def event(self, name: str) -> dict:
        return self.receive(lambda m: m.get("event") == name)["body"]

    def attach(self, path: str, *lines: int, initialize=None, **arguments) -> list[dict]:
        """Attaches with breakpoints on these lines; what became of them."""
        self.ask("initialize", adapterID="debugpy", clientID="test", **(initialize or {}))
        number = self.send("attach", **arguments)
        self.receive(lambda m: m.get("event") == "initialized" or _is_refusal(m, number))
        placed = self.place(path, *lines)
        self.ask("configurationDone")
        answer = self.receive(lambda m: m.get("request_seq") == number)
        assert answer["success"], answer
        return placed

    def place(self, path: str, *lines: int) -> list[dict]:
        breakpoints = [{"line": line} for line in lines]
        return self.ask("setBreakpoints", source={"path": path}, breakpoints=breakpoints)[
            "breakpoints"
        ]

    def stop(self) -> tuple[int, dict]:
        """Waits for a stop; its thread and its innermost frame."""
        thread = self.event("stopped")["threadId"]
        return thread, self.ask("stackTrace", threadId=thread)["stackFrames"][0]

    def notices(self) -> list[str]:
        """What was shown to the person so far."""
        bodies = [m["body"] for m in self.seen if m.get("event") == "output"]
        return [body["output"] for body in bodies if body.get("category") == "important"]


def _is_refusal(message: dict, number: int) -> bool:
    assert message.get("request_seq") != number or message["success"], message
    return False


def at_port(port: int) -> tuple[socket.socket, Editor]:
    """An editor that has connected to a port of this machine."""
    connection = socket.create_connection(("127.0.0.1", port), timeout=DEADLINE)
    connection.setblocking(True)
    return connection, Editor(connection.fileno(), connection.fileno())


def of_process(process: subprocess.Popen) -> Editor:
    """An editor whose adapter is that process."""
    assert process.stdin is not None
    assert process.stdout is not None
    return Editor(process.stdout.fileno(), process.stdin.fileno())
