"""A host that ssh leads to, on both transports: what breaks on the way, and what a person is told."""

import contextlib
import os
import re
import signal
import time

import pytest
from tests.e2e.test_failures import assert_told
from tests.support.away import away
from tests.support.sshd import children, make_key, sshd
from tests.support.terminal import in_terminal

COUNT = "i=0; while [ $i -lt 40 ]; do i=$((i+1)); echo line $i; sleep 0.1; done"
COUNTED = "".join(f"line {number}\n" for number in range(1, 41))


@pytest.fixture
def server():
    with sshd() as server:
        yield server


# tests/integration/test_transports.py has both in every run.
@pytest.fixture(params=["openssh", pytest.param("paramiko", marks=pytest.mark.slow)])
def person(request, rdev, server):
    with away(rdev, server, transport=request.param) as person:
        yield person


def cut(server) -> None:
    """Ends all connections as a network that goes away does; the server listens on."""
    for pid in children(server.pid):
        if comm(pid) == "sshd":
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def comm(pid: int) -> str:
    with contextlib.suppress(OSError), open(f"/proc/{pid}/comm") as file:
        return file.read().strip()
    return ""


def read_until(stream, text: str) -> str:
    seen = ""
    while text not in seen:
        line = stream.readline()
        assert line, f"it ended before {text!r}: {seen!r}"
        seen += line
    return seen


def test_a_job_is_run_there_with_its_output_and_its_code(person, server):
    person.write("train.py", "import sys; print('hi from', sys.argv[1]); sys.exit(3)")
    done = person.run("run", "-q", "-H", "gpu1", "--name", "far", "train.py", "there")
    assert (done.returncode, done.stdout) == (3, "hi from there\n"), done.stderr
    listed = person.run("ps", "-a", "-H", "gpu1", "--json")
    assert '"far"' in listed.stdout
    assert person.known()["agent_id"]
    assert person.run("ps", "-a", "--json").stdout.strip() == "[]"  # nothing of it is here
    assert "`-H gpu1` asks another" in person.run("ps").stdout
    assert "`-H gpu1` asks another" in person.run("logs", "far").stderr
    assert "`rdev ps -a -H gpu1` lists" in person.run("logs", "-H", "gpu1", "x").stderr


def test_a_command_runs_on_a_host_by_its_name(person, server):
    done = person.run("exec", "gpu1", "--", "pwd")
    assert (done.returncode, done.stdout) == (0, f"{os.path.expanduser('~')}\n"), done.stderr
    assert person.run("exec", "-H", "gpu1", "--", "pwd").stdout == done.stdout
    assert_told(person.run("exec", "--", "pwd"), 2, "neither a job nor a host was named")
    server.add_host("gpu2", "HostName nowhere.invalid", plain=False)  # never met, but ssh has it
    assert_told(person.run("exec", "gpu2", "--", "pwd"), 255, "no host is called nowhere.invalid")
    assert_told(person.run("exec", "gpu3", "--", "pwd"), 125, "no job has that name")
    assert_told(person.run("exec", "gpu1", "pwd"), 2, "'pwd' is no option of ours")


def test_logs_go_on_where_they_were_when_the_link_was_cut(person, server):
    started = person.run(
        "run", "-q", "-d", "-H", "gpu1", "--name", "count", "--", "sh", "-c", COUNT
    )
    assert started.returncode == 0, started.stderr
    with person.started("logs", "-f", "-H", "gpu1", "count", text=True) as following:
        seen = ""
        for word in ("line 5\n", "line 15\n"):
            seen += read_until(following.stdout, word)
            cut(server)
        rest, complaints = following.stdout.read(), following.stderr.read()
        following.wait()
    assert following.returncode == 0, complaints
    assert seen + rest == COUNTED


@pytest.mark.slow
def test_logs_go_on_when_the_agent_was_killed(person, server):
    started = person.run(
        "run", "-q", "-d", "-H", "gpu1", "--name", "count", "--", "sh", "-c", COUNT
    )
    assert started.returncode == 0, started.stderr
    with person.started("logs", "-f", "-H", "gpu1", "count", text=True) as following:
        seen = read_until(following.stdout, "line 5\n")
        logins = server.logins
        os.kill(person.agent_pid, signal.SIGKILL)
        rest, complaints = following.stdout.read(), following.stderr.read()
        following.wait()
    assert following.returncode == 0, complaints
    assert seen + rest == COUNTED
    assert server.logins == logins  # one bridge after another over one connection


@pytest.mark.slow
def test_a_login_that_is_refused_on_return_ends_it_and_is_not_tried_again(person, server):
    started = person.run(
        "run", "-q", "-d", "-H", "gpu1", "--name", "count", "--", "sh", "-c", COUNT
    )
    assert started.returncode == 0, started.stderr
    with person.started("logs", "-f", "-H", "gpu1", "count", text=True) as following:
        read_until(following.stdout, "line 3\n")
        (server.folder / "authorized_keys").write_text("")
        cut(server)
        following.stdout.read()
        complaints = following.stderr.read()
        following.wait()
    assert following.returncode == 77, complaints
    assert "ermission denied" in complaints
    assert server.refusals == 1


def test_a_refused_key_is_one_line_and_one_attempt(person, server):
    (server.folder / "authorized_keys").write_text("")
    assert_told(person.run("ps", "-H", "gpu1"), 77, "ermission denied")
    assert server.refusals == 1
    assert_told(person.run("run", "-H", "gpu1", "--", "true"), 255, "ermission denied")
    assert server.refusals == 2


def test_a_changed_host_key_is_one_line_that_names_the_file(person, server):
    make_key(server.folder / "other")
    public = (server.folder / "other.pub").read_text()
    server.known_hosts.write_text(f"[127.0.0.1]:{server.port} {public}")
    assert_told(person.run("ps", "-H", "gpu1"), 77, f"{server.known_hosts}:1")
    assert server.connections == 1


def test_a_host_that_is_down_is_one_line(person, server):
    server.stop()
    assert_told(person.run("ps", "-H", "gpu1"), 69, "connection refused")
    assert_told(person.run("run", "-H", "gpu1", "--", "true"), 255, "connection refused")


def test_another_agent_under_the_name_is_refused(person):
    person.know(agent_id="somebody-else")
    assert_told(person.run("ps", "-H", "gpu1"), 77, "another agent")


def test_a_passphrase_is_asked_for_in_the_foreground_only(person, server):
    make_key(server.key, passphrase="open sesame")
    (server.folder / "authorized_keys").write_text(server.key.with_suffix(".pub").read_text())
    assert_told(person.run("ps", "-H", "gpu1"), 77, "ermission denied")
    with in_terminal(person, "ps", "-H", "gpu1") as terminal:
        terminal.expect(b"Enter passphrase for key")
        terminal.type(b"open sesame\n")
        terminal.expect(b"no live jobs")
        assert terminal.wait() == 0


def test_an_unknown_host_key_is_asked_about_in_the_foreground_only(person, server):
    server.known_hosts.write_text("")
    assert_told(person.run("ps", "-H", "gpu1"), 77, "not known")
    with in_terminal(person, "ps", "-H", "gpu1") as terminal:
        terminal.expect(b"SHA256:")
        terminal.expect(b"yes/no")
        terminal.type(b"yes\n")
        terminal.expect(b"no live jobs")
        assert terminal.wait() == 0
    assert person.run("ps", "-H", "gpu1").returncode == 0


def test_an_interrupt_at_a_prompt_ends_it(person, server):
    server.known_hosts.write_text("")
    with in_terminal(person, "ps", "-H", "gpu1") as terminal:
        terminal.expect(b"yes/no")
        began = time.monotonic()
        terminal.type(b"\x03")
        assert terminal.wait() != 0
        assert time.monotonic() - began < 10
        assert b"Traceback" not in terminal.seen
    assert server.known_hosts.read_text() == ""


def test_an_interrupt_reaches_the_question_and_not_the_connection(person, server):
    with in_terminal(
        person, "run", "-H", "gpu1", "--name", "asked", "--", "sh", "-c", COUNT
    ) as terminal:
        terminal.expect(b"line 3")
        terminal.type(b"\x03")
        terminal.expect(b"Enter = stop it ")
        terminal.type(b"d\n")
        assert terminal.wait() == 0
    assert re.search(r"asked\s+running", person.run("ps", "-H", "gpu1").stdout.lower())


def test_the_transport_is_chosen_by_an_option(rdev, server):
    with away(rdev, server) as person:
        done = person.run("ps", "-H", "gpu1", "--transport", "paramiko")
        assert done.returncode == 0, done.stderr
        assert not any((person.agent_home.parent / "rdev").glob("*"))
        assert person.run("ps", "-H", "gpu1", "--transport", "openssh").returncode == 0
        assert any((person.agent_home.parent / "rdev").glob("*"))


def test_a_name_that_is_none_is_a_wrong_command_line(rdev):
    assert_told(rdev.run("ps", "--host=-oProxyCommand=touch x"), 2, "no host's name")
    assert_told(rdev.run("ps", "-H", "a b"), 2, "no host's name")
