"""A jump host that can say why it fails: ssh silences it where connections are shared.

ssh's own command for ProxyJump has its stderr thrown away if the connection is to outlive the
command (sshconnect.c, ssh_proxy_connect). Ours is the same command with a file for it, which also
lets the jump host, like the host, ask nobody.
"""

from __future__ import annotations

import shlex


def jump_command(jumps: str, *, config: str, complaints: str, options: dict[str, str]) -> str:
    """The ProxyCommand that does what a ProxyJump does.

    Args:
        jumps: Value of ProxyJump: destinations with commas between, the nearest to us first.
        config: The ssh configuration file; empty for the user's.
        complaints: File that its stderr is added to.
        options: For the connection to the last jump host.
    """
    before, _, last = jumps.rpartition(",")
    words = ["ssh", *(["-F", config] if config else [])]
    words += [word for key, value in options.items() for word in ("-o", f"{key}={value}")]
    words += ["-J", before] if before else []
    words += ["--", jump_url(last)]
    # The host and the port come from ssh by `%h` and `%p`; all else is to be taken as it is.
    fixed = f"{shlex.join(words)} 2>>{shlex.quote(complaints)}".replace("%", "%%")
    where, _, destination = fixed.partition(" -- ")
    script = f"exec {where} -W '[%h]:%p' -- {destination}"
    return f"sh -c {shlex.quote(script)}"


def jump_url(hop: str) -> str:
    """One jump host of a ProxyJump as ssh takes it for a destination: it may name a port there."""
    return hop if hop.startswith("ssh://") else f"ssh://{hop}"
