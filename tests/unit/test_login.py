"""What a login has, as its own shell says it, whatever its rc files do."""

import os
import shutil
import stat
from pathlib import Path

import pytest

from rdev.agent import login
from rdev.agent.login import Login, LoginUnknownError, capture, login_of, own, whole
from rdev.wire.home import Home


@pytest.fixture
def person(tmp_path: Path, monkeypatch) -> Path:
    """A home directory whose rc files are the test's."""
    made = tmp_path / "a person's home"
    made.mkdir(mode=0o700)
    monkeypatch.setenv("HOME", str(made))
    monkeypatch.setenv("SHELL", "/bin/bash")
    for name in ("BASH_ENV", "ENV", "ZDOTDIR", "XDG_CONFIG_HOME"):
        monkeypatch.delenv(name, raising=False)
    return made


def test_rc_files_give_variables_umask_and_limits(person):
    (person / ".profile").write_text(
        "echo a noisy greeting\n"
        "umask 002\n"
        "ulimit -n 512\n"
        "export FROM_PROFILE='two words\nand two lines'\n"
        "module() { echo modules; }\nexport -f module\n"
    )
    found = capture()
    assert found.environment["FROM_PROFILE"] == "two words\nand two lines"
    assert found.environment["BASH_FUNC_module%%"].startswith("() {")
    assert found.umask == 0o002
    assert found.limits["nofile"] == (512, 512)
    assert found.descriptors == 512
    assert found.groups == own().groups
    assert found.cpus == tuple(sorted(os.sched_getaffinity(0)))


@pytest.mark.parametrize(
    ("shell", "rc", "line"),
    [
        ("sh", ".profile", "export GREETING='good day'; umask 027"),
        ("zsh", ".zprofile", "export GREETING='good day'; umask 027"),
        ("tcsh", ".login", "setenv GREETING 'good day'; umask 027; echo noise"),
        ("fish", ".config/fish/config.fish", "set -gx GREETING 'good day'; umask 027"),
    ],
)
def test_shells_of_every_kind_are_asked(person, monkeypatch, shell, rc, line):
    found = shutil.which(shell)
    if found is None:
        pytest.skip(f"no {shell} here")
    monkeypatch.setenv("SHELL", found)
    (person / rc).parent.mkdir(parents=True, exist_ok=True)
    (person / rc).write_text(f"{line}\n")
    login_ = capture()
    assert (login_.environment["GREETING"], login_.umask) == ("good day", 0o027)


@pytest.mark.parametrize(
    ("shell", "rc", "line"),
    [
        ("zsh", ".zprofile", "export GREETING='good day'; umask 027"),
        ("tcsh", ".tcshrc", "setenv GREETING 'good day'; umask 027; echo noise"),
        ("fish", ".config/fish/config.fish", "set -gx GREETING 'good day'; umask 027"),
    ],
)
def test_the_shell_that_the_logins_own_makes_way_for_is_asked(person, shell, rc, line):
    found = shutil.which(shell)
    if found is None:
        pytest.skip(f"no {shell} here")
    (person / ".profile").write_text(f"export FIRST=1\nexec {found} -l\n")
    (person / rc).parent.mkdir(parents=True, exist_ok=True)
    (person / rc).write_text(f"{line}\n")
    login_ = capture()
    assert (login_.environment["GREETING"], login_.umask) == ("good day", 0o027)
    assert login_.environment["FIRST"] == "1"


@pytest.mark.parametrize(
    ("rc", "cause"),
    [
        ("sleep 600\n", "took over"),
        (
            "while :; do echo aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa; done\n",
            "print without|took",
        ),
        ("exit 3\n", "did not run"),
        ("exec /bin/true\n", "did not run"),
        ("read answer && exit 0; exit 1\n", "did not run"),
        ("kill -9 $$\n", "did not run"),
    ],
)
def test_rc_files_that_hang_flood_ask_or_end_are_given_up(person, rc, cause):
    (person / ".profile").write_text(rc)
    with pytest.raises(LoginUnknownError, match=cause):
        capture(patience=1.0)


def test_a_daemon_that_an_rc_file_starts_keeps_nobody_waiting_and_lives(person, tmp_path):
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    # It has our pipe open, and says that it lives when it is asked.
    (person / ".profile").write_text(f"setsid sh -c 'read x < \"{fifo}\"; echo done > {fifo}' &\n")
    assert capture(patience=20.0).environment["HOME"] == str(person)
    fifo.write_text("are you there?\n")
    assert fifo.read_text() == "done\n"


def test_a_shell_that_is_not_there_is_given_up(person, monkeypatch):
    monkeypatch.setenv("SHELL", "/nonexistent/zsh")
    with pytest.raises(LoginUnknownError, match="cannot be started"):
        capture()


def test_a_failing_login_leaves_the_agents_own_and_says_so(person, tmp_path, caplog):
    (person / ".profile").write_text("exit 1\n")
    mine = own()
    found = login_of(Home(str(tmp_path), "m"), mine, asks_shell=True, anew=False)
    assert (found.environment, found.umask) == (mine.environment, mine.umask)
    assert found.fault == "/bin/bash did not run a command"
    assert "jobs get the agent's own environment" in caplog.text


def test_a_login_is_captured_once_until_somebody_asks(person, tmp_path):
    home = Home(str(tmp_path), "m")
    Path(home.host).mkdir(parents=True)
    (person / ".profile").write_text(
        'echo x >> "$HOME/runs"; export RUNS=$(wc -l < "$HOME/runs")\n'
    )
    for anew, runs in ((False, 1), (False, 1), (True, 2), (False, 2)):
        found = login_of(home, own(), asks_shell=True, anew=anew)
        login.write(home.login, found)
        assert found.environment["RUNS"] == str(runs)
        assert found == login.read(home.login)
    assert stat.S_IMODE(os.stat(home.login).st_mode) == 0o600


@pytest.mark.parametrize("content", ["", "{", "{}", '{"format": 1}', '{"format": 1, "umask": "x"}'])
def test_a_damaged_record_is_captured_again(content, tmp_path):
    (tmp_path / "login.json").write_text(content)
    assert login.read(str(tmp_path / "login.json")) is None


def test_a_person_at_this_machine_is_asked_nothing(person, tmp_path):
    (person / ".profile").write_text('touch "$HOME/was-run"\n')
    mine = own()
    assert login_of(Home(str(tmp_path), "m"), mine, asks_shell=False, anew=True) is mine
    assert not (person / "was-run").exists()


def test_what_belongs_to_a_connection_a_display_or_a_service_is_taken_out():
    given = {
        "PATH": "/bin",
        "SSH_AUTH_SOCK": "/x",
        "DISPLAY": ":0",
        "NOTIFY_SOCKET": "/x",
        "INVOCATION_ID": "1",
        "JOURNAL_STREAM": "8:1",
        "LISTEN_FDS": "1",
        "LISTEN_PID": "1",
        "RDEV_HOME": "/x",
        "SHLVL": "3",
        "MODULEPATH": "/m",
    }
    assert whole(given).keys() == {"PATH", "MODULEPATH", "HOME", "USER", "LOGNAME", "SHELL"}


def test_variables_that_are_no_text_come_back_as_they_were(person):
    (person / ".profile").write_bytes(b"export ODD=$'\\xff\\xfe'\n")
    assert os.fsencode(capture().environment["ODD"]) == b"\xff\xfe"


def test_a_login_survives_its_record():
    found = own()
    assert isinstance(found, Login)
    assert whole(found.environment) == found.environment
