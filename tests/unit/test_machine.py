"""Checks of the machine: each names what it found, and the remedy where it will not do."""

import os
import subprocess

import pytest

from rdev.agent.environment.found import Environment, Kind
from rdev.agent.machine.checks import Machine, examine
from rdev.wire.home import Home


@pytest.fixture
def home(tmp_path):
    root = tmp_path / "home"
    (root / "hosts" / "m" / "jobs").mkdir(parents=True, mode=0o700)
    root.chmod(0o700)
    return Home(str(root), "m")


def found(home, **changes):
    machine = Machine(
        home, {"PATH": os.environ["PATH"]} | changes.pop("environment", {}), **changes
    )
    return {finding.what: finding for finding in examine(machine)}


def test_a_healthy_home_needs_nothing(home):
    findings = found(home, skew=0.1)
    for what in ("kernel", "agent's home", "noexec", "clock", "socket path", "python3 on PATH"):
        assert (findings[what].ok, findings[what].remedy) == (True, "")


def test_a_home_that_others_may_enter(home):
    os.chmod(home.root, 0o755)
    finding = found(home)["agent's home"]
    assert (finding.ok, finding.remedy.startswith(f"chmod 700 {home.root}")) == (False, True)


@pytest.mark.parametrize(("skew", "words"), [(90.0, "90.0 s behind"), (-7.5, "7.5 s ahead of")])
def test_clocks_that_are_apart(home, skew, words):
    finding = found(home, skew=skew)["clock"]
    assert (finding.ok, words in finding.found, "NTP" in finding.remedy) == (False, True, True)


def test_a_login_that_does_not_say_what_it_has(home):
    finding = found(home, login_fault="the rc files of /bin/bash took over 10 s")["login"]
    assert (finding.ok, "/bin/bash took over 10 s" in finding.found) == (False, True)
    assert "rdev up" in finding.remedy
    assert found(home)["login"].ok


def test_a_login_without_python(home):
    finding = found(home, environment={"PATH": "/nowhere"})["python3 on PATH"]
    assert (finding.ok, finding.found) == (False, "none")
    assert "--env" in finding.remedy


def test_a_home_that_is_mounted_noexec(home):
    mount = ["mount", "-t", "tmpfs", "-o", "noexec,size=1m,mode=700", "tmpfs", home.root]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("this user may not mount")
    try:
        finding = found(home)["noexec"]
        space = found(home)["free space"]
    finally:
        subprocess.run(["umount", home.root], check=True)
    assert (finding.ok, "--home" in finding.remedy) == (False, True)
    assert (space.ok, "rdev rm" in space.remedy) == (False, True)


def test_what_cannot_be_looked_at_is_a_finding_too(home):
    os.rename(home.root, home.root + ".away")
    finding = found(home)["free space"]
    assert (finding.ok, "cannot be looked at" in finding.found) == (False, True)
    assert finding.remedy


def test_a_machine_without_any_environment(home):
    finding = found(home)["environments"]
    assert (finding.ok, finding.found) == (False, "none")
    assert "manage" in finding.remedy


def test_environments_are_named_and_many_are_counted(home):
    python = Environment("python3", Kind.SYSTEM, "/usr", "/usr/bin/python3")
    many = [
        Environment(f"e{n}", Kind.CONDA, f"/e{n}", f"/e{n}/bin/python", torch="2.3.0" * (n == 0))
        for n in range(11)
    ]
    finding = found(home, environments=lambda: [*many, python])["environments"]
    assert finding.ok
    assert finding.found.startswith("conda env e0 (torch 2.3.0), conda env e1, ")
    assert finding.found.endswith(", 3 more, 1 Python outside of them")


def test_environments_of_which_none_has_a_python(home):
    broken = Environment("old", Kind.VENV, "/old", "")
    assert not found(home, environments=lambda: [broken])["environments"].ok


def test_a_login_node(home):
    finding = found(home, is_login_node=True)["login node"]
    assert (finding.ok, "salloc" in finding.remedy) == (False, True)
