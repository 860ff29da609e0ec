"""A person whose host is reached by ssh and known already: this checkout runs there, elsewhere."""

from __future__ import annotations

import contextlib
import json
import shutil
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.support.command import Rdev, end_all
from tests.support.sshd import HOST, Server

from rdev.agent import lifecycle
from rdev.wire.home import Home, machine_id


@dataclass
class Away(Rdev):
    """Runs commands for a person; `local` is another host for them than `gpu1`.

    Attributes:
        agent_home: Of the agent at `gpu1`.
        variables: More of the person's environment.
    """

    agent_home: Path = Path()
    variables: dict[str, str] = field(default_factory=dict)

    @property
    def environment(self) -> dict[str, str]:
        return super().environment | self.variables

    def know(self, host: str = HOST, **changes: str) -> None:
        """Writes down what a first contact would have."""
        known = {
            "host": host,
            "agent_id": "",
            "machine_id": "",
            "home": str(self.agent_home),
            "bridge": f"env RDEV_HOME={self.agent_home} {sys.executable} -I -m rdev.agent.bridge",
            "dist": "",
            "release": "",
        }
        folder = self.home / "state" / "rdev" / "hosts"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{host}.json").write_text(json.dumps(known | changes))

    def known(self, host: str = HOST) -> dict[str, str]:
        """What is written down of a host."""
        return json.loads((self.home / "state/rdev/hosts" / f"{host}.json").read_text())

    @property
    def agent_pid(self) -> int:
        """Process id of the agent at `gpu1`."""
        return lifecycle.serving_pid(Home(str(self.agent_home), machine_id()))

    def tidy(self) -> None:
        super().tidy()
        end_all(self.agent_home, self.environment)


@contextlib.contextmanager
def away(rdev: Rdev, server: Server, *, transport: str = "") -> Iterator[Away]:
    """The person, whose ssh configuration knows the server as `gpu1`, for as long as the block."""
    # Sockets of shared connections have short paths only.
    short = Path(tempfile.mkdtemp(prefix="rdev-run-", dir="/var/tmp"))
    variables = {**server.environment, "XDG_RUNTIME_DIR": str(short), "SSH_AUTH_SOCK": ""}
    if transport:
        variables["RDEV_TRANSPORT"] = transport
    person = Away(rdev.home, rdev.cwd, short / "rdev-there", variables)
    person.know()
    try:
        yield person
    finally:
        person.tidy()
        shutil.rmtree(short, ignore_errors=True)
