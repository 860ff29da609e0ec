"""The parts of the transports that need no connection."""

import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rdev.client.transport import attempts as attempts_module
from rdev.client.transport.attempts import MOST, Attempts
from rdev.client.transport.contract import FAILED, READY
from rdev.client.transport.hostkeys import known_keys, name_of, write_down
from rdev.client.transport.jumping import jump_command
from rdev.client.transport.marker import Preamble
from rdev.client.transport.ownconfig import read_config, split_destination
from rdev.client.transport.sshconfig import parse
from rdev.protocol.errors import HostUnreachable, JobNotFound, error_as_json


@given(
    st.binary(max_size=300).filter(lambda noise: READY not in noise and FAILED not in noise),
    st.binary(max_size=100),
    st.integers(1, 40),
)
def test_what_comes_after_the_line_is_kept_however_it_is_cut(noise, rest, size):
    stream = noise + b"\n" + READY + b"\n" + rest
    preamble = Preamble()
    for at in range(0, len(stream), size):
        if preamble.feed(stream[at : at + size]):
            assert preamble.rest + stream[at + size :] == rest
            return
    pytest.fail("the line was not found")


def test_noise_without_end_does_not_fill_the_memory():
    preamble = Preamble()
    for _ in range(100):
        assert not preamble.feed(b"y\n" * 50_000)
    assert preamble.feed(b"\n" + READY + b"\nx")
    assert preamble.rest == b"x"


def test_a_bridges_failure_is_raised_as_what_it_is():
    line = FAILED + error_as_json(JobNotFound("find it", "it is gone", hint="look")).encode()
    preamble = Preamble()
    assert not preamble.feed(b"hello\n" + line[:30])
    with pytest.raises(JobNotFound, match="unable to find it: it is gone"):
        preamble.feed(line[30:] + b"\n")


def test_no_more_than_three_failures_a_minute(monkeypatch):
    now = 1000.0
    monkeypatch.setattr(attempts_module.time, "monotonic", lambda: now)
    attempts = Attempts()
    for _ in range(MOST):
        attempts.admit("log in")
        attempts.failed(HostUnreachable("log in", "it hung up"))
        now += 10
    with pytest.raises(HostUnreachable, match=r"within a minute.*it hung up"):
        attempts.admit("log in")
    now += 31.5  # a minute after the first
    attempts.admit("log in")
    attempts.succeeded()
    for _ in range(MOST - 1):
        attempts.failed(HostUnreachable("log in"))
    attempts.admit("log in")


KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIFlPxzNlYWQgYW5kIHF1aXRlIGFsaXZlIGFzIHdlbGw="


@pytest.mark.parametrize(
    ("line", "host", "port", "speaks"),
    [
        ("gpu1", "gpu1", 22, True),
        ("gpu1", "gpu1", 2222, False),
        ("[gpu1]:2222,other", "gpu1", 2222, True),
        ("*.example.org,!bad.example.org", "good.example.org", 22, True),
        ("*.example.org,!bad.example.org", "bad.example.org", 22, False),
        ("GPU1", "gpu1", 22, True),
        ("# gpu1", "gpu1", 22, False),
        ("@cert-authority gpu1", "gpu1", 22, True),
        ("@cert-authority gpu2", "gpu1", 22, False),
    ],
)
def test_lines_of_known_hosts(tmp_path, line, host, port, speaks):
    file = tmp_path / "known_hosts"
    file.write_text(f"\n{line} {KEY} comment\n")
    found = known_keys([str(tmp_path / "none"), str(file)], name_of(host, port))
    assert [key.place for key in found] == ([f"{file}:2"] if speaks else [])


def test_a_revoked_key_is_told_apart(tmp_path):
    file = tmp_path / "known_hosts"
    file.write_text(f"@revoked * {KEY}\n")
    assert known_keys([str(file)], "gpu1")[0].is_revoked


def test_an_authority_is_no_hosts_own_key(tmp_path):
    file = tmp_path / "known_hosts"
    file.write_text(f"@cert-authority * {KEY}\ngpu1 {KEY}\n")
    assert [key.is_own for key in known_keys([str(file)], "gpu1")] == [False, True]


@pytest.mark.parametrize("hashed", [False, True])
def test_openssh_finds_what_was_written_down(tmp_path, hashed):
    file = tmp_path / "ssh" / "known_hosts"
    file.parent.mkdir()
    file.write_text("no end of line")
    public = tmp_path / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", public], check=True)
    kind, text, *_ = public.with_suffix(".pub").read_text().split()
    import base64

    blob = base64.b64decode(text)
    write_down(str(file), "[gpu1]:2222", kind=kind, blob=blob, hashed=hashed)
    found = subprocess.run(
        ["ssh-keygen", "-F", "[gpu1]:2222", "-f", file], check=False, capture_output=True, text=True
    )
    assert text in found.stdout
    assert ("gpu1" in file.read_text()) is not hashed
    assert [key.blob for key in known_keys([str(file)], "[gpu1]:2222")] == [blob]


def test_the_configuration_is_read_without_ssh(tmp_path):
    (tmp_path / "more").write_text("Host gpu*\n  User ann\n  Port 2200\n")
    (tmp_path / "config").write_text(
        f"Host gpu1\n  Include {tmp_path}/mo*\n  HostName 10.0.0.1\n  IdentityFile ~/.ssh/own\n"
        "Host *\n  User nobody\n"
    )
    config = read_config(str(tmp_path / "config"), "gpu1")
    assert (config.get("hostname"), config.get("user")) == ("10.0.0.1", "ann")
    assert config.number("port", 22) == 2200
    assert config.all("identityfile")[0].endswith("/.ssh/own")
    assert read_config(str(tmp_path / "config"), "me@other").get("user") == "me"
    assert read_config(str(tmp_path / "config"), "ssh://me@h:99").get("port") == "99"


def test_a_file_that_includes_itself_ends(tmp_path):
    (tmp_path / "config").write_text(f"Include {tmp_path}/config\nHost x\n  User y\n")
    assert read_config(str(tmp_path / "config"), "x").get("user") == "y"


def test_destinations_are_taken_apart():
    assert split_destination("gpu1") == ("", "gpu1", "")
    assert split_destination("a@b@gpu1") == ("a@b", "gpu1", "")
    assert split_destination("ssh://me@gpu1:2222") == ("me", "gpu1", "2222")


def test_none_is_no_value():
    config = parse("proxyjump none\nidentityfile a\nidentityfile b\nport 22\nbatchmode yes\n")
    assert config.get("proxyjump") == ""
    assert config.all("identityfile") == ["a", "b"]
    assert config.is_on("batchmode", default=False)


@pytest.mark.parametrize(
    ("jumps", "words"),
    [("jump", ["--", "ssh://jump"]), ("a@b:33,c", ["-J", "a@b:33", "ssh://c"])],
)
def test_a_jump_is_the_command_that_ssh_makes_of_it(jumps, words, tmp_path):
    log = f"{tmp_path}/it's 100%"
    command = jump_command(jumps, config="/c d", complaints=log, options={"BatchMode": "yes"})
    for word in (*words, "-W", "%h", "%p", "BatchMode=yes"):
        assert word in command
    assert "100%%" in command  # ssh replaces what follows a single one
