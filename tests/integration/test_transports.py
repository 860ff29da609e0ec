"""One contract, two transports, a real sshd."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import socket
import subprocess
import threading
import time

import pytest
from tests.support.guest import guest
from tests.support.sshd import children, make_key, sshd

from rdev.client.transport.contract import Ran
from rdev.client.transport.inprocess import Paramiko
from rdev.client.transport.openssh import OpenSsh
from rdev.client.transport.settings import Settings, check_destination
from rdev.protocol.errors import (
    CommandNotFound,
    HostKeyRefused,
    HostUnreachable,
    LoginRefused,
    PermissionRefused,
    TimedOut,
    UsageError,
)

DEADLINE = 30.0

# A bridge to nothing but itself: what is sent comes back.
ECHO = "sh -c 'echo; echo rdev-bridge ready; exec cat'"

pytestmark = pytest.mark.timeout(90)


@pytest.fixture(params=[OpenSsh, Paramiko], ids=["openssh", "paramiko"])
def kind(request, monkeypatch, short_folder):
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(short_folder))
    monkeypatch.setenv("XDG_STATE_HOME", str(short_folder / "state"))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    return request.param


@pytest.fixture
def server():
    with sshd() as server:
        yield server


@pytest.fixture(scope="module")
def person():
    with guest() as person:
        yield person


def settings_for(server, **more) -> Settings:
    return Settings(config=str(server.config), **more)


@contextlib.asynccontextmanager
async def opened(kind, server, host="gpu1", **more):
    transport = kind(host, settings_for(server, **more), asks=lambda: False)
    try:
        yield transport
    finally:
        await transport.close()


@contextlib.asynccontextmanager
async def joined(transport, command=ECHO):
    """The far end of a socket that is joined to a bridge."""
    near, far = socket.socketpair()
    far.setblocking(False)
    try:
        await transport.join(command, near)
        yield far
    finally:
        far.close()


async def ask(far, words: bytes) -> bytes:
    loop = asyncio.get_running_loop()
    await loop.sock_sendall(far, words)
    async with asyncio.timeout(DEADLINE):
        return await loop.sock_recv(far, 1000)


async def test_a_command_is_fed_and_says_how_it_went(kind, server):
    async with opened(kind, server) as transport:
        ran = await transport.run("sh -s", feed=b"echo yes; echo no >&2; exit 3")
        assert ran == Ran(3, b"yes\n", b"no\n")
        assert (await transport.run("cat", feed=b"fed")).stdout == b"fed"
        assert (await transport.run("true")).code == 0
        assert (await transport.run("no-such-program")).code == 127
        assert (await transport.run("exit 255")).code == 255  # its own, not ssh's


async def test_one_login_serves_all_commands(kind, server):
    async with opened(kind, server) as transport:
        await transport.login()
        await asyncio.gather(*(transport.run("true") for _ in range(3)))
        async with joined(transport) as far:
            assert await ask(far, b"hello") == b"hello"
    assert server.logins <= (1 if kind is Paramiko else 3)  # side by side, before one can be shared
    logins = server.logins
    async with opened(OpenSsh, server) as later:
        await later.run("true")
        await later.run("true")
    assert server.logins - logins <= (0 if kind is OpenSsh else 1)


async def test_much_is_printed_and_fed_whole(kind, server):
    blob = os.urandom(3_000_000)
    async with opened(kind, server) as transport:
        ran = await transport.run("cat", feed=blob)
        assert ran.stdout == blob
        ran = await transport.run("sh -c 'head -c 3000000 /dev/zero >&2'")
        assert len(ran.stderr) == 3_000_000


@pytest.mark.slow
async def test_a_host_that_prints_without_end_is_given_up(kind, server):
    async with opened(kind, server) as transport:
        with pytest.raises(HostUnreachable, match="more than 16 MiB"):
            await transport.run("cat /dev/zero")
        try:  # ssh holds up what complains without end; in process the rest is thrown away
            ran = await transport.run("sh -c 'head -c 50000000 /dev/zero >&2'", patience=5)
            assert len(ran.stderr) == 4 << 20
        except TimedOut:
            assert kind is OpenSsh
        assert (await transport.run("echo on")).stdout == b"on\n"


async def test_a_command_that_reads_nothing_may_be_fed(kind, server):
    async with opened(kind, server) as transport:
        assert (await transport.run("true", feed=b"x" * 5_000_000)).code == 0


async def test_a_command_that_takes_too_long_is_given_up(kind, server):
    async with opened(kind, server) as transport:
        with pytest.raises(TimedOut):
            await transport.run("sleep 60", patience=0.5)
        assert (await transport.run("echo still here")).stdout == b"still here\n"


@pytest.mark.parametrize("shell", ["/bin/bash", "/usr/bin/tcsh", "/usr/bin/fish", "/bin/dash"])
async def test_whatever_shell_the_login_has_and_whatever_it_prints(kind, shell):
    if not os.path.exists(shell):
        pytest.skip(f"no {shell} here")
    with guest(shell=shell) as person, sshd(person.name) as server:
        noise = "echo welcome; echo rdev-bridge is near; printf 'no line end'\n"
        for name in (".bashrc", ".tcshrc", ".config/fish/config.fish"):
            person.write(name, noise)
        async with opened(kind, server) as transport:
            ran = await transport.run("sh -s", feed=b"id -un; exit 4")
            assert (ran.code, ran.stdout.endswith(f"{person.name}\n".encode())) == (4, True)
            async with joined(transport) as far:
                assert await ask(far, b"hello") == b"hello"
            with pytest.raises(CommandNotFound):
                async with joined(transport, f"{person.home}/dist/bin/rdev-agent bridge"):
                    pass


async def test_what_a_bridge_says_instead_is_raised(kind, server):
    said = b'{"reason": "PERMISSION", "action": "do it", "cause": "not you", "hint": "be root"}'
    script = server.folder / "bridge"
    script.write_bytes(b"#!/bin/sh\necho; echo 'rdev-bridge failed " + said + b"'\nsleep 60\n")
    script.chmod(0o755)
    async with opened(kind, server) as transport:
        with pytest.raises(PermissionRefused, match="unable to do it: not you"):
            async with joined(transport, str(script)):
                pass


async def test_a_bridge_that_ends_without_a_word_is_told_by_its_last(kind, server):
    async with opened(kind, server) as transport:
        with pytest.raises(HostUnreachable, match="out of luck"):
            async with joined(transport, "sh -c 'echo well; echo out of luck >&2; exit 1'"):
                pass


async def test_what_is_sent_arrives_byte_by_byte_both_ways(kind, server):
    blob = os.urandom(24_000_000)
    got = bytearray()
    loop = asyncio.get_running_loop()
    async with opened(kind, server) as transport, joined(transport) as far:
        sending = asyncio.ensure_future(loop.sock_sendall(far, blob))
        async with asyncio.timeout(DEADLINE):
            while len(got) < len(blob):
                got += await loop.sock_recv(far, 1 << 20)
        await sending
    assert got == blob


async def test_who_does_not_read_holds_the_writer_up(kind, server):
    async with opened(kind, server) as transport, joined(transport) as far:
        sent, quiet = 0, 0
        while quiet < 10:  # for half a second nothing more fits
            try:
                sent += far.send(b"x" * 65536)
                quiet = 0
            except BlockingIOError:
                quiet += 1
                await asyncio.sleep(0.05)
            assert sent < 200_000_000


async def test_either_side_ends_it(kind, server):
    async with opened(kind, server) as transport:
        async with joined(transport, "sh -c 'echo; echo rdev-bridge ready; read line'") as far:
            assert await ask(far, b"bye\n") == b""
        near, far = socket.socketpair()
        await transport.join(ECHO, near)
        far.close()
        await until(lambda: near.fileno() < 0)


async def test_a_cancelled_call_leaves_nothing_behind(kind, person):
    with sshd(person.name) as server:
        async with opened(kind, server) as transport:
            await transport.login()
            near, far = socket.socketpair()
            joining = asyncio.ensure_future(transport.join("cat", near))  # it never says a word
            await until(lambda: "cat" in commands(person))
            joining.cancel()
            with pytest.raises(asyncio.CancelledError):
                await joining
            assert near.fileno() < 0
            far.close()
            await until(lambda: "cat" not in commands(person))
            running = asyncio.ensure_future(transport.run("sleep 60"))
            await until(lambda: "sleep" in commands(person))
            running.cancel()
            with pytest.raises(asyncio.CancelledError):
                await running
            assert (await transport.run("true")).code == 0


async def test_a_refused_key_is_offered_once(kind, server):
    (server.folder / "authorized_keys").write_text("")
    async with opened(kind, server) as transport:
        for _ in range(3):
            with pytest.raises(LoginRefused, match=r"ermission denied .*publickey") as caught:
                await transport.run("true")
            assert "rdev up gpu1" in caught.value.hint
        near, far = socket.socketpair()
        with far, pytest.raises(LoginRefused):
            await transport.join(ECHO, near)
    assert (server.connections, server.refusals) == (1, 1)


async def test_a_host_key_that_changed_is_refused_and_its_line_named(kind, server):
    make_key(server.folder / "other")
    public = (server.folder / "other.pub").read_text()
    server.known_hosts.write_text(f"# mine\n[127.0.0.1]:{server.port} {public}")
    async with opened(kind, server) as transport:
        with pytest.raises(HostKeyRefused, match=rf"another host key.*{server.known_hosts}:2") as e:
            await transport.run("true")
        assert f"{server.known_hosts}:2" in e.value.hint
        assert "StrictHostKeyChecking" not in e.value.hint
        with pytest.raises(HostKeyRefused):
            await transport.run("true")
    assert server.connections == 1


async def test_a_changed_key_is_refused_even_where_none_is_checked(kind, server):
    make_key(server.folder / "other")
    public = (server.folder / "other.pub").read_text()
    server.known_hosts.write_text(f"[127.0.0.1]:{server.port} {public}")
    server.add_host("careless", "StrictHostKeyChecking no")
    async with opened(kind, server, "careless") as transport:
        with pytest.raises(HostKeyRefused):
            await transport.run("true")


async def test_an_unknown_host_key_is_refused_where_nobody_can_be_asked(kind, server):
    server.known_hosts.write_text("")
    async with opened(kind, server) as transport:
        with pytest.raises(HostKeyRefused, match="not known"):
            await transport.run("true")
    assert server.known_hosts.read_text() == ""


async def test_a_hashed_known_host_is_known(kind, server):
    subprocess.run(
        ["ssh-keygen", "-q", "-H", "-f", server.known_hosts], check=True, capture_output=True
    )
    assert server.known_hosts.read_text().startswith("|1|")
    async with opened(kind, server) as transport:
        assert (await transport.run("true")).code == 0


async def test_a_host_key_that_is_to_be_accepted_is_written_down(kind, server):
    server.known_hosts.write_text("")
    server.add_host("new", "StrictHostKeyChecking accept-new")
    async with opened(kind, server, "new") as transport:
        assert (await transport.run("true")).code == 0
    server.stop()
    make_key(server.folder / "host_key")
    server.start()
    async with opened(kind, server, "new") as transport:
        with pytest.raises(HostKeyRefused):
            await transport.run("true")


async def test_a_host_that_is_down(kind, server):
    server.stop()
    async with opened(kind, server) as transport:
        for _ in range(5):  # nobody counts these
            with pytest.raises(HostUnreachable, match="connection refused"):
                await transport.run("true")
        server.start()
        assert (await transport.run("true")).code == 0


async def test_a_host_that_does_not_answer(kind, server):
    with socket.create_server(("127.0.0.1", 0)) as mute:
        server.add_host("mute", f"Port {mute.getsockname()[1]}")
        async with opened(kind, server, "mute", connecting=1) as transport:
            with pytest.raises(HostUnreachable):
                await transport.run("true")


async def test_a_name_that_nobody_has(kind, server):
    server.add_host("lost", "HostName nowhere.invalid")
    async with opened(kind, server, "lost") as transport:
        with pytest.raises(HostUnreachable, match=r"no host is called nowhere\.invalid"):
            await transport.run("true")


async def test_a_server_that_hangs_up_is_asked_three_times_a_minute(kind, server):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        asked = hanging_up(listener)
        server.add_host("busy", f"Port {listener.getsockname()[1]}")
        async with opened(kind, server, "busy") as transport:
            for _ in range(8):
                with pytest.raises(HostUnreachable):
                    await transport.run("true")
        async with opened(kind, server, "busy") as another:
            with pytest.raises(HostUnreachable, match="within a minute"):
                await another.run("true")
        assert len(asked) == 3
        listener.shutdown(socket.SHUT_RDWR)


async def test_through_a_jump_host(kind, server):
    with sshd() as jump:
        server.add_host("jump", *entry(jump), plain=False)
        server.add_host("behind", "ProxyJump jump")
        async with opened(kind, server, "behind") as transport:
            assert (await transport.run("echo there")).stdout == b"there\n"
            async with joined(transport) as far:
                assert await ask(far, b"hello") == b"hello"
        assert (jump.logins, server.logins) == (1, 1)


async def test_a_jump_host_with_a_port_of_its_own(kind, server):
    with sshd() as jump:
        name = "localhost"
        without = [line for line in entry(jump) if not line.startswith(("HostName", "Port"))]
        trusted = jump.known_hosts.read_text().replace("127.0.0.1", name)
        jump.known_hosts.write_text(trusted)
        server.add_host(name, *without, plain=False)
        server.add_host("behind", f"ProxyJump {jump.user}@{name}:{jump.port}")
        async with opened(kind, server, "behind") as transport:
            assert (await transport.run("echo there")).stdout == b"there\n"
        assert (jump.logins, server.logins) == (1, 1)


async def test_through_two_jump_hosts_the_second_is_reached_by_the_first_alone(kind, server):
    with sshd(lines=["PermitOpen none"]) as first, sshd() as second:
        server.add_host("first", *entry(first), plain=False)
        server.add_host("second", *entry(second), plain=False)
        server.add_host("behind", "ProxyJump first,second")
        async with opened(kind, server, "behind") as transport:
            with pytest.raises(HostUnreachable):
                await transport.run("true")
        assert (first.logins, second.connections, server.connections) == (1, 0, 0)
    with sshd() as first, sshd() as second:
        server.add_host("one", *entry(first), plain=False)
        server.add_host("two", *entry(second), plain=False)
        server.add_host("farther", "ProxyJump one,two")
        async with opened(kind, server, "farther") as transport:
            assert (await transport.run("echo there")).stdout == b"there\n"
        assert (first.logins, second.logins, server.logins) == (1, 1, 1)


async def test_a_jump_host_that_refuses(kind, server):
    with sshd() as jump:
        (jump.folder / "authorized_keys").write_text("")
        server.add_host("jump", *entry(jump), plain=False)
        server.add_host("behind", "ProxyJump jump")
        async with opened(kind, server, "behind") as transport:
            for _ in range(2):
                with pytest.raises(LoginRefused):
                    await transport.run("true")
        assert (jump.refusals, server.connections) == (1, 0)


async def test_through_a_command(kind, server):
    server.add_host("proxied", f"ProxyCommand ssh -F {server.config} -W %h:%p gpu1")
    async with opened(kind, server, "proxied") as transport:
        assert (await transport.run("echo there")).stdout == b"there\n"


async def test_without_the_ssh_command(server, monkeypatch, short_folder):
    monkeypatch.setenv("PATH", "/nonexistent")
    included = server.folder / "included"
    server.config.rename(included)
    server.config.write_text(f"Include {included}\n")
    async with opened(Paramiko, server) as transport:
        assert (await transport.run("echo in process")).stdout == b"in process\n"


async def test_a_key_of_the_users_agent(kind, server, monkeypatch):
    place = server.folder / "agent"
    server.add_host("by-agent", "IdentityFile /nonexistent", "IdentitiesOnly no", f"IdentityAgent {place}")  # fmt: skip
    agent = subprocess.Popen(["ssh-agent", "-D", "-a", place], stdout=subprocess.DEVNULL)
    try:
        await until(place.exists)
        environment = {**os.environ, "SSH_AUTH_SOCK": str(place)}
        subprocess.run(["ssh-add", "-q", server.key], env=environment, check=True)
        server.key.unlink()
        async with opened(kind, server, "by-agent") as transport:
            assert (await transport.run("true")).code == 0
    finally:
        agent.kill()
        agent.wait()


async def test_a_link_that_went_silent_is_noticed(kind, server):
    await _goes_silent(kind, server, alive=1, within=8)


@pytest.mark.slow
async def test_a_link_that_went_silent_is_noticed_within_thirty_seconds(kind, server):
    await _goes_silent(kind, server, alive=Settings().alive, within=30)


async def _goes_silent(kind, server, *, alive, within):
    async with opened(kind, server, alive=alive) as transport, joined(transport) as far:
        assert await ask(far, b"hello") == b"hello"
        stopped = [pid for pid in children(server.pid) if name_of(pid) == "sshd"]
        assert stopped
        for pid in stopped:
            os.kill(pid, signal.SIGSTOP)
        began = time.monotonic()
        try:
            async with asyncio.timeout(within):
                assert await asyncio.get_running_loop().sock_recv(far, 1) == b""
        finally:
            for pid in stopped:
                os.kill(pid, signal.SIGCONT)
        assert time.monotonic() - began < within
        # The next one is a new connection.
        assert (await transport.run("echo back")).stdout == b"back\n"


async def test_a_command_whose_connection_is_cut_has_no_exit_code(kind, server):
    async with opened(kind, server) as transport:
        await transport.login()
        running = asyncio.ensure_future(transport.run("sh -c 'echo begun; exec sleep 60'"))
        await until(lambda: "sleep" in {name_of(pid) for pid in children(server.pid)})
        for pid in children(server.pid):
            if name_of(pid) == "sshd":
                os.kill(pid, signal.SIGKILL)
        with pytest.raises(HostUnreachable):
            await running


async def test_a_connection_that_was_cut_is_made_anew(kind, server):
    async with opened(kind, server) as transport:
        async with joined(transport) as far:
            for pid in children(server.pid):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            async with asyncio.timeout(DEADLINE):
                assert await asyncio.get_running_loop().sock_recv(far, 1) == b""
        async with joined(transport) as far:
            assert await ask(far, b"hello") == b"hello"


@pytest.mark.parametrize("alive", ["ServerAliveInterval 2", "ControlMaster auto"])
async def test_sharing_of_the_users_own_is_left_alone(server, short_folder, alive, monkeypatch):
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(short_folder))
    path = short_folder / "own"
    server.add_host(
        "shared", f"ControlPath {path}", "ControlMaster auto", "ControlPersist 60", alive
    )
    async with opened(OpenSsh, server, "shared") as transport:
        await transport.run("true")
        await transport.run("true")
    assert server.logins == 1
    assert path.exists()
    assert not list((short_folder / "rdev").glob("*"))
    subprocess.run([*server.ssh, "-O", "exit", "shared"], check=True, capture_output=True)


async def test_a_dead_socket_of_a_shared_connection_is_none(server, short_folder, monkeypatch):
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(short_folder))
    dead = short_folder / "dead"
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(dead))
    server.add_host("crashed", f"ControlPath {dead}", "ControlMaster no")
    async with opened(OpenSsh, server, "crashed") as transport:
        for _ in range(3):
            assert (await transport.run("echo on")).stdout == b"on\n"
        assert server.logins == 1, "it is shared by our own"
        await transport.hang_up()


async def test_an_input_that_is_configured_away_is_ours_all_the_same(kind, server):
    server.add_host("silent", "StdinNull yes")
    async with opened(kind, server, "silent") as transport:
        assert (await transport.run("cat", feed=b"fed")).stdout == b"fed"


async def test_a_revoked_key_is_refused_though_it_is_known_and_its_line_named(kind, server):
    public = (server.folder / "host_key.pub").read_text()
    with server.known_hosts.open("a") as file:
        file.write(f"@revoked * {public}")
    server.add_host("careless", "StrictHostKeyChecking no")
    for host in ("gpu1", "careless"):
        async with opened(kind, server, host) as transport:
            with pytest.raises(HostKeyRefused, match="revoked" if kind is OpenSsh else ":2"):
                await transport.run("true")


async def test_a_host_with_a_certificate_needs_the_ssh_command(kind, server):
    make_key(server.folder / "authority")
    authority = (server.folder / "authority.pub").read_text()
    sign = [
        "ssh-keygen",
        "-q",
        "-s",
        server.folder / "authority",
        "-h",
        "-I",
        "gpu1",
        "-n",
        "127.0.0.1",
    ]
    subprocess.run([*sign, server.folder / "host_key.pub"], check=True, capture_output=True)
    with (server.folder / "sshd_config").open("a") as file:
        file.write(f"HostCertificate {server.folder}/host_key-cert.pub\n")
    server.stop()
    server.start()
    known = server.known_hosts.read_text()
    server.known_hosts.write_text(f"@cert-authority [127.0.0.1]:{server.port} {authority}")
    async with opened(kind, server) as transport:
        if kind is OpenSsh:
            assert (await transport.run("echo in")).stdout == b"in\n"
            return
        with pytest.raises(HostKeyRefused, match="certificate") as caught:
            await transport.run("true")
        assert "--transport openssh" in caught.value.hint
    with server.known_hosts.open("a") as file:
        file.write(known)
    async with opened(kind, server) as transport:  # its own key is known, too
        assert (await transport.run("echo in")).stdout == b"in\n"


async def test_a_key_that_replaces_a_revoked_one_is_unknown_and_not_changed(kind, server):
    make_key(server.folder / "old")
    public = (server.folder / "old.pub").read_text()
    server.known_hosts.write_text(f"@revoked * {public}")
    async with opened(kind, server) as transport:
        with pytest.raises(HostKeyRefused, match="not known"):
            await transport.run("true")


@pytest.mark.parametrize("host", ["-oProxyCommand=x", "a b", "", "a;b", "unix:", "ssh://", "a\nb"])
def test_no_name_becomes_an_option_or_a_command(host):
    with pytest.raises(UsageError):
        check_destination(host)


@pytest.mark.parametrize(
    "host", ["gpu1", "me@gpu1.example.org", "ssh://me@h:2222", "10.0.0.1", "::1"]
)
def test_what_ssh_takes_is_taken(host):
    assert check_destination(host) == host


def entry(jump) -> list[str]:
    """Lines of a jump host's entry."""
    return [
        "HostName 127.0.0.1", f"Port {jump.port}", f"User {jump.user}", f"IdentityFile {jump.key}",
        "IdentitiesOnly yes", "IdentityAgent none", f"UserKnownHostsFile {jump.known_hosts}",
        "GlobalKnownHostsFile /dev/null",
    ]  # fmt: skip


def hanging_up(listener) -> list[int]:
    asked: list[int] = []

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listener.accept()
                asked.append(1)
                connection.close()

    threading.Thread(target=accept, daemon=True).start()
    return asked


def name_of(pid: int) -> str:
    with contextlib.suppress(OSError), open(f"/proc/{pid}/comm") as file:
        return file.read().strip()
    return ""


def commands(person) -> set[str]:
    return {name_of(pid) for pid in person.processes}


async def until(condition) -> None:
    deadline = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)


@pytest.fixture
def short_folder():
    import tempfile
    from pathlib import Path

    folder = Path(tempfile.mkdtemp(prefix="rdev-run-", dir="/var/tmp"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)
