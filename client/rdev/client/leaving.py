"""Leaves a host: hangs up, ends its agent, or takes rdev off it and forgets it.

known? --no--> nothing to do
  '-- yes --> [asked: agent stopped, or all of rdev removed there] --> hung up --> [forgotten]
                        '-- refused: jobs live, outputs would be lost; nothing was touched
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import shlex
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Any

from rdev.client.bootstrap.words import agent_command
from rdev.client.hosts import LOCAL, endpoint_of, phrase
from rdev.client.known import KnownHost, forget, known_hosts, recall
from rdev.client.session.running import end_all
from rdev.client.transport.contract import Ran, Transport
from rdev.client.transport.opening import open_transport
from rdev.protocol.errors import (
    JobConflict,
    OutputsLeft,
    RdevError,
    UsageError,
    error_from_json,
    os_failure,
)
from rdev.wire.home import HOME_VARIABLE, this_home

Narrate = Callable[[str], None]
Ask = Callable[..., Awaitable[Ran]]

# A workspace of a million files on a network file system takes minutes to remove.
_PATIENCE = 1800.0

# What a login shell says where the release has gone; csh ends with 1 and says it.
_GONE_CODES = frozenset({126, 127})
_GONE = re.compile(r"not found|No such file or directory", re.IGNORECASE)
_STILL_THERE = "rdev-home there"


@dataclass(frozen=True, slots=True)
class Wanted:
    """How far to go.

    Attributes:
        agent: Stop the agent too.
        purge: Remove all of rdev there.
        discard: Outputs that no laptop has may go too.
    """

    agent: bool = False
    purge: bool = False
    discard: bool = False


@dataclass(frozen=True, slots=True)
class Left:
    """What was left.

    Attributes:
        was_known: The host had been met from here.
        was_connected: A connection to it was open and was ended; of `local`, a session here.
        agent: Process id of the agent that was stopped; None if none ran, or none was to stop.
        paths: What was removed there, absolute.
        size: Bytes that it took.
        kept: What stays there, in words.
    """

    was_known: bool = True
    was_connected: bool = False
    agent: int | None = None
    paths: tuple[str, ...] = ()
    size: int = 0
    kept: str = ""


async def leave(host: str, wanted: Wanted, *, narrate: Narrate) -> Left:
    """Leaves a host; its jobs go on.

    Args:
        host: Its name.
        wanted: How far to go.
        narrate: Told of what takes a while, one line for a person.

    Raises:
        JobConflict: Jobs live there, and all was to be removed; nothing was touched.
        OutputsLeft: Files would be lost; nothing was touched.
        UsageError: The host is somebody else's to see to.
        RdevError: It cannot be reached, or what its agent said.
    """
    if host == LOCAL:
        # What the session here stands for are commands to all hosts, and jobs on none.
        ended = end_all()
        return replace(await _done(host, wanted, _ask_here), was_connected=bool(ended))
    if endpoint_of(host) is not None:
        hint = "run `rdev-agent stop` or `rdev-agent purge` on the machine itself"
        raise UsageError(f"leave {host}", "somebody else leads to its agent", hint=hint)
    transport = open_transport(host)
    try:
        known = recall(host)
        if known is None:
            return Left(was_known=False, was_connected=await transport.hang_up())
        left = await _left_there(host, wanted, transport, known, narrate)
        await transport.hang_up()
        if wanted.purge:
            _forget(known)
        return left
    finally:
        await transport.close()


def _forget(gone: KnownHost) -> None:
    """Forgets a host whose agent is no more, by whatever names it was met."""
    forget(gone.host)
    for other in known_hosts():
        if gone.agent_id and other.agent_id == gone.agent_id:
            forget(other.host)


async def _left_there(
    host: str, wanted: Wanted, transport: Transport, known: KnownHost, narrate: Narrate
) -> Left:
    if not (wanted.agent or wanted.purge):
        return Left(was_connected=await transport.hang_up())
    await transport.login()
    if wanted.purge:
        narrate(f"{host}: removing rdev from {known.home}, if no job and no file stands in the way")

    async def ask(*words: str) -> Ran:
        return await transport.run(agent_command(known, *words), patience=_PATIENCE)

    try:
        return await _done(host, wanted, ask)
    except _ReleaseGoneError:
        if not await _has_home(transport, known) or not wanted.purge:
            return Left()
    # What was interrupted after the release had gone is finished by another one.
    from rdev.client.bootstrap.contact import first_contact

    known = await first_contact(host, transport, narrate=narrate)
    return await _done(host, wanted, ask)


async def _has_home(transport: Transport, known: KnownHost) -> bool:
    script = f"[ -d {shlex.quote(known.home)} ] && echo {shlex.quote(_STILL_THERE)}\n"
    ran = await transport.run("sh -s", feed=script.encode())
    return _STILL_THERE.encode() in ran.stdout


async def _done(host: str, wanted: Wanted, ask: Ask) -> Left:
    """Has the agent's own command do it."""
    if wanted.purge:
        discard = ["--discard-outputs"] if wanted.discard else []
        said = _answer(host, "remove rdev from", await ask("purge", "--json", *discard))
        return _removed(host, said)
    if wanted.agent:
        said = _answer(host, "stop the agent of", await ask("stop", "--json"))
        return Left(agent=said["pid"])
    return Left()


def _removed(host: str, said: dict[str, Any]) -> Left:
    try:
        paths = tuple(str(path) for path in said["paths"])
        return Left(paths=paths, size=int(said["size"]), kept=str(said["kept"]))
    except (KeyError, TypeError, ValueError):
        cause = "what it answered makes no sense"
        raise RdevError(f"remove rdev from {host}", cause) from None


async def _ask_here(*words: str) -> Ran:
    try:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-I", "-m", "rdev.agent.main", *words),
            env={**os.environ, HOME_VARIABLE: this_home().root},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
    except OSError as error:
        raise os_failure("run `rdev-agent`", error) from error
    stdout, stderr = await process.communicate()
    return Ran(process.returncode or 0, stdout, stderr)


class _ReleaseGoneError(Exception):
    """There is no `rdev-agent` any more where there was one."""


def _answer(host: str, action: str, ran: Ran) -> dict[str, Any]:
    """What the command said, as JSON on its last line.

    Raises:
        RdevError: It failed, in its words.
    """
    if ran.code == 0:
        try:
            body = json.loads(_last_line(ran.stdout))
        except ValueError:
            body = None
        if isinstance(body, dict):
            return body
        raise RdevError(f"{action} {host}", _last_line(ran.stdout) or "it said nothing")
    line = _last_line(ran.stderr)
    try:
        error = error_from_json(line)
    except ValueError:
        if ran.code in _GONE_CODES or _GONE.search(line):
            raise _ReleaseGoneError from None
        cause = line or f"it ended with {ran.code}"
        raise RdevError(f"{action} {host}", cause) from None
    raise _seen_from_here(host, action, error)


def _seen_from_here(host: str, action: str, error: RdevError) -> RdevError:
    """The error as a person reads it who is not on that machine."""
    hint = error.hint
    if isinstance(error, JobConflict):
        wait, stop = (phrase(verb, host, "JOB") for verb in ("wait", "stop"))
        hint = f"`{wait}` waits for one, `{stop}` ends it"
    elif isinstance(error, OutputsLeft):
        fetch = phrase("exec", host, "JOB", "--", "tar", "c", "PATH")
        hint = f"fetch what you need, as by `{fetch} | tar x`; --discard-outputs removes them too"
    return type(error)(f"{action} {host}", error.cause, hint=hint)


def _last_line(output: bytes) -> str:
    lines = output.decode(errors="replace").strip().splitlines()
    return lines[-1] if lines else ""
