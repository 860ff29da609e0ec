"""The installer, run by the system's Python with what arrives on its stdin."""

import io
import json
import os
import signal
import stat
import subprocess
import time
import zipfile
from pathlib import Path

import pytest
from tests.support.disk import small_disk_in

from rdev.client.bootstrap import install
from rdev.client.bootstrap.payload import Parcel, installed, payload
from rdev.client.bootstrap.plan import Plan
from rdev.client.transport.contract import Ran
from rdev.protocol.errors import BootstrapFailed

SYSTEM_PYTHON = "/usr/bin/python3"

# As much of a release as its trial asks for.
FILES = {
    "rdev/agent/main.py": "def main():\n    print('serves')\n    return 0\n",
    "rdev/agent/server.py": "",
    "rdev/supervisor/__init__.py": "",
    "grpc/__init__.py": "",
    "blake3.py": "",
    "zstandard-1.data/purelib/zstandard.py": "",
    "zstandard-1.data/scripts/zstd": "echo no\n",
}


def wheel(files=FILES, **modes) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for name, text in files.items():
            entry = zipfile.ZipInfo(name)
            entry.external_attr = modes.get("mode", 0o644) << 16
            archive.writestr(entry, text)
    return packed.getvalue()


def plan(home: Path, **changes) -> Plan:
    fields = {"release": "1.0-abc", "home": str(home), "dist": f"{home}/dist", "needed": 1000}
    return Plan(**{**fields, **changes})


def start(made: Plan, *contents: bytes, again=False, python=SYSTEM_PYTHON):
    """The installer's process, and what to feed to it."""
    parcels = [Parcel(f"{n}.whl", content) for n, content in enumerate(contents)]
    code, feed = payload(made, parcels, again=again)
    process = subprocess.Popen(
        [python, "-I", "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    return process, feed


def put(made: Plan, *contents: bytes, **options):
    process, feed = start(made, *(contents or (wheel(),)), **options)
    stdout, stderr = process.communicate(feed, timeout=60)
    return installed("put it there", Ran(process.returncode, stdout, stderr))


def refused(made: Plan, *contents: bytes, **options) -> BootstrapFailed:
    with pytest.raises(BootstrapFailed) as caught:
        put(made, *contents, **options)
    assert "\n" not in caught.value.message
    return caught.value


def names(home: Path) -> list[str]:
    """What lies in the folder of releases, its id left out."""
    return sorted(set(os.listdir(home / "dist")) - {"home-id"})


@pytest.fixture
def home(tmp_path):
    return tmp_path / "person" / ".rdev"


def test_a_release_runs_from_where_it_was_put(home):
    done = put(plan(home))
    assert done["dist"] == f"{home}/dist/1.0-abc"
    assert done["new"]
    command = Path(done["dist"], "bin", "rdev-agent")
    told = subprocess.run([command], capture_output=True, text=True, check=True, env={})
    assert told.stdout == "serves\n"
    assert names(home) == ["1.0-abc"]


def test_all_of_it_is_its_users_alone(home):
    put(plan(home))
    for path in [home, *home.rglob("*")]:
        if not path.is_symlink():
            assert not stat.S_IMODE(path.stat().st_mode) & 0o077, path
    scripts = list((home / "dist" / "1.0-abc" / "bin").iterdir())
    assert sorted(path.name for path in scripts) == ["python", "rdev-agent"]


@pytest.mark.parametrize("folder", ["a b", "it's", "x" * 150, "a b/" + "y" * 150])
def test_a_path_that_no_shebang_can_hold(tmp_path, folder):
    done = put(plan(tmp_path / folder / ".rdev"))
    command = Path(done["dist"], "bin", "rdev-agent")
    told = subprocess.run([command], capture_output=True, text=True, check=True)
    assert told.stdout == "serves\n"


def test_putting_it_there_twice_changes_nothing(home):
    put(plan(home))
    inode = (home / "dist" / "1.0-abc").stat().st_ino
    assert not put(plan(home))["new"]
    assert (home / "dist" / "1.0-abc").stat().st_ino == inode


def test_a_release_whose_python_is_gone_is_made_anew(home):
    put(plan(home))
    python = home / "dist" / "1.0-abc" / "bin" / "python"
    python.unlink()
    python.symlink_to("/usr/bin/python-that-was-removed")
    assert put(plan(home))["new"]
    assert os.readlink(python) == os.path.realpath(SYSTEM_PYTHON)
    assert names(home) == ["1.0-abc"]


def test_a_folder_of_releases_has_one_id_for_ever(home):
    first = put(plan(home))["home_id"]
    assert len(first) == 32
    assert put(plan(home, release="2.0-b"))["home_id"] == first
    assert put(plan(home))["home_id"] == first


def test_again_makes_it_anew(home):
    put(plan(home))
    (home / "dist" / "1.0-abc" / "stray").touch()
    assert put(plan(home), again=True)["new"]
    assert not (home / "dist" / "1.0-abc" / "stray").exists()


def test_two_at_once_leave_one(home):
    started = [start(plan(home), wheel()) for _ in range(4)]
    for process, feed in started:
        process.stdin.write(feed)
        process.stdin.close()
    for process, _ in started:
        with process:
            said = process.stdout.read()
        assert installed("put it there", Ran(process.returncode, said, b""))["dist"]
    assert names(home) == ["1.0-abc"]


def test_what_was_changed_on_its_way_is_refused(home):
    process, feed = start(plan(home), wheel())
    stdout, _ = process.communicate(feed[:-1] + b"x", timeout=60)
    with pytest.raises(BootstrapFailed, match="digest differs"):
        installed("put it there", Ran(1, stdout, b""))
    assert not home.parent.exists(), "all that was begun is removed"


@pytest.mark.parametrize("share", [0.2, 0.9, 0.999])
def test_a_connection_that_breaks_leaves_nothing(home, share):
    process, feed = start(plan(home), wheel({**FILES, "big.py": "x" * 100_000}))
    stdout, _ = process.communicate(feed[: int(len(feed) * share)], timeout=60)
    assert process.returncode == 1
    assert not home.parent.exists()
    assert b"Traceback" not in stdout


def test_a_hang_up_leaves_nothing(home):
    process, feed = start(plan(home), wheel())
    process.stdin.write(feed[:-10])
    process.stdin.flush()
    deadline = time.monotonic() + 30
    while not list(home.glob("dist/1.0-abc.new-*")):
        assert time.monotonic() < deadline
        time.sleep(0.01)  # a folder cannot be waited on
    process.send_signal(signal.SIGHUP)
    with process:
        said = process.stdout.read()
    with pytest.raises(BootstrapFailed, match="SIGHUP"):
        installed("put it there", Ran(1, said, b""))
    assert not home.parent.exists()


def test_what_a_killed_installer_left_is_removed_by_the_next(home):
    put(plan(home))
    left, young = home / "dist" / "1.0-abc.new-left", home / "dist" / "1.0-abc.new-young"
    for folder in (left, young):
        folder.mkdir()
        (folder / "half").touch()
    os.utime(left, (time.time() - 120,) * 2)
    put(plan(home))
    assert names(home) == ["1.0-abc", "1.0-abc.new-young"]


@pytest.mark.parametrize(
    "name",
    [
        "../out.py",
        "/etc/out.py",
        "a/../../out.py",
        "..\\out.py",
        "a/..",
        "x-1.data/purelib/../../o",
    ],
)
def test_names_that_lead_elsewhere_are_refused(home, name):
    error = refused(plan(home), wheel({**FILES, name: "x"}))
    assert "leads elsewhere" in error.cause
    assert not home.parent.exists()


def test_links_and_devices_in_a_wheel_are_refused(home):
    for kind in (stat.S_IFLNK, stat.S_IFIFO, stat.S_IFBLK):
        assert "leads elsewhere" in refused(plan(home), wheel(mode=kind | 0o777)).cause


def test_a_wheel_that_is_none_is_refused(home):
    assert refused(plan(home), b"no zip").cause
    assert not home.parent.exists()


def test_a_release_that_does_not_load_is_not_left_there(home):
    files = {**FILES, "grpc/__init__.py": "raise ImportError('GLIBC_2.99 not found')"}
    assert "GLIBC_2.99 not found" in refused(plan(home), wheel(files)).cause
    assert not home.parent.exists()


def test_a_home_that_others_may_enter_is_refused(home):
    home.mkdir(parents=True)
    home.chmod(0o755)
    error = refused(plan(home))
    assert f"chmod 700 {home}" in error.hint
    assert list(home.iterdir()) == []


def test_a_home_that_is_a_link_is_refused_with_what_it_leads_to(home, tmp_path):
    (tmp_path / "scratch").mkdir(mode=0o700)
    home.parent.mkdir(parents=True, exist_ok=True)
    home.symlink_to(tmp_path / "scratch")
    assert refused(plan(home)).hint.endswith(f"`rdev up HOST --home {tmp_path / 'scratch'}`")
    assert list((tmp_path / "scratch").iterdir()) == []


def test_too_little_room_is_told_in_numbers_before_anything_is_sent(home):
    error = refused(plan(home, needed=1 << 60))
    assert "MB free" in error.cause
    assert "--home" in error.hint
    assert not home.parent.exists()


def test_a_disk_that_fills_up_meanwhile_is_left_as_it_was(tmp_path):
    with small_disk_in(tmp_path) as disk:
        home = disk / ".rdev"
        free = os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize
        error = refused(plan(home), wheel({**FILES, "big.py": "#" * (free + 1)}))
        assert "MB free" in error.cause
        assert list(disk.iterdir()) == []


def test_a_place_outside_the_home_is_private_and_written_down(home, tmp_path):
    spare = tmp_path / "spare"
    spare.mkdir()
    done = put(plan(home, dist="", spare=str(spare)))
    (folder,) = spare.iterdir()
    assert done["dist"] == f"{folder}/1.0-abc"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert (home / "dist-folder").read_text() == f"{folder}\n"
    start = [SYSTEM_PYTHON, "-I", home / "dist" / "start.py", f"{done['dist']}/bin/rdev-agent"]
    told = subprocess.run(start, capture_output=True, text=True, check=False)
    assert (told.returncode, told.stdout) == (0, "serves\n")
    for spoil in (lambda: folder.chmod(0o755), lambda: folder.rename(spare / "gone")):
        spoil()
        assert subprocess.run(start, capture_output=True, check=False).returncode == 127


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_a_place_outside_the_home_that_is_somebody_elses_is_not_run(home, tmp_path):
    spare = tmp_path / "spare"
    spare.mkdir()
    done = put(plan(home, dist="", spare=str(spare)))
    (folder,) = spare.iterdir()
    for path in [folder, *folder.rglob("*")]:
        os.chown(path, 12345, 12345, follow_symlinks=False)
    start = [SYSTEM_PYTHON, "-I", home / "dist" / "start.py", f"{done['dist']}/bin/rdev-agent"]
    assert subprocess.run(start, capture_output=True, check=False).returncode == 127


def test_a_failure_outside_the_home_leaves_nothing_there_either(home, tmp_path):
    spare = tmp_path / "spare"
    spare.mkdir()
    refused(plan(home, dist="", spare=str(spare)), b"no zip")
    assert list(spare.iterdir()) == []
    assert not home.parent.exists()


def test_older_releases_go_unless_something_runs_by_them(home):
    used = put(plan(home, release="0.8-used"))["dist"]
    command = [f"{used}/bin/python", "-I", "-c", "input()"]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as user:
        put(plan(home, release="0.9-idle"))
        (home / "dist" / "notes").mkdir()
        assert put(plan(home))["swept"] == ["0.9-idle"]
        user.stdin.close()
    assert put(plan(home))["swept"] == ["0.8-used"]
    assert names(home) == ["1.0-abc", "notes"]


def test_a_release_that_another_machine_may_use_stays_a_month(home):
    old = put(plan(home, release="0.9-idle"))["dist"]
    for machine in ("here", "there"):
        (home / "hosts" / machine).mkdir(parents=True)
    assert put(plan(home))["swept"] == []
    os.utime(old, (time.time() - 40 * 86400,) * 2)
    assert put(plan(home))["swept"] == ["0.9-idle"]


def test_the_installer_needs_nothing_but_the_standard_library():
    command = [SYSTEM_PYTHON, "-I", "-S", install.__file__]
    told = subprocess.run(command, input=b"{}\n", capture_output=True, check=False)
    assert install.FAILED.encode() in told.stdout or b"KeyError" in told.stderr
    assert b"ModuleNotFoundError" not in told.stderr


def test_an_answer_that_is_none_is_told_by_what_was_said():
    with pytest.raises(BootstrapFailed, match="Killed"):
        installed("put it there", Ran(137, b"motd\n", b"rc noise\nKilled\n"))


def test_the_answer_is_found_behind_what_rc_files_print():
    answer = {"dist": "/d", "bytes": 3, "home_id": "a"}
    said = b"hello" + f"{install.DONE}{json.dumps(answer)}\nbye\n".encode()
    assert installed("put it there", Ran(0, said, b"")) == answer


@pytest.mark.parametrize(
    "said",
    [
        f"{install.DONE}{{",
        f"{install.DONE}[]",
        f'{install.DONE}{{"dist": 3, "bytes": 1, "home_id": ""}}',
        f'{install.DONE}{{"dist": "/a\\r\\nb", "bytes": 1, "home_id": ""}}',
        f"{install.FAILED}null",
        f'{install.FAILED}{{"cause": null}}',
    ],
)
def test_an_answer_that_makes_no_sense_is_one_line(said):
    with pytest.raises(BootstrapFailed, match="no sense"):
        installed("put it there", Ran(0, said.encode(), b""))
