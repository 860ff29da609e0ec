"""Which hosts there are."""

from __future__ import annotations

from rdev.protocol.errors import HostUnreachable

# The agent on this machine, started on demand; what every verb uses when no host is named.
LOCAL = "local"


def require_served(host: str) -> None:
    """Returns if `host` can be reached by this release.

    Raises:
        HostUnreachable: It cannot.
    """
    if host != LOCAL:
        raise HostUnreachable(
            f"reach the host {host!r}",
            "no such host is known",
            hint=f"this release serves the host {LOCAL!r}; leave out -H to use it",
        )
