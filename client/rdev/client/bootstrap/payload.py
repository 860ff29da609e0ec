"""What is sent to a host's Python, and what it says when it is done."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rdev.client.bootstrap import install
from rdev.client.bootstrap.lock import Wheel
from rdev.client.bootstrap.plan import Plan
from rdev.client.bootstrap.words import has_no_control
from rdev.client.transport.contract import Ran
from rdev.protocol.errors import BootstrapFailed


@dataclass(frozen=True, slots=True)
class Parcel:
    """A wheel on its way.

    Attributes:
        file: Its file name.
        content: Its bytes.
    """

    file: str
    content: bytes


def payload(
    plan: Plan, parcels: Sequence[Parcel], *, absent: Sequence[Wheel] = (), again: bool = False
) -> tuple[str, bytes]:
    """The program for `python -I -c`, and what to feed to it.

    The installer comes first on stdin, so that nothing has to be written before it runs; the
    program only reads that much and runs it.

    Args:
        plan: What to do.
        parcels: What follows in the stream.
        absent: What the host has to fetch by itself.
        again: Put it there even if it runs.
    """
    with open(os.path.join(os.path.dirname(install.__file__), "install.py"), "rb") as file:
        code = file.read()
    header = {
        "release": plan.release,
        "home": plan.home,
        "dist": plan.dist,
        "spare": plan.spare,
        "needed": plan.needed,
        "again": again,
        "wheels": [_described(parcel) for parcel in parcels],
        "fetch": [
            {"name": w.name, "version": w.version, "file": w.file, "sha256": w.sha256}
            for w in absent
        ],
    }
    loader = f"import sys;exec(sys.stdin.buffer.read({len(code)}))"
    line = json.dumps(header).encode() + b"\n"
    return loader, b"".join([code, line, *(parcel.content for parcel in parcels)])


def _described(parcel: Parcel) -> dict[str, Any]:
    digest = hashlib.sha256(parcel.content).hexdigest()
    return {"file": parcel.file, "size": len(parcel.content), "sha256": digest}


def installed(action: str, ran: Ran, reason: str = "") -> dict[str, Any]:
    """What the installer says of its work.

    Args:
        action: What was attempted, for the error.
        ran: What came of it.
        reason: What is to stand before the cause of a failure.

    Raises:
        BootstrapFailed: It failed, or something else answered.
    """
    for line in reversed(ran.stdout.decode(errors="replace").splitlines()):
        for marker in (install.DONE, install.FAILED):
            _, found, body = line.partition(marker)
            if not found:
                continue
            said = _understood(action, body, _DONE if marker == install.DONE else _FAILED)
            if marker == install.DONE:
                return said
            raise BootstrapFailed(action, reason + said["cause"], hint=said["hint"] or None)
    lines = ran.stderr.decode(errors="replace").strip().splitlines()
    raise BootstrapFailed(action, lines[-1] if lines else f"its Python ended with {ran.code}")


# What our installer says, and of which kind it is.
_DONE = {"dist": str, "bytes": int, "home_id": str}
_FAILED = {"cause": str, "hint": str}


def _understood(action: str, body: str, wanted: Mapping[str, type]) -> dict[str, Any]:
    """The answer, whose words are those of a machine that we know nothing of.

    Raises:
        BootstrapFailed: It is none of our installer's.
    """
    try:
        said = json.loads(body)
    except ValueError:
        said = None
    is_whole = isinstance(said, dict) and all(
        isinstance(said.get(key), kind) for key, kind in wanted.items()
    )
    if not is_whole or not has_no_control(said.get("dist", "")):
        raise BootstrapFailed(action, "its installer says what makes no sense")
    return dict(said)
