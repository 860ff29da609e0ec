"""A connection to the agent of one host, and the mapping of what can go wrong on it.

Nothing above this module sees a grpc type: calls are wrapped in `translating`, and what must
outlive a break in `persisting` (calls) and `resuming` (streams).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import socket
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import grpc

from rdev.client.hosts import LOCAL, Endpoint, endpoint_of
from rdev.client.narration import narrator
from rdev.protocol.convert import AgentInfo, agent_from_proto
from rdev.protocol.errors import (
    ConnectionLost,
    HostChanged,
    HostKeyRefused,
    HostUnreachable,
    LoginRefused,
    PermissionRefused,
    RdevError,
    TimedOut,
    VersionSkew,
    error_class,
)
from rdev.protocol.starting import ensure_agent
from rdev.protocol.transport import CLIENT_OPTIONS, DETAIL_KEY, REMOTE_OPTIONS
from rdev.v1 import agent_pb2, agent_pb2_grpc
from rdev.v1.error_pb2 import ErrorDetail
from rdev.wire.unix import peer_uid, short_socket_path

if TYPE_CHECKING:
    from rdev.client.bootstrap.contact import Wishes

Item = TypeVar("Item")

# Revision of the wire that this client needs at least.
REQUIRED_PROTOCOL = 1

# A healthy agent answers a unary call in milliseconds; a loaded machine may need seconds.
UNARY_DEADLINE = 30.0

# Retries after a break: from one scheduling quantum up to what a person still finds lively. Each is
# drawn from a range, so that the clients of a host that comes back do not all come at once.
_FIRST_DELAY, _LAST_DELAY = 0.05, 5.0
_SPREAD = 2.0

# An agent answers its first call within milliseconds once it listens; this long says that it may
# have died since.
_FIRST_PATIENCE = 2.0

# A host that refuses us does so again, and must not be asked for ever: a person has to see to it.
REFUSALS = (LoginRefused, HostKeyRefused, HostChanged)

# A host that has been away this long is reported, and the job left to itself.
_GIVE_UP = 60.0

_LOCAL_UPGRADE = "`rdev-agent upgrade` puts an agent of this release in its place; jobs go on"


class Way(Protocol):
    """How an agent is reached; `Local` is one on this machine, `Remote` one that ssh leads to."""

    @property
    def socket(self) -> str:
        """Path of the socket that gRPC connects to."""
        ...

    @property
    def is_short(self) -> bool:
        """Whether the agent, if it is there, answers at `socket` without `reach`."""
        ...

    async def turn_back(self) -> None:
        """Gives up what `is_short` speaks of, because nothing answered; `reach` is needed now."""
        ...

    async def reach(self, dial: Callable[[], bool]) -> None:
        """Makes the agent reachable, starting it where that is ours to do.

        Args:
            dial: Makes gRPC connect to `socket`; true once it is connected.

        Raises:
            HostUnreachable: It is not there; trying again later may help, except after a refusal.
            PermissionRefused: Somebody else answers in its place.
        """
        ...

    async def accept(self, agent: AgentInfo) -> bool:
        """Looks at who answered; True if another agent answers from now on.

        Raises:
            HostChanged: It is not the agent that is known.
        """
        ...


class Local:
    """An agent on this machine, or one that somebody forwards to a socket here."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.is_ours = endpoint.home is not None
        self._endpoint = endpoint

    @property
    def socket(self) -> str:
        """See `Way`; an agent of ours says it when it is reached."""
        return self._endpoint.socket

    @property
    def is_short(self) -> bool:
        """See `Way`; an agent of ours may have to be started."""
        return False

    async def turn_back(self) -> None:
        """See `Way`."""

    async def reach(self, dial: Callable[[], bool]) -> None:  # noqa: ARG002  # gRPC dials soon
        """See `Way`."""
        await asyncio.to_thread(_reach, self._endpoint)

    async def accept(self, agent: AgentInfo) -> bool:  # noqa: ARG002  # whoever has the socket
        """See `Way`."""
        return False


class Connection:
    """An open channel to one agent.

    Attributes:
        host: Name of the host, as the user wrote it.
        channel: For the sub-clients.
        agent: Who answered.
    """

    def __init__(self, host: str, channel: grpc.aio.Channel, agent: AgentInfo, *, way: Way) -> None:
        self.host = host
        self.channel = channel
        self.agent = agent
        self._way = way

    @property
    def is_short(self) -> bool:
        """Whether a shared connection of ssh's leads straight to the agent, without a bridge."""
        return self._way.is_short

    async def recover(self) -> None:
        """Makes the agent reachable again after a break, starting it where that is ours to do.

        Raises:
            HostUnreachable: It is not there yet; trying again later may help, unless it is one of
                `REFUSALS`.
            PermissionRefused: Somebody else answers in its place.
        """
        self.agent = await _met(self.host, self.channel, self._way)


@contextlib.asynccontextmanager
async def connect(
    host: str, *, narrate: Callable[[str], None] | None = None, wishes: Wishes | None = None
) -> AsyncIterator[Connection]:
    """Opens a connection to a host's agent; puts rdev there, and starts the agent, where needed.

    Args:
        host: Its name.
        narrate: Told of what takes a while, one line for a person; whoever the context names if
            None.
        wishes: What a first contact shall be like; if given, the host is looked at again though it
            is known, and an agent of another release than ours, except a later one, is followed.

    Raises:
        HostUnreachable: The host is unknown or does not answer, or lets nobody in.
        AgentStartFailed: The agent could not be started.
        VersionSkew: The agent is too old for this client.
    """
    async with _way_to(host, narrate or narrator.get(), wishes) as way:
        is_here = isinstance(way, Local)
        options = CLIENT_OPTIONS if is_here else REMOTE_OPTIONS
        if is_here:  # its socket is where it says; to another machine gRPC has to dial first
            await way.reach(_nothing)
        with short_socket_path(way.socket) as path:
            async with grpc.aio.insecure_channel(f"unix:{path}", options=options) as channel:
                agent = await (_welcomed if is_here else _met)(host, channel, way)
                yield Connection(host, channel, agent, way=way)


@contextlib.asynccontextmanager
async def _way_to(
    host: str, narrate: Callable[[str], None], wishes: Wishes | None
) -> AsyncIterator[Way]:
    endpoint = endpoint_of(host)
    if endpoint is not None:
        yield Local(endpoint)
        return
    from rdev.client.remote import opened

    async with opened(host, narrate=narrate, wishes=wishes) as way:
        yield way


async def _met(host: str, channel: grpc.aio.Channel, way: Way) -> AgentInfo:
    """Who answers, by a shortcut if there is one, else once the agent has been reached."""
    if way.is_short:
        try:
            agent = await _ask(host, channel, patience=UNARY_DEADLINE, waits=False)
        except ConnectionLost:  # its master or its agent has gone
            await way.turn_back()
        else:
            check_version(host, agent)
            await way.accept(agent)
            return agent
    await way.reach(_dialling(channel))
    return await _welcomed(host, channel, way)


async def _welcomed(host: str, channel: grpc.aio.Channel, way: Way) -> AgentInfo:
    """Who answers; an agent that is older than this release is followed by one of it first."""
    agent = await _identify(host, channel, way)
    if await way.accept(agent):
        await way.reach(_dialling(channel))
        agent = await _identify(host, channel, way)
        await way.accept(agent)
    return agent


def _dialling(channel: grpc.aio.Channel) -> Callable[[], bool]:
    ready = grpc.ChannelConnectivity.READY
    return lambda: channel.get_state(try_to_connect=True) is ready


def _nothing() -> bool:
    return False


def _reach(endpoint: Endpoint) -> None:
    if endpoint.home is None:
        _check_peer(endpoint.socket)
        return
    ensure_agent(endpoint.home)
    try:
        _check_peer(endpoint.socket)
    except HostUnreachable:  # it died between the two
        ensure_agent(endpoint.home)
        _check_peer(endpoint.socket)


def _check_peer(path: str) -> None:
    # gRPC does not show who listens, so a connection of our own asks the kernel. Of a forwarded
    # socket it names the forwarder, who sees and could change all that we say: us, or nobody.
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            with short_socket_path(path) as address:
                probe.connect(address)
        except OSError as error:
            cause = f"{path}: {error.strerror or error}"
            raise HostUnreachable("reach the agent", cause) from error
        uid = peer_uid(probe)
    if uid != os.geteuid():
        raise PermissionRefused("trust the agent", f"{path} is served by user {uid}")


async def _identify(host: str, channel: grpc.aio.Channel, way: Way) -> AgentInfo:
    # Behind a forwarded socket there may be nothing, which shows at once; an agent of our own that
    # was just started is worth waiting for, and one that died just now is started again. To a
    # remote one there is a bridge by now, and gRPC may be about to connect again.
    is_ours = isinstance(way, Local) and way.is_ours
    waits = is_ours or not isinstance(way, Local)
    patience = _FIRST_PATIENCE if is_ours else UNARY_DEADLINE
    waited = 0.0
    while True:
        try:
            agent = await _ask(host, channel, patience=patience, waits=waits)
            break
        except HostUnreachable:
            waited += patience
            if not is_ours or waited >= UNARY_DEADLINE:
                raise
        await way.reach(_nothing)
        patience *= 2  # it is there, and may be slow
    check_version(host, agent)
    return agent


async def _ask(host: str, channel: grpc.aio.Channel, *, patience: float, waits: bool) -> AgentInfo:
    action = f"reach the agent of {host}"
    try:
        with translating(action):
            response = await agent_pb2_grpc.AgentServiceStub(channel).GetAgent(
                agent_pb2.GetAgentRequest(), timeout=patience, wait_for_ready=waits
            )
    except TimedOut as error:
        raise HostUnreachable(action, "it does not answer") from error
    return agent_from_proto(response.agent)


def check_version(host: str, agent: AgentInfo) -> None:
    """Returns if this client can speak with `agent`.

    Raises:
        VersionSkew: The agent's wire is older than this client needs.
    """
    if agent.protocol >= REQUIRED_PROTOCOL:
        return
    import importlib.metadata  # costs 20 ms, and is hardly ever needed

    ours = importlib.metadata.version("rdev")
    raise VersionSkew(
        f"speak with the agent of {host}",
        f"it runs rdev {agent.version} (wire {agent.protocol}), this is rdev {ours} "
        f"(wire {REQUIRED_PROTOCOL})",
        hint=_LOCAL_UPGRADE if host == LOCAL else None,
    )


@contextlib.contextmanager
def translating(action: str) -> Iterator[None]:
    """Turns a grpc error into the `RdevError` it carries.

    Args:
        action: What was attempted, for errors that come without their own words.
    """
    try:
        yield
    except grpc.aio.AioRpcError as error:
        raise from_grpc(action, error) from error


# How gRPC words a peer that died while a call was under way; the status is then of no use.
_BROKEN = (grpc.StatusCode.UNKNOWN, grpc.StatusCode.INTERNAL)
_BREAKS = ("Stream removed", "Internal error from Core")


def from_grpc(action: str, error: grpc.aio.AioRpcError) -> RdevError:
    """The `RdevError` for a failed call; grpc's own status falls back to its category."""
    status = error.code().name
    for key, value in error.trailing_metadata() or ():
        if key == DETAIL_KEY and isinstance(value, bytes):
            detail = ErrorDetail.FromString(value)
            cls = error_class(detail.reason, status)
            return cls(detail.action, detail.cause, hint=detail.hint or None)
    if error.code() in _BROKEN and (error.details() or "").startswith(_BREAKS):
        return ConnectionLost(action, "the agent went away")
    return error_class("", status)(action, _plain(error.details() or status))


def _plain(details: str) -> str:
    # grpc's sentences end in addresses and debug strings that help nobody at a terminal.
    return details.split(";", 1)[0].removeprefix("failed to connect to all addresses").strip() or (
        "nothing answers"
    )


async def resuming(
    connection: Connection,
    open_stream: Callable[[], AsyncGenerator[Item, None]],
    *,
    on_break: Callable[[RdevError], None] | None = None,
) -> AsyncGenerator[Item, None]:
    """Yields from a stream and opens it anew whenever the connection breaks.

    `open_stream` is called again after each break and must begin where the last item left off.

    Args:
        connection: Recovered after each break.
        open_stream: Opens the stream at the caller's cursor.
        on_break: Told of each break.

    Raises:
        ConnectionLost: The host has been away for a minute; nothing is known of the stream's end.
    """
    delays = Backoff()
    while True:
        try:
            with translating("read the stream"):
                async with contextlib.aclosing(open_stream()) as stream:
                    async for item in stream:
                        delays.reset()
                        yield item
            return
        except ConnectionLost as error:
            if on_break is not None:
                on_break(error)
        await delays.wait()
        await _return(connection, delays)


async def persisting(connection: Connection, attempt: Callable[[], Awaitable[Item]]) -> Item:
    """Repeats a call that may be repeated until it gets through; returns what it returns.

    Args:
        connection: Recovered after each break.
        attempt: The call; it must be harmless to make it twice.

    Raises:
        ConnectionLost: The host has been away for a minute.
    """
    delays = Backoff()
    while True:
        with contextlib.suppress(ConnectionLost):
            return await attempt()
        await delays.wait()
        await _return(connection, delays)


async def _return(connection: Connection, delays: Backoff) -> None:
    try:
        await connection.recover()
    except REFUSALS:
        raise
    except HostUnreachable:
        return
    delays.answered()


async def responses(call: grpc.aio.UnaryStreamCall[Any, Item]) -> AsyncGenerator[Item, None]:
    """Yields a call's responses and cancels the call when the caller stops early."""
    try:
        async for response in call:
            yield response
    finally:
        call.cancel()


class Backoff:
    """Growing delays with jitter, and the moment to give up."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Begins anew, because something got through."""
        self._least = _FIRST_DELAY
        self.answered()

    def answered(self) -> None:
        """Gives the host its whole time again, because it is there; tries stay as rare."""
        self._deadline: float | None = None

    def next_delay(self) -> float:
        """Seconds to wait before the next try, between 50 ms and 5 s."""
        least = self._least
        self._least = min(least * 2, _LAST_DELAY / _SPREAD)
        return random.uniform(least, least * _SPREAD)

    async def wait(self) -> None:
        """Waits before the next try.

        Raises:
            ConnectionLost: The host has not answered for too long since the break.
        """
        now = time.monotonic()
        if self._deadline is None:  # a break: how long all was quiet before says nothing
            self._deadline = now + _GIVE_UP
        if now > self._deadline:
            raise ConnectionLost("return to the host", f"it has not answered for {_GIVE_UP:.0f} s")
        await asyncio.sleep(self.next_delay())
