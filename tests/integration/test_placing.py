"""A first contact with this machine, through a shell as sshd would start it."""

import asyncio
import os
import shutil
from pathlib import Path

import pytest
from tests.support.laptops import wheel_cache
from tests.support.shell import ShellTransport

from rdev.client.bootstrap import contact, release, wheel
from rdev.client.bootstrap.contact import Wishes, first_contact, pin, upgrade
from rdev.client.bootstrap.fetch import NoIndexError, fetch
from rdev.client.bootstrap.lock import Target, fitting, locked
from rdev.client.known import KnownHost, forget, recall
from rdev.protocol.errors import BootstrapFailed, HostChanged, NoPython

HOST = "gpu1"


@pytest.fixture(scope="session")
def wheels(tmp_path_factory):
    return wheel_cache(tmp_path_factory)


@pytest.fixture(autouse=True)
def laptop(tmp_path, monkeypatch, wheels):
    monkeypatch.setenv("XDG_CACHE_HOME", str(wheels))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    # Whoever edits the checkout meanwhile would make another release between two contacts.
    packed = wheel.pack()
    monkeypatch.setattr("rdev.client.bootstrap.placing.pack", lambda: packed)
    return packed


@pytest.fixture
def transport(tmp_path):
    home = tmp_path / "person"
    home.mkdir()
    return ShellTransport(home)


@pytest.mark.slow
async def test_a_host_is_remembered_and_a_second_laptop_pushes_nothing(transport, laptop):
    said = []
    known = await first_contact(HOST, transport, narrate=said.append)
    assert known == recall(HOST)
    assert known.release == laptop.release == known.dist.rpartition("/")[2]
    assert known.home == f"{transport.home}/.rdev"
    assert known.bridge == f"{known.dist}/bin/rdev-agent bridge"
    assert len(transport.commands) == 2, "a probe and an installation"
    assert len(said) <= 5
    assert os.path.isfile(f"{known.dist}/release.json")
    forget(HOST)
    transport.commands.clear()
    assert await first_contact(HOST, transport) == known
    assert len(known.home_id) == 32
    assert transport.commands == ["sh -s"]


@pytest.mark.slow
async def test_a_home_is_kept_to_and_may_have_any_name(transport):
    wishes = Wishes(home=f"{transport.home}/my $disk's/rdev")
    known = await first_contact(HOST, transport, wishes=wishes)
    assert known.home == wishes.home
    told = await transport.run(known.bridge.replace(" bridge --home", " status --json #"))
    assert told.code in (0, 1), told.stderr
    assert (await first_contact(HOST, transport)).home == wishes.home


@pytest.mark.slow
async def test_uv_brings_a_python(transport):
    uv = transport.home / ".local" / "bin" / "uv"
    uv.parent.mkdir(parents=True)
    uv.write_text('#!/bin/sh\n[ "$2" = find ] && command -v python3\necho "$@" >> ~/asked\n')
    uv.chmod(0o755)
    known = await first_contact(HOST, transport, wishes=Wishes(python="uv"))
    assert os.readlink(f"{known.dist}/bin/python") == os.path.realpath("/usr/bin/python3")
    assert (transport.home / "asked").read_text().splitlines()[0].startswith("python install 3.")


async def test_uv_that_cannot_says_why(transport):
    with pytest.raises(NoPython, match="neither on its PATH"):
        await first_contact(HOST, transport, wishes=Wishes(python="uv"))
    uv = transport.home / ".local" / "bin" / "uv"
    uv.parent.mkdir(parents=True)
    uv.write_text(
        "#!/bin/sh\necho 'error: no download' >&2\necho '  cause: dns error' >&2\nexit 1\n"
    )
    uv.chmod(0o755)
    with pytest.raises(NoPython, match="no download: dns error"):
        await first_contact(HOST, transport, wishes=Wishes(python="uv"))


async def test_a_login_that_runs_no_commands(transport, tmp_path):
    shell = tmp_path / "nologin"
    shell.write_text("#!/bin/sh\necho 'This account is currently not available.'\nexit 1\n")
    shell.chmod(0o755)
    transport.shell = str(shell)
    with pytest.raises(BootstrapFailed, match="This account is currently not available"):
        await first_contact(HOST, transport)


async def test_a_login_that_makes_way_for_another_shell_is_told_what_to_do(transport, tmp_path):
    shell = tmp_path / "bash"
    complaint = "fish: Unexpected ')' found\n    case in\n    ^~~~~^"
    shell.write_text(f'#!/bin/sh\necho "tput: no terminal\n{complaint}" >&2\nexit 127\n')
    shell.chmod(0o755)
    transport.shell = str(shell)
    with pytest.raises(BootstrapFailed, match="fish: Unexpected") as failure:
        await first_contact(HOST, transport)
    assert "in terminals alone" in failure.value.hint


@pytest.mark.slow
async def test_two_laptops_at_once(transport, monkeypatch):
    found = await asyncio.gather(*(first_contact(f"{HOST}-{n}", transport) for n in range(3)))
    assert len({known.dist for known in found}) == 1
    assert len(os.listdir(f"{transport.home}/.rdev/dist")) == 2, "a release and the id"


async def test_what_is_kept_is_verified_and_what_was_spoilt_fetched_anew(tmp_path, wheels):
    target = Target((3, 11), "x86_64", 36)
    chosen = [w for w in fitting(target, locked())[0] if w.name == "typing-extensions"]
    (right,) = await fetch(chosen, target, narrate=lambda _: None)
    path = wheels / "rdev" / "wheels" / f"{chosen[0].sha256}.whl"
    path.write_bytes(right[:-1] + b"x")
    assert await fetch(chosen, target, narrate=lambda _: None) == [right]
    assert path.read_bytes() == right


async def test_a_digest_that_no_index_has_is_not_taken(monkeypatch, tmp_path):
    from dataclasses import replace

    target = Target((3, 11), "x86_64", 36)
    chosen = next(w for w in locked() if w.name == "typing-extensions")
    with pytest.raises(NoIndexError):
        await fetch([replace(chosen, sha256="0" * 64)], target, narrate=lambda _: None)


@pytest.mark.slow
async def test_an_environment_without_pip_has_ensurepips(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "empty"))
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    target = Target((3, 11), "x86_64", 36)
    chosen = [w for w in fitting(target, locked())[0] if w.name == "typing-extensions"]
    (content,) = await fetch(chosen, target, narrate=lambda _: None)
    assert len(content) == chosen[0].size


async def test_nothing_of_the_folder_we_stand_in_is_run(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "empty"))
    workspace = tmp_path / "workspace"
    workspace.mkdir()
    for name in ("pip", "logging", "ssl"):
        (workspace / f"{name}.py").write_text("open('was-run', 'w')\nraise SystemExit(1)\n")
    monkeypatch.chdir(workspace)
    target = Target((3, 11), "x86_64", 36)
    chosen = [w for w in fitting(target, locked())[0] if w.name == "typing-extensions"]
    (content,) = await fetch(chosen, target, narrate=lambda _: None)
    assert len(content) == chosen[0].size
    assert not (workspace / "was-run").exists()


async def test_an_agent_that_cannot_be_followed_is_an_error(transport):
    with pytest.raises(BootstrapFailed, match="no Python"):
        await upgrade(HOST, _without_python(transport))


def _without_python(transport):
    tools = Path(transport.home, "bin")
    tools.mkdir()
    for name in ("sh", "uname", "id", "df", "tail"):
        (tools / name).symlink_to(shutil.which(name))
    # What the probe would find in /usr/bin is of no use to it: nothing may run.
    for version in ("", ".11", ".12", ".13"):
        (tools / f"python3{version}").write_text("#!/bin/sh\nexit 1\n")
    run = transport.run

    async def blind(command, *, feed=b"", patience=60.0):
        return await run(
            command, feed=feed.replace(b" /usr/local/bin /usr/bin", b""), patience=patience
        )

    transport.run = blind
    transport._environment["PATH"] = str(tools)
    transport.shell = shutil.which("sh")
    return transport


def test_another_agent_under_a_known_name_is_refused(tmp_path):
    known = KnownHost(HOST, "", "", "/h", "b", "/d", "1.0-a")
    pinned = pin(known, agent_id="one", machine_id="m")
    assert recall(HOST) == pinned
    assert pin(pinned, agent_id="one", machine_id="m") is pinned
    with pytest.raises(HostChanged) as caught:
        pin(pinned, agent_id="two", machine_id="m")
    assert f"rdev host rm {HOST}" in caught.value.hint
    assert recall(HOST) == pinned


def test_machines_that_share_a_home_may_share_a_name(tmp_path):
    known = KnownHost(HOST, "one", "m", "/h", "b", "/d", "1.0-a", home_id="h")
    there = pin(known, agent_id="two", machine_id="n", home_id="h")
    assert (there.agent_id, there.machine_id) == ("two", "n")
    assert pin(there, agent_id="one", machine_id="m", home_id="h") == known
    for other in ({"machine_id": "n", "home_id": "g"}, {"machine_id": "m", "home_id": "h"}):
        with pytest.raises(HostChanged):
            pin(known, agent_id="three", **other)
    with pytest.raises(HostChanged):
        pin(KnownHost(HOST, "one", "m", "/h", "b", "/d", "1.0-a"), agent_id="two", machine_id="n")


@pytest.mark.parametrize(
    ("version", "ours", "outdated", "later"),
    [
        ("0.1.0", "0.2.0", True, False),
        ("0.9", "0.10.0rc1", True, False),
        ("0.2.0", "0.2.0", False, False),
        ("1.0", "0.9.9", False, True),
        ("nonsense", "0.1.0", True, False),
    ],
)
def test_which_agent_is_older(monkeypatch, version, ours, outdated, later):
    monkeypatch.setattr(contact, "our_version", lambda: ours)
    assert contact.is_outdated(version) is outdated
    assert contact.is_later(version) is later
    assert release.version_in(f"{ours}-abc") == ours
