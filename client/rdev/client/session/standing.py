"""What a process inherits besides descriptors and environment, and whether a worker can have it.

A worker has the session's user, groups, capabilities, limits, CPUs and niceness. A command that has
others is run in process. Umask and ignored signals are taken over.
"""

from __future__ import annotations

from dataclasses import dataclass

# Lines of /proc/self/status (proc(5)) that a worker cannot change as it likes.
_SAME = frozenset(
    (
        *(b"Uid", b"Gid", b"Groups", b"NoNewPrivs", b"Seccomp", b"SigBlk"),
        *(b"CapInh", b"CapPrm", b"CapEff", b"CapBnd", b"CapAmb"),
        *(b"Cpus_allowed", b"Mems_allowed", b"NStgid"),
    )
)
_COUNTED = frozenset((b"NStgid",))
"""Not their values but how many there are: in how many containers within each other we are."""


@dataclass(frozen=True, slots=True)
class Standing:
    """How a process stands towards the kernel.

    Attributes:
        shared: What a session has to have in common with a command.
        umask: Bits that new files do not get.
        ignored: Numbers of the signals that are ignored.
    """

    shared: tuple[bytes, ...]
    umask: int
    ignored: frozenset[int]


def standing_of(status: bytes, limits: bytes, *, nice: int) -> Standing:
    """Reads what the kernel tells of a process.

    Args:
        status: Its /proc/self/status.
        limits: Its /proc/self/limits.
        nice: Its niceness.

    Raises:
        ValueError: Something is missing.
    """
    told = dict(line.split(b":", 1) for line in status.splitlines() if b":" in line)
    try:
        umask, mask = int(told[b"Umask"], 8), int(told[b"SigIgn"], 16)
    except KeyError as error:
        raise ValueError(f"it does not tell {error}") from None
    kept = [_said(name, told.get(name, b"")) for name in sorted(_SAME)]
    ignored = frozenset(number + 1 for number in range(64) if mask >> number & 1)
    return Standing((*kept, limits, b"%d" % nice), umask, ignored)


def _said(name: bytes, value: bytes) -> bytes:
    return b"%d" % len(value.split()) if name in _COUNTED else value


def own_standing() -> Standing:
    """How this process stands.

    Raises:
        OSError: The kernel does not tell.
    """
    import os

    with open("/proc/self/status", "rb") as file:
        status = file.read()
    with open("/proc/self/limits", "rb") as file:
        limits = file.read()
    return standing_of(status, limits, nice=os.getpriority(os.PRIO_PROCESS, 0))
