"""Taking rdev off a machine, seen in its folders alone: no agent runs."""

import os
import threading
from pathlib import Path

import pytest

from rdev.agent.leaving import leave
from rdev.agent.removal import remove, size_of
from rdev.agent.workspace.beneath import Root
from rdev.agent.workspace.links import apply_links
from rdev.agent.workspace.own import Marker, write_marker
from rdev.agent.workspace.places import Place, Places, named_folders
from rdev.protocol.errors import OutputsLeft
from rdev.wire.home import Home

ID = "0123456789abcdef"
OTHER = "fedcba9876543210"


@pytest.fixture
def home(tmp_path):
    home = Home(str(tmp_path / "rdev"), ID)
    for folder in (home.root, os.path.dirname(home.host), home.host):
        os.mkdir(folder, 0o700)
    return home


def places_of(home: Home) -> Places:
    return Places(home.root, os.path.join(home.host, "places"))


@pytest.fixture
def adopted(home, tmp_path):
    """A folder that a person named, with our folder and a link of ours in it."""
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "train.py").write_text("theirs")
    (tmp_path / "datasets").mkdir()
    places_of(home).remember(ID, Place(str(folder), is_named=True))
    with Root(str(folder)) as root:
        root.make_directories(".rdev")
        write_marker(root, Marker(ID))
        apply_links(root, {"data": str(tmp_path / "datasets")})
    return folder


def names_in(folder: Path) -> list[str]:
    return sorted(os.listdir(folder))


def test_what_a_killed_purge_and_a_killed_installer_left_goes(home):
    for name in (".leaving-1", "dist/1.0-aa.new-x", "store/objects"):
        os.makedirs(os.path.join(home.root, name))
    Path(home.root, "dist-folder.99").write_text("/nowhere")
    leave(home, discard=False)
    assert not os.path.exists(home.root)


def test_live_state_and_releases_elsewhere_go_with_the_home(home, tmp_path):
    live, releases = tmp_path / "rdev-0-live", tmp_path / "rdev-0-dist"
    for folder in (live, releases / "1.0-aa"):
        folder.mkdir(parents=True, mode=0o700)
    Path(home.local).write_text(f"{live}\n")
    Path(home.root, "dist-folder").write_text(f"{releases}\n")
    (releases / "1.0-aa" / "release.json").write_text("{}")
    removed = leave(home, discard=False)
    assert {str(live), str(releases)} <= set(removed.paths)
    assert names_in(tmp_path) == []


def test_a_folder_that_a_person_named_is_left_with_its_own_files(home, adopted):
    removed = leave(home, discard=False)
    assert names_in(adopted) == ["train.py"]
    assert {str(adopted / ".rdev"), str(adopted / "data")} <= set(removed.paths)
    assert str(adopted) in removed.kept


def test_a_link_that_was_changed_since_is_no_longer_ours(home, adopted):
    (adopted / "data").unlink()
    (adopted / "data").symlink_to("train.py")
    leave(home, discard=False)
    assert names_in(adopted) == ["data", "train.py"]


def test_a_folder_that_was_named_before_is_left_too(home, adopted, tmp_path):
    places_of(home).remember(ID, Place(str(tmp_path / "newer"), is_named=True))
    leave(home, discard=False)
    assert names_in(adopted) == ["train.py"]


def test_a_folder_that_another_workspace_has_by_now_is_not_touched(home, adopted):
    with Root(str(adopted)) as root:
        write_marker(root, Marker(OTHER))
    removed = leave(home, discard=False)
    assert (names_in(adopted), removed.kept) == ([".rdev", "data", "train.py"], "")


def test_old_versions_in_a_folder_that_a_person_named_are_outputs(home, adopted):
    kept = adopted / ".rdev/conflicts/1/notes.txt"
    kept.parent.mkdir(parents=True)
    kept.write_text("before the laptop's")
    with pytest.raises(OutputsLeft) as caught:
        leave(home, discard=False)
    assert str(kept) in caught.value.cause
    assert kept.exists()
    leave(home, discard=True)
    assert names_in(adopted) == ["train.py"]


def test_another_machine_that_shares_the_home_keeps_its_part(home, adopted):
    other = os.path.join(home.root, "hosts", OTHER)
    os.makedirs(other)
    os.makedirs(os.path.join(home.root, "workspaces", "project"))
    Places(home.root, os.path.join(other, "places")).remember(
        ID, Place(str(adopted), is_named=True)
    )
    removed = leave(home, discard=False)
    assert f"hosts/{OTHER}" in removed.kept
    assert (os.path.exists(other), os.path.exists(home.host)) == (True, False)
    assert os.path.exists(os.path.join(home.root, "workspaces", "project"))
    assert names_in(adopted) == [".rdev", "data", "train.py"]


def test_records_of_folders_name_the_present_one_first(home, tmp_path):
    places = places_of(home)
    for name in ("one", "two", "one"):
        places.remember(ID, Place(str(tmp_path / name), is_named=True))
    found = [path for _, path in named_folders(os.path.join(home.host, "places"))]
    assert found == [str(tmp_path / "one"), str(tmp_path / "two")]


def test_two_that_remove_the_same_at_once_both_succeed(tmp_path):
    top = tmp_path / "top"
    for number in range(300):
        (top / str(number) / "below").mkdir(parents=True)
    failed = []

    def work() -> None:
        try:
            remove(str(top))
        except OSError as error:
            failed.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (failed, top.exists()) == ([], False)


def test_a_file_with_two_names_takes_its_bytes_once(tmp_path):
    (tmp_path / "one").write_bytes(b"x" * 100_000)
    before = size_of([str(tmp_path)])
    os.link(tmp_path / "one", tmp_path / "two")
    assert size_of([str(tmp_path)]) == before
