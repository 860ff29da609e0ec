"""Where live state lies, by the kind of file system that the home is on."""

import fcntl
import os
from pathlib import Path

import pytest

from rdev.agent.local import base_for, file_system, is_network, prepare
from rdev.protocol.errors import ConfigError
from rdev.wire.home import Home, HomeUnknownError, UnsafePathError, answers, this_home

MOUNTS = rb"""22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
40 22 0:45 / /home rw,relatime shared:2 - nfs4 files:/export/home rw,vers=4.2
41 40 0:46 / /home/local rw - xfs /dev/sdb1 rw
42 22 0:47 / /mnt/two\040words rw - fuse.sshfs me@far: rw
43 22 0:48 / /scratch rw - autofs /etc/auto.scratch rw
44 22 0:49 / /scratch rw - lustre mds@tcp:/scratch rw
"""


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/", "ext4"),
        ("/homes/ada", "ext4"),
        ("/home/ada/.rdev", "nfs4"),
        ("/home", "nfs4"),
        ("/home/local/ada", "xfs"),
        ("/mnt/two words/.rdev", "fuse.sshfs"),
        ("/scratch/ada", "lustre"),
    ],
)
def test_a_path_lies_on_the_innermost_and_latest_mount_above_it(path, kind):
    assert file_system(path, MOUNTS) == kind


def test_a_table_that_does_not_say_is_no_network():
    assert file_system("/home/ada", b"") == ""
    assert not is_network("")


@pytest.mark.parametrize("kind", ["nfs", "nfs4", "cifs", "smb3", "lustre", "gpfs", "beegfs"])
def test_a_network_home_has_its_live_state_on_a_local_disk(kind):
    assert base_for("auto", kind) == "/var/tmp"
    assert base_for("off", kind) is None


@pytest.mark.parametrize("kind", ["ext4", "xfs", "btrfs", "zfs", "tmpfs", "overlay", ""])
def test_a_local_home_keeps_its_live_state_unless_a_folder_is_named(kind):
    assert base_for("auto", kind) is None
    assert base_for("/scratch/local", kind) == "/scratch/local"


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(str(tmp_path / "home"), "m1")


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    made = tmp_path / "disk"
    made.mkdir()
    return made


def test_every_process_finds_the_folder_that_the_first_one_made(home, disk):
    prepare(home, str(disk))
    (made,) = disk.iterdir()
    assert made.name.startswith(f"rdev-{os.geteuid()}-")
    assert home.live == str(made)
    assert home.socket == f"{made}/run/agent.sock"
    prepare(home, str(disk))
    assert list(disk.iterdir()) == [made]
    assert made.stat().st_mode & 0o777 == 0o700


def test_a_place_in_which_jobs_lie_is_kept_whatever_the_policy_says_now(home, disk):
    prepare(home, "off")
    Path(home.jobs, "j1").mkdir()
    prepare(home, str(disk))
    assert home.live == home.host
    Path(home.jobs, "j1").rmdir()
    prepare(home, str(disk))
    assert home.live != home.host
    Path(home.jobs, "j2").mkdir()
    prepare(home, "off")
    assert home.live != home.host
    Path(home.jobs, "j2").rmdir()
    prepare(home, "off")
    assert home.live == home.host


def test_a_place_that_an_agent_has_is_kept(home, disk):
    prepare(home, "off")
    with open(home.lock, "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        prepare(home, str(disk))
    assert home.live == home.host


def test_a_folder_that_vanished_is_made_anew_under_another_name(home, disk, caplog):
    prepare(home, str(disk))
    (first,) = disk.iterdir()
    first.rename(disk / "elsewhere")
    prepare(home, str(disk))
    assert home.live not in (str(first), home.host)
    assert "has vanished" in caplog.text


def test_a_link_in_place_of_a_vanished_folder_is_never_followed(home, disk):
    prepare(home, str(disk))
    (first,) = disk.iterdir()
    first.rename(disk / "elsewhere")
    first.symlink_to(disk / "elsewhere")
    assert not answers(home)
    prepare(home, str(disk))
    assert home.live != str(first)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_a_folder_of_another_user_in_place_of_ours_is_not_used(home, disk):
    prepare(home, str(disk))
    (first,) = disk.iterdir()
    os.chown(first, 65534, 65534)
    assert not answers(home)
    prepare(home, str(disk))
    assert home.live != str(first)


def test_a_folder_of_ours_that_others_may_enter_is_refused(home, disk):
    prepare(home, str(disk))
    (first,) = disk.iterdir()
    first.chmod(0o755)
    with pytest.raises(UnsafePathError):
        prepare(home, str(disk))


def test_a_folder_that_was_asked_for_and_cannot_be_used_is_an_error(home, disk):
    with pytest.raises(ConfigError, match="local_state"):
        prepare(home, str(disk / "missing"))


def test_a_user_without_home_and_name_is_told_what_to_set(monkeypatch):
    monkeypatch.delenv("RDEV_HOME", raising=False)
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)
    with pytest.raises(HomeUnknownError, match="RDEV_HOME"):
        this_home()


@pytest.mark.parametrize("name", ["with space", "mit Umläuten", "日本"])
def test_a_home_may_have_any_name(name, tmp_path, monkeypatch):
    monkeypatch.setenv("RDEV_HOME", str(tmp_path / name))
    home = this_home()
    prepare(home, "off")
    assert home.root == str(tmp_path / name)
