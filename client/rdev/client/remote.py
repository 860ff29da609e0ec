"""A host that ssh leads to: its transport, what is remembered of it, and the line to its agent.

login -> recall or first contact -> line open -> GetAgent -> pinned, and not too old -> shortcut
                  ^                    | no such command: what was put there has gone
                  '--------------------'  (once)

recall -> shortcut there -> GetAgent -> pinned, and not too old
                               '-- nothing answers, or too old: all of the above
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator
from typing import TYPE_CHECKING

from rdev.client.known import KnownHost, recall
from rdev.client.transport.contract import Transport
from rdev.client.transport.line import Line
from rdev.client.transport.opening import open_transport
from rdev.client.transport.shortcut import Shortcut
from rdev.protocol.convert import LOGIN_UNKNOWN, AgentInfo
from rdev.protocol.errors import BootstrapFailed, CommandNotFound, os_failure

if TYPE_CHECKING:
    from rdev.client.bootstrap.contact import Wishes

Narrate = Callable[[str], None]

# An agent starts within a second; its login's shell is waited for up to ten, see rdev.agent.login.
_SLOW = 3.0


class Remote:
    """An open way to one host.

    Attributes:
        known: What is remembered of it.
        follows_others: Whether an agent of the same version, and yet of another release, is to be
            followed by one of ours; else only an older one is.
        renews: Whether one of the same release is followed too: a new one asks the login's shell
            again what jobs get.
        is_first: Whether rdev was just put there or looked at, and an agent may have to start.
    """

    def __init__(
        self, host: str, transport: Transport, known: KnownHost, line: Line, narrate: Narrate
    ) -> None:
        self.known = known
        self.follows_others = False
        self.renews = False
        self.is_first = False
        self._host = host
        self._transport = transport
        self._line = line
        self._narrate = narrate
        self._shortcut: Shortcut | None = None
        self._was_in = False

    def comes_by(self, shortcut: Shortcut) -> None:
        """Says which shortcut the line's path is a link to."""
        self._shortcut = shortcut

    @property
    def is_short(self) -> bool:
        """See `Way`."""
        return self._line.is_short

    @property
    def socket(self) -> str:
        """Path of the socket here that leads to the agent."""
        return self._line.path

    async def reach(self, dial: Callable[[], bool]) -> None:
        """Returns when a bridge to the agent is ready.

        Args:
            dial: Makes gRPC connect to `socket`; true once it is connected.

        Raises:
            RdevError: What the transport, the bridge or a first contact said.
        """
        try:
            with self._told_if_slow():
                await self._line.open(dial)
        except CommandNotFound:
            await self._contact()
            with self._told_if_slow():
                await self._line.open(dial)

    @contextlib.contextmanager
    def _told_if_slow(self) -> Iterator[None]:
        """Says, after a first contact, what the agent's first start may be waiting for."""
        if not self.is_first:
            yield
            return
        line = f"{self._host}: its agent asks the login's shell what jobs get; rc files hold it up"
        telling = asyncio.get_running_loop().call_later(_SLOW, self._narrate, line)
        try:
            yield
        finally:
            telling.cancel()

    async def turn_back(self) -> None:
        """See `Way`."""
        self._line.leave_shortcut()
        if not self._was_in:  # who returns after a break asks nobody
            await self._transport.login()

    async def accept(self, agent: AgentInfo) -> bool:
        """Looks at who answered; True if another agent answers from now on, by a new bridge.

        Raises:
            HostChanged: It is not the agent that is known under this name.
            RdevError: An older one could not be followed by one of this release.
        """
        is_left = await self._judge(agent)
        if self.is_first and not is_left:
            self.is_first = False
            if LOGIN_UNKNOWN in agent.capabilities:
                said = "jobs do not get what a login has there"
                self._narrate(f"{self._host}: {said}; `rdev doctor {self._host}` says why")
        return is_left

    async def _judge(self, agent: AgentInfo) -> bool:
        from rdev.client.bootstrap import contact

        try:
            self.known = contact.pin(
                self.known,
                agent_id=agent.agent_id,
                machine_id=agent.machine_id,
                home_id=agent.home_id,
            )
        except OSError as error:
            raise os_failure("remember the host", error) from error
        if self._shortcut is not None and self.is_short:
            self._was_in = True
            if contact.is_outdated(agent.version):  # the next one comes by a bridge, and sees to it
                self._shortcut.remove()
            return False
        is_other = self.follows_others and agent.dist != self.known.dist
        renews = self.renews and not is_other and bool(self.known.dist)
        self.follows_others = self.renews = False  # once is enough, should it not come to be
        is_due = is_other or contact.is_outdated(agent.version)
        if contact.is_later(agent.version) or not (is_due or renews):
            await self._shorten()
            return False
        if not is_due:
            return await self._renew()
        try:
            known = await contact.upgrade(self._host, self._transport, narrate=self._narrate)
        except BootstrapFailed as error:
            if is_other:
                raise
            self._narrate(f"{self._host}: rdev {agent.version} there serves on: {error.cause}")
            return False
        self._learn(known)
        self._line.drop()  # what it led to has ended, which may not have shown yet
        return True

    async def _shorten(self) -> None:
        """Has later commands come by a shortcut."""
        shortcut = await self._transport.shortcut(_name_of(self.known))
        if shortcut is not None and self._line.far:
            self._transport.lay(shortcut, self._line.far)

    async def _renew(self) -> bool:
        from rdev.client.bootstrap.placing import take_over

        await take_over(self._host, self._transport, self.known)
        self._line.drop()
        return True

    async def _contact(self) -> None:
        from rdev.client.bootstrap.contact import first_contact

        self._learn(await first_contact(self._host, self._transport, narrate=self._narrate))
        self.is_first = True

    def _learn(self, known: KnownHost) -> None:
        self.known = known
        self._line.command = known.bridge


@contextlib.asynccontextmanager
async def opened(
    host: str, *, narrate: Narrate, wishes: Wishes | None = None
) -> AsyncIterator[Remote]:
    """Logs in to a host and puts rdev there if it is not known; nothing is connected yet.

    Args:
        host: Its name as the user writes it.
        narrate: Told of each step that takes a while, one line for a person.
        wishes: What a first contact shall be like; if given, there is one though the host is known.

    Raises:
        RdevError: It cannot be reached, or rdev cannot be put there.
    """
    transport = open_transport(host)
    try:
        known = recall(host)
        if known is not None and wishes is None:
            shortcut = await transport.shortcut(_name_of(known))
            if shortcut is not None and shortcut.is_there():
                async with Line(transport, known.bridge, shortcut=shortcut.path) as line:
                    remote = Remote(host, transport, known, line, narrate)
                    remote.comes_by(shortcut)
                    yield remote
                return
        await transport.login()
        is_known = known is not None
        is_first = known is None or wishes is not None
        if known is None or wishes is not None:
            from rdev.client.bootstrap import contact

            wanted = wishes or contact.Wishes()
            known = await contact.first_contact(host, transport, wishes=wanted, narrate=narrate)
        async with Line(transport, known.bridge) as line:
            remote = Remote(host, transport, known, line, narrate)
            remote.follows_others = wishes is not None
            remote.renews = wishes is not None and is_known
            remote.is_first = is_first
            yield remote
    finally:
        await transport.close()


def _name_of(known: KnownHost) -> str:
    """Names who a shortcut is for and leads to: after an upgrade of either a bridge comes first."""
    from rdev.client.bootstrap.contact import our_version

    whom = (known.host, known.agent_id, known.machine_id, known.home, known.bridge)
    return "\n".join((*whom, our_version()))
