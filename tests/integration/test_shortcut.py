"""A shared connection that leads to the agent without a bridge: real ssh, real sshd, real agent."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import pytest
from tests.support.guest import guest
from tests.support.sshd import children, sshd

from rdev.client.bootstrap import contact as bootstrap
from rdev.client.connection import connect, responses, translating
from rdev.client.jobs import Jobs
from rdev.client.known import KnownHost, recall, remember
from rdev.client.leaving import Wanted, leave
from rdev.client.logs import Logs
from rdev.client.remote import opened
from rdev.client.transport.footing import footing_of
from rdev.client.transport.openssh import OpenSsh
from rdev.client.transport.settings import Settings
from rdev.client.transport.shortcut import Laying, shortcut_for
from rdev.protocol.errors import ConnectionLost, HostChanged
from rdev.v1 import job_pb2, job_pb2_grpc
from rdev.wire.job import CommandKind, JobSpec

pytestmark = pytest.mark.timeout(90)

DEADLINE = 30.0
SSHD_REFUSES = [
    ["AllowStreamLocalForwarding no"],
    pytest.param(["DisableForwarding yes"], marks=pytest.mark.slow),
]


@pytest.fixture(scope="module")
def agent_home():
    """Of the agent that serves at `gpu1`, in all tests that do not end it."""
    folder = Path(tempfile.mkdtemp(prefix="rdev-there-", dir="/var/tmp"))
    yield folder
    stop_agent(folder)
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def laptop(monkeypatch):
    """The folder of the laptop's sockets, short enough for them."""
    folder = Path(tempfile.mkdtemp(prefix="rdev-run-", dir="/var/tmp"))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(folder))
    monkeypatch.setenv("XDG_STATE_HOME", str(folder / "state"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(folder / "config"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    yield folder / "rdev"
    shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def serving(monkeypatch, agent_home, *lines, hosts=("gpu1",)):
    """A server at which the agent can be reached by a bridge."""
    with sshd(lines=lines) as server:
        monkeypatch.setenv("RDEV_SSH_CONFIG", str(server.config))
        for host in hosts:
            know(agent_home, host)
        yield server


@pytest.fixture
def server(monkeypatch, laptop, agent_home):
    with serving(monkeypatch, agent_home) as server:
        yield server


def know(agent_home, host="gpu1", **changes) -> None:
    bridge = f"env RDEV_HOME={agent_home} {sys.executable} -I -m rdev.agent.bridge"
    known = {"host": host, "agent_id": "", "machine_id": "", "home": str(agent_home)}
    remember(KnownHost(**{**known, "bridge": bridge, "dist": "", "release": "", **changes}))


def agent_command(home, *words) -> str:
    there = {**os.environ, "RDEV_HOME": str(home)}
    command = [sys.executable, "-I", "-m", "rdev.agent.main", *words]
    return subprocess.run(command, env=there, capture_output=True, text=True, check=False).stdout


def stop_agent(home) -> None:
    agent_command(home, "stop")


def kill_agent(home) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(json.loads(agent_command(home, "status", "--json"))["pid"], signal.SIGKILL)


async def contact(host="gpu1") -> bool:
    """One contact; whether it came by a shortcut to its end."""
    async with connect(host) as connection:
        await Jobs(connection).list()
        return connection.is_short


def commands(server) -> int:
    """How many commands, such as bridges, ssh was asked to start so far."""
    return len(re.findall("^Starting session: command", server.log.read_text(), re.MULTILINE))


def cut(server) -> None:
    for pid in children(server.pid):
        with contextlib.suppress(OSError):
            if Path(f"/proc/{pid}/comm").read_text().strip() == "sshd":
                os.kill(pid, signal.SIGKILL)


def master_of(laptop) -> int:
    """Process id of the shared connection that is open."""
    (control,) = [path for path in laptop.iterdir() if path.is_socket()]
    told = subprocess.run(
        ["ssh", "-o", f"ControlPath={control}", "-O", "check", "any"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return int(re.search(r"pid=(\d+)", told.stderr)[1])


async def follow(connection, job_id):
    """The job's revisions, until the first break."""
    stub = job_pb2_grpc.JobServiceStub(connection.channel)
    with translating("follow the job"):
        async for response in responses(stub.WatchJob(job_pb2.WatchJobRequest(job_id=job_id))):
            yield response


async def until(condition) -> None:
    deadline = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)


async def test_after_a_bridge_the_next_contact_needs_none(server, laptop):
    assert not await contact()
    bridges = commands(server)
    for _ in range(3):
        assert await contact()
    assert (server.logins, commands(server)) == (1, bridges)
    (folder,) = laptop.glob("way-*")
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE((folder / "s").stat().st_mode) == 0o600
    assert stat.S_IMODE(laptop.stat().st_mode) == 0o700


@pytest.mark.slow
async def test_contacts_side_by_side_are_no_sessions_to_the_server(monkeypatch, laptop, agent_home):
    with serving(monkeypatch, agent_home, "MaxSessions 1") as server:
        await contact()
        assert all(await asyncio.gather(*(contact() for _ in range(5))))
        assert server.logins == 1


@pytest.mark.slow
async def test_who_leaves_takes_the_shortcut_away(server, laptop):
    await contact()
    assert list(laptop.glob("way-*"))
    left = await leave("gpu1", Wanted(), narrate=lambda _line: None)
    assert left.was_connected
    assert list(laptop.iterdir()) == []
    assert not await contact()
    assert server.logins == 2


@pytest.mark.parametrize("lines", SSHD_REFUSES)
async def test_a_server_that_forwards_nothing_is_asked_once(
    lines, monkeypatch, laptop, agent_home, capfd
):
    with serving(monkeypatch, agent_home, *lines) as server:
        for _ in range(3):
            assert not await contact()
        refused = re.findall(r"refused streamlocal port forward", server.log.read_text())
        assert (server.logins, len(refused)) == (1, 1), server.log.read_text()
        assert capfd.readouterr() == ("", "")
        assert not list(laptop.glob("way-*/s"))
        # Another master is another chance: the server's rules may have changed.
        await leave("gpu1", Wanted(), narrate=lambda _line: None)
        (server.folder / "sshd_config").write_text(
            (server.folder / "sshd_config").read_text().replace(lines[0], "")
        )
        server.stop()
        server.start()
        assert [await contact(), await contact()] == [False, True]


async def test_a_master_that_died_is_followed_by_another(server, laptop):
    await contact()
    os.kill(master_of(laptop), signal.SIGKILL)
    assert not await contact()
    assert await contact()
    assert server.logins == 2


async def test_an_agent_that_has_gone_is_started_by_a_bridge(server, laptop, agent_home):
    await contact()
    stop_agent(agent_home)
    assert not await contact()
    assert await contact()
    assert server.logins == 1


@pytest.mark.parametrize(
    "how",
    [
        "master",
        pytest.param("link", marks=pytest.mark.slow),
        pytest.param("agent", marks=pytest.mark.slow),
    ],
)
async def test_what_is_followed_goes_on_when_something_breaks(server, laptop, agent_home, how):
    await contact()
    script = "i=0; while [ $i -lt 20 ]; do i=$((i+1)); echo $i; sleep 0.1; done"
    output = b""
    async with asyncio.timeout(DEADLINE), connect("gpu1") as connection:
        assert connection.is_short
        spec = JobSpec(CommandKind.PROGRAM, "sh", ("-c", script), hook=False)
        job = await Jobs(connection).create(spec)
        async for chunk in Logs(connection).tail(job.id, follow=True):
            output += chunk.data
            if output.endswith(b"\n5\n"):
                {
                    "link": lambda: cut(server),
                    "master": lambda: os.kill(master_of(laptop), signal.SIGKILL),
                    "agent": lambda: kill_agent(agent_home),
                }[how]()
        assert not connection.is_short
    assert output == b"".join(b"%d\n" % number for number in range(1, 21))
    assert await contact()


@pytest.mark.slow
async def test_another_agent_at_its_end_is_refused(server, laptop, agent_home, monkeypatch):
    await contact()
    other = Path(tempfile.mkdtemp(prefix="rdev-other-", dir="/var/tmp"))
    try:
        agent_command(other, "serve", "--detach")
        theirs = next(other.glob("hosts/*/run/agent.sock"))
        (folder,) = laptop.glob("way-*")
        (control,) = [path for path in laptop.iterdir() if path.is_socket()]
        os.unlink(folder / "s")
        subprocess.run(
            ["ssh", "-o", f"ControlPath={control}", "-O", "forward", "-L", f"{folder}/s:{theirs}", "x"],
            check=True, capture_output=True,
        )  # fmt: skip
        with pytest.raises(HostChanged):
            await contact()
    finally:
        stop_agent(other)
        shutil.rmtree(other)


@pytest.mark.slow
async def test_a_configuration_that_changed_has_no_shortcut_yet(server, laptop):
    await contact()
    assert await contact()
    with server.config.open("a") as file:
        file.write("Host elsewhere\n  HostName elsewhere\n")
    assert not await contact()
    assert await contact()


async def test_a_configuration_that_runs_commands_is_read_by_ssh_each_time(
    server, laptop, tmp_path
):
    asked = tmp_path / "asked"
    server.config.write_text(
        f'Match originalhost gpu1 exec "echo >> {asked}"\n  User {server.user}\n'
        + server.config.read_text()
    )
    assert [await contact(), await contact()] == [False, True]
    before = asked.stat().st_size
    assert await contact()
    assert asked.stat().st_size > before
    # What it led to leads elsewhere now.
    server.config.write_text(server.config.read_text().replace("gpu1 exec", "gpu1 !exec"))
    server.config.write_text(server.config.read_text().replace("User", "ConnectTimeout 7\n  User"))
    assert not await contact()


async def test_a_person_whose_own_sharing_lasts_has_shortcuts_by_it(
    monkeypatch, laptop, agent_home
):
    with serving(monkeypatch, agent_home, hosts=("own", "mine")) as server:
        own = [f"ControlPath {laptop.parent}/own-%n", "ControlMaster auto"]
        server.add_host("own", *own, "ControlPersist 60", "LocalForward 127.0.0.1:1 [::1]:1")
        server.add_host("mine", *own, "ControlPersist no")
        try:
            assert [await contact("own"), await contact("own")] == [False, True]
            assert server.logins == 1
            left = await leave("own", Wanted(), narrate=lambda _line: None)
            assert not left.was_connected
            assert not list(laptop.glob("way-*"))
            # In a terminal of theirs it would be said there what sshd refuses.
            with subprocess.Popen(
                [*server.ssh, "-MN", "mine"], stdin=subprocess.DEVNULL
            ) as terminal:
                await until((laptop.parent / "own-mine").exists)
                assert [await contact("mine"), await contact("mine")] == [False, False]
                terminal.terminate()
            assert server.logins == 2
        finally:
            subprocess.run([*server.ssh, "-O", "exit", "own"], check=False, capture_output=True)


async def test_another_user_finds_nothing(server, laptop):
    await contact()
    (shortcut,) = laptop.glob("way-*/s")
    script = "import socket, sys; socket.socket(socket.AF_UNIX).connect(sys.argv[1])"
    with guest() as person:
        for path in (shortcut, laptop):
            done = person.run("/usr/bin/python3", "-c", script, path, check=False)
            assert "PermissionError" in done.stderr


async def test_sshd_comes_to_the_agent_as_the_login(laptop, monkeypatch):
    """An agent can see who connects: a process of the login's own, never root's."""
    with guest() as person, sshd(person.name) as server:
        script = (
            "import socket, struct; s = socket.socket(socket.AF_UNIX); s.bind('here'); s.listen()\n"
            "print('ready', flush=True); c = s.accept()[0]; c.sendall(b'!')\n"
            "print(struct.unpack('3i', c.getsockopt(1, socket.SO_PEERCRED, 12))[1])"
        )
        listening = subprocess.Popen(
            ["/usr/bin/python3", "-c", script], cwd=person.home, user=person.uid,
            group=person.gid, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        with listening:
            assert listening.stdout.readline() == "ready\n"
            transport = OpenSsh("gpu1", Settings(config=str(server.config)), asks=lambda: False)
            assert (await transport.run("true")).code == 0
            shortcut = await transport.shortcut("agent")
            transport.lay(shortcut, f"{person.home}/here")
            await transport.close()
            assert shortcut.is_there()
            assert int(listening.stdout.read()) == person.uid
        await transport.hang_up()


@pytest.mark.slow
async def test_a_path_that_is_too_long_for_the_server_has_a_bridge(monkeypatch, laptop, agent_home):
    home = Path(tempfile.mkdtemp(prefix="rdev-long-", dir="/var/tmp"))
    try:
        with serving(monkeypatch, home / ("d" * 90)):
            assert [await contact(), await contact()] == [False, False]
    finally:
        stop_agent(home / ("d" * 90))
        shutil.rmtree(home)


async def test_without_room_for_a_socket_here_there_is_a_bridge(server, laptop, monkeypatch):
    deep = laptop.parent / ("d" * 70)
    deep.mkdir(mode=0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(deep))
    monkeypatch.setenv("XDG_STATE_HOME", str(deep))
    know_again = recall("gpu1")
    assert know_again is None
    know(server.folder)  # what is known lies elsewhere now
    assert shortcut_for("x", "y") is None


@pytest.mark.slow
async def test_masters_that_have_gone_are_swept_with_their_shortcuts(server, laptop, agent_home):
    await contact()
    (old,) = laptop.glob("way-*")
    os.kill(master_of(laptop), signal.SIGKILL)
    server.add_host("gpu2")
    know(agent_home, "gpu2")
    await contact("gpu2")
    assert not old.exists()


async def test_one_that_is_given_up_leaves_no_process(laptop, tmp_path):
    laptop.mkdir(mode=0o700)
    with socket.socket(socket.AF_UNIX) as mute:  # a master that says nothing
        mute.bind(str(laptop / "mute"))
        mute.listen()
        laying = Laying(
            shortcut_for("x", "y"), "/far", master=str(laptop / "mute"), destination="gpu1"
        )
        mute.settimeout(DEADLINE)
        asking, _ = await asyncio.to_thread(mute.accept)
        with asking:
            laying.end()
            await asyncio.to_thread(laying.wait)
            asking.settimeout(DEADLINE)
            while await asyncio.to_thread(asking.recv, 4096):  # until nobody has its other end
                pass


async def test_no_command_waits_for_a_shortcut_that_does_not_come(server, laptop):
    with socket.socket(socket.AF_UNIX) as mute:  # an agent that hangs
        mute.bind(str(server.folder / "mute"))
        mute.listen()
        transport = OpenSsh("gpu1", Settings(config=str(server.config)), asks=lambda: False)
        try:
            assert (await transport.run("true")).code == 0
            shortcut = await transport.shortcut("agent")
            transport.lay(shortcut, f"{server.folder}/mute")
            begun = time.monotonic()
            await transport.close()
            assert time.monotonic() - begun < 6  # two seconds, on a machine that is busy
            assert not shortcut.is_there()
            assert [path.name for path in laptop.glob("way-*/*")] == ["master"]
        finally:
            await transport.hang_up()


@pytest.mark.slow
async def test_a_laptop_with_another_release_meets_the_agent_by_a_bridge_first(
    server, laptop, monkeypatch
):
    await contact()
    assert await contact()
    monkeypatch.setattr(bootstrap, "our_version", lambda: "0.0.1")
    assert [await contact(), await contact()] == [False, True]


async def test_an_older_agent_behind_a_shortcut_is_met_by_a_bridge_the_next_time(server, laptop):
    await contact()
    async with connect("gpu1") as connection:
        older = replace(connection.agent, version="0.0.0")
    async with opened("gpu1", narrate=lambda _line: None) as remote:
        assert remote.is_short
        assert not await remote.accept(older)
    assert not await contact()


def test_what_decides_where_ssh_leads_names_it(tmp_path):
    main, more, unread = tmp_path / "config", tmp_path / "more", tmp_path / "unread"
    main.write_text(f"Host *\n  Include {tmp_path}/mo*\n")
    settings = Settings(destination="gpu1", config=str(main))
    seen = [footing_of(settings)]
    more.write_text("Host gpu1\n  User ann\n")
    seen.append(footing_of(settings))
    more.write_text("Host gpu1\n  User bob\n")
    seen.append(footing_of(settings))
    (tmp_path / "most").write_text("Port 1\n")
    seen.append(footing_of(settings))
    seen.append(footing_of(Settings(destination="gpu2", config=str(main))))
    main.write_text(main.read_text() + "# a word\n")
    seen.append(footing_of(settings))
    assert all(seen)
    assert len(set(seen)) == len(seen)
    unread.write_text("Match exec x\n")
    os.utime(main)
    assert footing_of(settings) == seen[-1]


@pytest.mark.parametrize(
    "line",
    [
        'Match exec "at-home"',
        "match host gpu1 EXEC true",
        "Match localnetwork 10.0.0.0/8",
        "CanonicalizeHostname yes",
        "Include ${PLACE}/config",
        "Include %d/config",
        'Include "with blanks/config"',
        "Include 'config'",
        "Include ~ann/config",
    ],
)
def test_what_ssh_has_to_be_asked_for_has_no_name(tmp_path, line):
    (tmp_path / "config").write_text(f"Include {tmp_path}/more\n")
    (tmp_path / "more").write_text(f"Host x\n  User y\n{line}\n")
    assert footing_of(Settings(destination="gpu1", config=str(tmp_path / "config"))) == ""


@pytest.mark.slow
async def test_a_connection_that_is_used_by_shortcuts_lasts(monkeypatch, laptop, agent_home):
    with serving(monkeypatch, agent_home, hosts=("own",)) as server:
        own = [f"ControlPath {laptop.parent}/own", "ControlMaster auto", "ControlPersist 4"]
        server.add_host("own", *own)
        await contact("own")
        for _ in range(3):  # each contact begins the time anew
            await asyncio.sleep(2)
            assert await contact("own")
        async with connect("own") as connection:
            await asyncio.sleep(7)  # longer than it lasts without use
            await Jobs(connection).list()
            assert connection.is_short
        assert server.logins == 1
        await until(lambda: not (laptop.parent / "own").exists())
        assert not await contact("own")


@pytest.mark.slow
async def test_a_link_that_went_silent_is_noticed_within_thirty_seconds(server, laptop):
    await contact()
    async with connect("gpu1") as connection:
        assert connection.is_short
        spec = JobSpec(CommandKind.PROGRAM, "sleep", ("60",), hook=False)
        job = await Jobs(connection).create(spec)
        stopped = [pid for pid in children(server.pid)
                   if Path(f"/proc/{pid}/comm").read_text().strip() == "sshd"]  # fmt: skip
        for pid in stopped:
            os.kill(pid, signal.SIGSTOP)
        try:
            async with asyncio.timeout(30):
                with pytest.raises(ConnectionLost):
                    async for _ in follow(connection, job.id):
                        pass
        finally:
            for pid in stopped:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)
        await connection.recover()
        await Jobs(connection).stop(job.id)
