"""The probe: what a real shell says of this machine, and answers that no machine gives."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rdev.client.bootstrap.probe import ProbeUnreadableError, has_begun, parse, script

SHELLS = [shell for shell in ("sh", "bash", "dash", "zsh") if shutil.which(shell)]


def ask(home: Path, *, shell: str = "sh", path: str = "/usr/bin:/bin", wishes=None, **variables):
    """The probe's answer from a shell of this machine, where that is what `sh` means."""
    return subprocess.run(
        ["sh", "-s"],
        executable=shutil.which(shell),
        input=script(**(wishes or {})),
        env={"HOME": str(home), "PATH": path, **variables},
        capture_output=True,
        timeout=60,
        check=True,
    ).stdout


def fake_python(folder: Path, version: str, name: str = "python3") -> Path:
    """A program that says of itself what a Python of that version says."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    told = f"{version}\\tcpython\\t\\t64\\tx86_64\\tglibc 2.31\\t{path}\\t"
    path.write_text(f"#!/bin/sh\nprintf '{told}\\n'\n")
    path.chmod(0o755)
    return path


@pytest.fixture
def answer(tmp_path):
    return ask(tmp_path)


@pytest.mark.parametrize("shell", SHELLS)
def test_every_shell_says_the_same_of_this_machine(tmp_path, shell):
    probe = parse(ask(tmp_path, shell=shell))
    assert (probe.system, probe.machine) == (os.uname().sysname, os.uname().machine)
    assert probe.uid == os.getuid()
    assert probe.root.path == f"{tmp_path}/.rdev"
    assert probe.root.is_writable
    assert probe.root.may_execute
    assert abs(probe.root.free - shutil.disk_usage(tmp_path).free) < 1 << 30
    system = [python for python in probe.pythons if python.base.startswith("/usr/bin/python3")]
    assert len(system) == 1, "one interpreter, however many names it has"


def test_nothing_is_written(tmp_path):
    ask(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_what_rc_files_print_before_is_passed_over(answer):
    noise = b"Welcome!\nsystem=Plan9\nrdev-probe begins soon\nno line break at the end: "
    assert parse(noise + answer) == parse(answer)
    assert parse(noise + answer + b"logout\nsystem=Plan9\n").system == "Linux"
    assert parse(answer.replace(b"\n", b"\r\n")) == parse(answer), "a terminal was forced"


def test_an_answer_that_was_cut_is_not_believed(answer):
    end = answer.index(b"rdev-probe end")
    for cut in (0, 10, end // 2, end):
        with pytest.raises(ProbeUnreadableError):
            parse(answer[:cut])
    assert has_begun(answer[: end // 2])
    assert not has_begun(b"This account is currently not available.\n")


def test_a_script_that_was_cut_does_nothing(tmp_path):
    whole = script()
    cut = subprocess.run(
        ["sh", "-s"], input=whole[: len(whole) // 2], capture_output=True, check=False
    )
    assert not has_begun(cut.stdout)


@given(st.binary())
def test_no_answer_is_too_odd(noise):
    head = b"rdev-probe begin\nuid=1\nroot=/h\t1\text4\texec\twritable\n"
    probe = parse(head + noise.replace(b"rdev-probe", b"") + b"\nrdev-probe end\n")
    assert probe.root.path == "/h"


FIELDS = st.text(st.characters(exclude_characters="\n\r", exclude_categories=["Cs"]))


@given(st.lists(FIELDS), st.sampled_from(["python", "spare", "root", "uid", "release"]))
def test_fields_that_make_no_sense_are_left_out(fields, key):
    lines = [f"{key}={field}" for field in fields]
    text = "\n".join(["rdev-probe begin", "uid=1", "root=/h\t\t-\texec\twritable", *lines])
    try:
        probe = parse(f"{text}\nrdev-probe end\n".encode())
    except ProbeUnreadableError:
        assert key in ("root", "uid")
    else:
        assert all(python.version for python in probe.pythons)


def test_pythons_are_found_wherever_people_keep_them(tmp_path):
    places = {
        "conda": ["miniforge3/bin", "miniforge3/envs/train/bin"],
        "pyenv": [".pyenv/versions/3.12.4/bin"],
        "uv": [".local/share/uv/python/cpython-3.13.1-linux-x86_64-gnu/bin"],
    }
    made = {
        str(fake_python(tmp_path / place, "3.12.4")): source
        for source, folders in places.items()
        for place in folders
    }
    found = {python.base: python.source for python in parse(ask(tmp_path)).pythons}
    assert made.items() <= found.items()


def test_only_an_old_python_on_path_is_told_with_its_version(tmp_path):
    fake_python(tmp_path / "bin", "3.10.13")
    for name in ("sh", "uname", "id", "df", "tail", "timeout", "getconf"):
        (tmp_path / "bin" / name).symlink_to(shutil.which(name))
    probe = parse(ask(tmp_path, path=f"{tmp_path}/bin"))
    assert (3, 10, 13) in [python.version for python in probe.pythons]


@pytest.mark.slow
def test_a_python_that_hangs_or_fails_is_left_out(tmp_path):
    for name, body in {"python3": "trap '' TERM; sleep 60", "python3.12": "exit 3"}.items():
        path = tmp_path / "bin" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"#!/bin/sh\n{body}\n")
        path.chmod(0o755)
    probe = parse(ask(tmp_path, path=f"{tmp_path}/bin:/usr/bin:/bin"))
    assert not [python for python in probe.pythons if python.path.startswith(str(tmp_path))]
    assert [python for python in probe.pythons if python.path.startswith("/usr/bin")]


@pytest.mark.parametrize("wish", ["{0}/my conda", "~/my conda", "{0}/my conda/bin/python3"])
def test_a_wish_is_a_path_or_a_prefix(tmp_path, wish):
    made = fake_python(tmp_path / "my conda" / "bin", "3.12.4")
    probe = parse(ask(tmp_path, wishes={"python": wish.format(tmp_path)}))
    assert (probe.pythons[0].source, probe.pythons[0].path) == ("wish", str(made))
    assert probe.wished == str(made)


@pytest.mark.parametrize(
    ("wish", "root"),
    [("/scratch/x y", "/scratch/x y"), ("~/r", "{0}/r"), ("r's", "{0}/r's"), ("", "{0}/.rdev")],
)
def test_where_the_home_shall_be(tmp_path, wish, root):
    assert parse(ask(tmp_path, wishes={"home": wish})).root.path == root.format(tmp_path)


def test_what_an_earlier_contact_put_there_is_found(tmp_path):
    release = tmp_path / ".rdev" / "dist" / "1.0-abc"
    (release / "bin").mkdir(parents=True)
    (release / "bin" / "rdev-agent").touch(mode=0o700)
    assert parse(ask(tmp_path)).releases == (), "it has no Python"
    (release / "bin" / "python").symlink_to("/usr/bin/python3")
    assert parse(ask(tmp_path)).releases == ("1.0-abc",)
    for unfinished in ("1.0-abc.new-x1", "1.0-abc.old-x1"):
        release.rename(release.with_name(unfinished))
        assert parse(ask(tmp_path)).releases == (), "it may go at any moment"
        release.with_name(unfinished).rename(release)


def test_a_path_with_control_characters_is_none(answer):
    told = answer.replace(b"root=/", b"root=/\x1b[2J\r/")
    with pytest.raises(ProbeUnreadableError):
        parse(told)


@pytest.mark.parametrize("name", ["1.0-abc.new-x1", "../../x", "1.0", "9.9-a b", "1.0-\x1b[2J"])
def test_a_name_that_no_release_has_is_none(answer, name):
    told = answer.replace(b"rdev-probe end", f"release={name}\nrdev-probe end".encode())
    assert parse(told).releases == ()


def test_a_module_is_asked_for_where_nothing_else_is(tmp_path):
    made = fake_python(tmp_path / "sw" / "python" / "3.12" / "bin", "3.12.1")
    init = tmp_path / "modules" / "init" / "sh"
    init.parent.mkdir(parents=True)
    init.write_text(
        'module() { case "$*" in "-t avail") echo "/sw:" >&2; echo "python/3.12.1(default)" >&2;;\n'
        f"load*) PATH={made.parent}:$PATH;; esac; }}\n"
    )
    tools = tmp_path / "bin"
    tools.mkdir()
    for name in ("sh", "uname", "id", "df", "tail", "timeout", "getconf", "grep", "head"):
        (tools / name).symlink_to(shutil.which(name))
    # Its own /usr/bin is always looked at, so a machine whose Python is in order asks no module.
    text = script().replace(b" /usr/local/bin /usr/bin", b"")
    answer = subprocess.run(
        [shutil.which("sh"), "-s"],
        input=text,
        env={"HOME": str(tmp_path), "PATH": str(tools), "MODULESHOME": str(tmp_path / "modules")},
        capture_output=True,
        check=True,
    ).stdout
    assert [(p.source, p.base) for p in parse(answer).pythons if p.source == "module"] == [
        ("module", str(made))
    ]
