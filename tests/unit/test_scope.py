"""Where the agent is started: in its login's session, or in a scope that outlives it."""

import getpass
import os
import subprocess

import pytest

from rdev.agent.scope import scoped

COMMAND = ["/usr/bin/printf", "agent"]


@pytest.fixture
def machine(tmp_path):
    """A machine with a systemd-run that says what it was asked, whose user lingers."""
    program = tmp_path / "bin" / "systemd-run"
    program.parent.mkdir()
    program.write_text(
        f'#!/bin/sh\necho "$@" >> {tmp_path}/asked\n'
        'while [ "$1" != -- ]; do shift; done; shift\nexec "$@"\n'
    )
    program.chmod(0o755)
    (tmp_path / "linger").mkdir()
    (tmp_path / "linger" / getpass.getuser()).touch()
    return tmp_path


def environment(machine, **changes):
    found = {"PATH": f"{machine}/bin:/usr/bin:/bin", "XDG_RUNTIME_DIR": "/run/user/1", **changes}
    return {name: value for name, value in found.items() if value}


def in_scope(machine, **changes) -> bool:
    made = scoped(COMMAND, environment(machine, **changes), lingering=str(machine / "linger"))
    assert made[-2:] == COMMAND
    return made != COMMAND


def test_whoever_lingers_gets_a_scope(machine):
    made = scoped(COMMAND, environment(machine), lingering=str(machine / "linger"))
    assert made[:4] == [f"{machine}/bin/systemd-run", "--user", "--scope", "--quiet"]
    told = subprocess.run(made, capture_output=True, text=True, check=True)
    assert told.stdout == "agent"


def test_a_manager_that_ends_with_the_login_would_be_a_trap(machine):
    os.unlink(machine / "linger" / getpass.getuser())
    assert not in_scope(machine)
    assert not (machine / "asked").exists()


def test_without_a_manager_there_is_no_scope(machine):
    assert not in_scope(machine, XDG_RUNTIME_DIR="")
    assert not in_scope(machine, PATH="/usr/bin:/bin")


def test_a_manager_that_refuses_is_done_without(machine):
    (machine / "bin" / "systemd-run").write_text("#!/bin/sh\nexit 1\n")
    assert not in_scope(machine)
