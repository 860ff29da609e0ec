"""What a probe says of a machine where no agent can be put, each with its remedy: for `doctor`."""

from __future__ import annotations

from collections.abc import Callable

from rdev.client.bootstrap.plan import NEWEST, OLDEST, flaw_of
from rdev.client.bootstrap.probe import (
    Place,
    Probe,
    ProbeUnreadableError,
    parse,
    script,
    shell_hint,
)
from rdev.client.entries import entry_of
from rdev.client.known import recall
from rdev.client.transport.contract import Transport
from rdev.protocol.errors import RdevError
from rdev.protocol.finding import Finding

# As for a first contact: more is an rc file that waits for somebody.
_PATIENCE = 30.0

# A release takes some 66 MB, and is put beside the one before it.
_LEAST_FREE = 150e6

_ELSEWHERE = "put rdev elsewhere with `rdev up HOST --home DIR`"


async def facts(host: str, transport: Transport) -> list[Finding]:
    """Looks at a host without writing anything there; never raises what has a finding of its own.

    Args:
        host: Its name.
        transport: Access to it.
    """
    known = recall(host)
    home = entry_of(host).home or (known.home if known else "")
    try:
        ran = await transport.run("sh -s", feed=script(home=home), patience=_PATIENCE)
        probe = parse(ran.stdout)
    except ProbeUnreadableError as error:
        return [Finding("login shell", str(error), ok=False, remedy=shell_hint(host))]
    except RdevError as error:
        return [Finding("login shell", error.message, ok=False, remedy=error.hint)]
    return [check(probe) for check in _CHECKS]


def _system(probe: Probe) -> Finding:
    libc = f", {probe.libc}" if probe.libc else ""
    return Finding("system", f"{probe.system} {probe.kernel} {probe.machine}{libc}")


def _home(probe: Probe) -> Finding:
    place = probe.root
    if not place.is_writable:
        found = f"{place.path} cannot be made or written"
        return Finding("rdev's folder", found, ok=False, remedy=_ELSEWHERE)
    has_room = place.free is None or place.free >= _LEAST_FREE
    remedy = "" if has_room else f"free some space there, or {_ELSEWHERE}"
    return Finding("rdev's folder", _described(place), ok=has_room, remedy=remedy)


def _described(place: Place) -> str:
    free = "" if place.free is None else f", {place.free / 1e6:.0f} MB free"
    return f"{place.path} ({place.kind}{free})"


def _executable(probe: Probe) -> Finding:
    if probe.root.may_execute:
        return Finding("noexec", "programs can run from there")
    able = [place.path for place in probe.spares if place.may_execute and place.is_writable]
    if able:
        return Finding("noexec", f"{probe.root.path} is mounted noexec; {able[0]} is used")
    found = f"{probe.root.path} is mounted noexec, and so is all else that can be written"
    return Finding("noexec", found, ok=False, remedy=_ELSEWHERE)


def _pythons(probe: Probe) -> Finding:
    seen = [f"{'.'.join(map(str, python.version))} at {python.path}" for python in probe.pythons]
    is_there = any(not flaw_of(python) for python in probe.pythons)
    span = f"{'.'.join(map(str, OLDEST))} to {'.'.join(map(str, NEWEST))}"
    return Finding(
        "Pythons",
        "; ".join(seen) or "none was found",
        ok=is_there,
        remedy=""
        if is_there
        else f"the agent needs one from {span}: `rdev up HOST --bootstrap-python PATH` names it, "
        "`--bootstrap-python uv` has uv bring it",
    )


def _logout(probe: Probe) -> Finding:
    if not probe.kills_processes or probe.lingers:
        return Finding("logout", "processes outlive the login")
    found = "KillUserProcesses is on: systemd ends every process of a user who logs out, jobs too"
    return Finding("logout", found, ok=False, remedy="loginctl enable-linger, there")


def _gpu(probe: Probe) -> Finding:
    if probe.has_gpu:
        return Finding("GPU", "a driver of NVIDIA's is there")
    if probe.sbatch:
        remedy = "jobs belong on its compute nodes: get one by `salloc`, and name that as the host"
        return Finding("GPU", "none, and Slurm's sbatch is there", ok=False, remedy=remedy)
    return Finding("GPU", "none")


_CHECKS: tuple[Callable[[Probe], Finding], ...] = (
    _system,
    _home,
    _executable,
    _pythons,
    _logout,
    _gpu,
)
