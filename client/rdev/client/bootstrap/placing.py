"""Puts a release on a host: what is asked, sent and said, in this order."""

from __future__ import annotations

import asyncio
import shlex
from collections.abc import Callable, Sequence
from dataclasses import replace

from rdev.client.bootstrap.contact import Wishes
from rdev.client.bootstrap.fetch import NoIndexError, fetch
from rdev.client.bootstrap.lock import Wheel, locked
from rdev.client.bootstrap.payload import Parcel, installed, payload
from rdev.client.bootstrap.plan import Plan, make_plan, target_of
from rdev.client.bootstrap.probe import (
    Probe,
    ProbeUnreadableError,
    complaint_in,
    has_begun,
    parse,
    script,
    shell_hint,
)
from rdev.client.bootstrap.wheel import OwnWheel, pack
from rdev.client.bootstrap.words import agent_command, command
from rdev.client.entries import entry_of
from rdev.client.known import KnownHost, recall, remember
from rdev.client.transport.contract import Ran, Transport
from rdev.protocol.errors import (
    AgentStartFailed,
    BootstrapFailed,
    NoPython,
    RdevError,
    TimedOut,
    error_from_json,
)

Narrate = Callable[[str], None]

# A login takes seconds where it asks a directory service, and a probe a second; more is an rc file
# that waits for somebody.
_PROBE_PATIENCE = 30.0

# The slowest link that is worth waiting for, in bytes a second, and what unpacking takes.
_SLOW_LINK = 20_000
_INSTALL_PATIENCE = 180.0

# uv downloads some 30 MB for a Python.
_UV_PATIENCE = 300.0
_UV_PYTHON = "3.12"
_UV_MARKER = "rdev-uv "

# An agent that follows another has the time that the old one takes to end, and its own start.
_UPGRADE_PATIENCE = 60.0


async def place(host: str, transport: Transport, *, wishes: Wishes, narrate: Narrate) -> KnownHost:
    """See `rdev.client.bootstrap.contact.first_contact`."""
    earlier = await asyncio.to_thread(recall, host)
    wishes = await asyncio.to_thread(_with_usual, wishes, host, earlier)
    probe = await _probed(host, transport, wishes)
    own = await asyncio.to_thread(pack)
    plan = make_plan(
        host,
        probe,
        release=own.release,
        wheels=locked(),
        own=own.unpacked,
        again=wishes.again,
    )
    dist, home_id = f"{plan.dist}/{plan.release}", probe.home_id
    if not plan.is_there:
        dist, home_id = await _put(
            host, transport, plan=plan, own=own, wishes=wishes, narrate=narrate
        )
        _warn(host, probe, narrate)
    known = _known(host, probe, plan, dist=dist, earlier=earlier)
    if not known.home_id:  # another one than before would be another machine's, see `pin`
        known = replace(known, home_id=home_id)
    await asyncio.to_thread(remember, known)
    return known


async def take_over(host: str, transport: Transport, known: KnownHost) -> None:
    """Has the agent of a release follow the one that serves.

    Raises:
        AgentStartFailed: It does not serve.
        RdevError: What it said itself.
    """
    line = agent_command(known, "upgrade", "--login", "--json")
    ran = await transport.run(line, patience=_UPGRADE_PATIENCE)
    if ran.code:
        raise _said(host, ran)
    await _sweep(transport, known)


def _with_usual(wishes: Wishes, host: str, earlier: KnownHost | None) -> Wishes:
    """What is wished, else what is configured, else what was so before."""
    entry = entry_of(host)
    return replace(
        wishes,
        home=wishes.home or entry.home or (earlier.home if earlier else ""),
        python=wishes.python or entry.python,
    )


async def _probed(host: str, transport: Transport, wishes: Wishes) -> Probe:
    probe = await _probe(host, transport, home=wishes.home, python=wishes.python)
    if wishes.python != "uv":
        return probe
    python = await _python_of_uv(host, transport, probe)
    return await _probe(host, transport, home=wishes.home, python=python)


async def _probe(host: str, transport: Transport, *, home: str, python: str) -> Probe:
    action = f"look at {host}"
    try:
        feed = script(home=home, python=python)
        ran = await transport.run("sh -s", feed=feed, patience=_PROBE_PATIENCE)
    except TimedOut as error:
        cause = f"its login shell was not done after {_PROBE_PATIENCE:.0f} s"
        hint = (
            f"an rc file there, such as ~/.bashrc, may wait for something: see that "
            f"`ssh {host} true` ends"
        )
        raise BootstrapFailed(action, cause, hint=hint) from error
    try:
        return parse(ran.stdout)
    except ProbeUnreadableError as error:
        begun = has_begun(ran.stdout)
        said = "" if begun else complaint_in(ran.stderr, ran.stdout)
        cause = f"{error}: {said}" if said else str(error)
        raise BootstrapFailed(action, cause, hint=shell_hint(host)) from error


async def _python_of_uv(host: str, transport: Transport, probe: Probe) -> str:
    action = f"have uv bring a Python to {host}"
    if not probe.uv:
        hint = f"install uv there, or name a Python: `rdev up {host} --bootstrap-python PATH`"
        raise NoPython(action, "uv is neither on its PATH nor in ~/.local/bin", hint=hint)
    ran = await transport.run("sh -s", feed=_uv_script(probe.uv), patience=_UV_PATIENCE)
    for line in reversed(ran.stdout.decode(errors="surrogateescape").splitlines()):
        _, marker, path = line.partition(_UV_MARKER)
        if marker and path:
            return path
    raise NoPython(action, _complaint(ran.stderr))


def _complaint(said: bytes) -> str:
    """The error of uv and the deepest of its causes, which follow one another line by line."""
    lines = [line.strip() for line in said.decode(errors="replace").splitlines() if line.strip()]
    errors = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    last = lines[-1].lower().removeprefix("caused by: ").removeprefix("cause: ") if lines else ""
    return f"{errors[-1]}: {last}" if errors else last or "uv said nothing"


def _uv_script(uv: str) -> bytes:
    return f"""
UV_PYTHON_PREFERENCE=only-managed
export UV_PYTHON_PREFERENCE
uv={shlex.quote(uv)}
"$uv" python install {_UV_PYTHON} </dev/null >&2 || exit 1
printf '{_UV_MARKER}%s\\n' "$("$uv" python find {_UV_PYTHON} </dev/null)"
""".encode()


async def _put(
    host: str,
    transport: Transport,
    *,
    plan: Plan,
    own: OwnWheel,
    wishes: Wishes,
    narrate: Narrate,
) -> tuple[str, str]:
    """Sends the release; returns its folder there, and the id of the folder of releases."""
    assert plan.python is not None
    number = ".".join(map(str, plan.python.version))
    narrate(
        f"{host}: no rdev {plan.release} yet; it will run by Python {number}, {plan.python.base}"
    )
    parcels, absent, reason = await _parcels(host, plan, own, narrate)
    size = sum(len(parcel.content) for parcel in parcels)
    what = f", and {host} fetches the rest" if absent else ""
    narrate(f"{host}: pushing {size / 1e6:.1f} MB{what}")
    code, feed = payload(plan, parcels, absent=absent, again=wishes.again)
    line = command(plan.python.base, "-I", "-c", code)
    patience = _INSTALL_PATIENCE + size / _SLOW_LINK
    ran = await transport.run(line, feed=feed, patience=patience)
    done = installed(f"put rdev on {host}", ran, reason)
    narrate(
        f"{host}: wrote {done['dist']} ({done['bytes'] / 1e6:.0f} MB); jobs, logs and copies of "
        f"workspaces will lie in {plan.home}"
    )
    return str(done["dist"]), str(done["home_id"])


async def _parcels(
    host: str, plan: Plan, own: OwnWheel, narrate: Narrate
) -> tuple[list[Parcel], Sequence[Wheel], str]:
    """What is sent, what the host has to fetch itself, and why it has to."""
    assert plan.python is not None
    target = target_of(plan.python)
    parcels = [Parcel(own.file, own.content)]
    try:
        contents = await fetch(plan.wheels, target, narrate=narrate)
    except NoIndexError as error:
        if not plan.python.has_pip:
            cause = (
                f"no index is reached from here ({error}), and {plan.python.path} there has no pip"
            )
            raise BootstrapFailed(f"put rdev on {host}", cause, hint=_INDEX) from error
        return parcels, plan.wheels, f"no index is reached from here ({error}), and "
    parcels += [Parcel(w.file, c) for w, c in zip(plan.wheels, contents, strict=True)]
    return parcels, (), ""


_INDEX = "connect this machine once to a package index; what it fetches is kept for later hosts"


def _warn(host: str, probe: Probe, narrate: Narrate) -> None:
    if probe.kills_processes and not probe.lingers:
        narrate(
            f"{host}: its logind kills what a login leaves behind, jobs too; "
            f"`loginctl enable-linger` there spares them"
        )


def _known(
    host: str, probe: Probe, plan: Plan, *, dist: str, earlier: KnownHost | None
) -> KnownHost:
    # Another home has another agent, which nobody knows yet.
    same = earlier is not None and earlier.home == plan.home
    return KnownHost(
        host=host,
        agent_id=earlier.agent_id if earlier and same else "",
        machine_id=earlier.machine_id if earlier and same else "",
        home_id=earlier.home_id if earlier and same else "",
        home=plan.home,
        bridge=_bridge(probe, plan, dist),
        dist=dist,
        release=plan.release,
        transport=earlier.transport if earlier else "",
        uname=f"{probe.system} {probe.machine}",
    )


def _bridge(probe: Probe, plan: Plan, dist: str) -> str:
    words = [f"{dist}/bin/rdev-agent", "bridge"]
    if plan.home != f"{probe.login}/.rdev":
        words += ["--home", plan.home]
    pythons = [plan.python, *probe.pythons] if plan.python else probe.pythons
    if pythons and not dist.startswith(f"{plan.home}/"):
        # Not all that lies outside the home is still ours; a script in the home looks at it first.
        words = [pythons[0].base, "-I", f"{plan.home}/dist/start.py", *words]
    return command(*words)


def _said(host: str, ran: Ran) -> RdevError:
    line = _last_line(ran.stderr)
    try:
        return error_from_json(line)
    except ValueError:
        cause = line or f"it ended with {ran.code}"
        return AgentStartFailed(f"upgrade the agent of {host}", cause)


def _last_line(*outputs: bytes) -> str:
    for output in outputs:
        lines = output.decode(errors="replace").strip().splitlines()
        if lines:
            return lines[-1]
    return ""


async def _sweep(transport: Transport, known: KnownHost) -> None:
    """Removes the releases there that nothing uses any more."""
    plan = Plan(known.release, known.home, known.dist.rpartition("/")[0])
    code, feed = payload(plan, [])
    await transport.run(command(f"{known.dist}/bin/python", "-I", "-c", code), feed=feed)
