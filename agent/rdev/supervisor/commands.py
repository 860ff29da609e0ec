"""The commands of the agent: stop, signal, peers, and route to a hook or loop of the job."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from rdev.supervisor.connections import AGENT, Peer, Server
from rdev.wire.job import Window


class Stoppable(Protocol):
    """What can be done to the job itself."""

    def stop(self, *, is_now: bool, is_all: bool) -> None:
        """Begins to stop it; now means without grace, all that nothing in it is spared."""

    def send_signal(self, number: int) -> None:
        """Signals its process group."""

    def take_input(self) -> None:
        """Feeds it what was written into its input."""

    def resize(self, window: Window) -> None:
        """Gives its terminal a size; nothing happens if it has none."""


class Commands:
    """Answers commands; remembers which of them other peers have to answer."""

    def __init__(self, server: Server, job: Stoppable) -> None:
        self._server = server
        self._job = job
        self._last = 0
        # Our id of a routed command: who asked, under which id, and who has to answer.
        self._routed: dict[str, tuple[Peer, object, Peer]] = {}

    def on_message(self, peer: Peer, message: Mapping[str, Any]) -> None:
        """A peer sent a command or the result of one; anything else is ignored."""
        if message.get("type") == "command":
            try:
                self._on_command(peer, message)
            except (AttributeError, KeyError, OSError, TypeError, ValueError) as error:
                _refuse(peer, message.get("id"), f"the arguments are wrong: {error}")
        elif message.get("type") == "result":
            asker, asked, answerer = self._routed.get(str(message.get("id")), (None, None, None))
            if asker is not None and answerer is peer:
                del self._routed[str(message["id"])]
                asker.send({**message, "id": asked})

    def on_gone(self, peer: Peer) -> None:
        """A connection closed: what it still had to answer fails."""
        for ours, (asker, asked, answerer) in list(self._routed.items()):
            if peer is asker:
                del self._routed[ours]
            elif peer is answerer:
                del self._routed[ours]
                _refuse(asker, asked, "the process has gone")

    def _on_command(self, peer: Peer, message: Mapping[str, Any]) -> None:
        name, asked = message.get("name"), message.get("id")
        arguments = message.get("args") or {}
        if peer.role != AGENT:
            _refuse(peer, asked, f"a {peer.role} has no command {name!r} here")
        elif name == "stop":
            is_now, is_all = bool(arguments.get("now")), bool(arguments.get("all"))
            self._job.stop(is_now=is_now, is_all=is_all)
            peer.send({"type": "result", "id": asked, "ok": True})
        elif name == "signal":
            self._job.send_signal(int(arguments["signal"]))
            peer.send({"type": "result", "id": asked, "ok": True})
        elif name == "input":
            self._job.take_input()
            peer.send({"type": "result", "id": asked, "ok": True})
        elif name == "resize":
            self._job.resize(Window(int(arguments["rows"]), int(arguments["columns"])))
            peer.send({"type": "result", "id": asked, "ok": True})
        elif name == "peers":
            peers = [other.describe() for other in self._server.peers if other.role != AGENT]
            peer.send({"type": "result", "id": asked, "ok": True, "peers": peers})
        elif name == "route":
            self._route(peer, asked, arguments)
        else:
            _refuse(peer, asked, f"there is no command {name!r}")

    def _route(self, peer: Peer, asked: object, arguments: Mapping[str, Any]) -> None:
        role, rank = str(arguments.get("role")), int(arguments.get("rank", 0))
        target = self._server.find(role, rank, pid=arguments.get("pid"))
        if target is None:
            _refuse(peer, asked, f"no {role} of rank {rank} is connected")
            return
        self._last += 1
        ours = f"r{self._last}"
        self._routed[ours] = (peer, asked, target)
        command = {"type": "command", "id": ours, "name": arguments.get("name")}
        target.send({**command, "args": arguments.get("args") or {}})


def _refuse(peer: Peer, asked: object, cause: str) -> None:
    peer.send({"type": "result", "id": asked, "ok": False, "cause": cause})
