"""What an existing folder has in common with a workspace, and which folders may become one."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from rdev.agent.workspace.adoption import compare, survey
from rdev.agent.workspace.beneath import Root
from rdev.agent.workspace.own import Marker, read_marker, write_marker
from rdev.agent.workspace.places import Place, Places, place_fault
from rdev.client.sync.receipt import adoption_question
from rdev.protocol.digest import content_digest
from rdev.protocol.errors import WorkspaceRefused
from rdev.protocol.exchange import NAMED_DIFFERING, Adoption
from rdev.protocol.paths import folder_fault, outer_target_fault
from rdev.protocol.snapshot import Entry, Kind


def file(path: str, content: bytes = b"", *, executable: bool = False) -> Entry:
    return Entry(path, Kind.FILE, content_digest(content), len(content), executable=executable)


def folder(path: str) -> Entry:
    return Entry(path, Kind.DIRECTORY)


def link(path: str, target: str) -> Entry:
    return Entry(path, Kind.SYMLINK, target=target)


def test_what_is_equal_is_taken_what_is_missing_is_put_and_what_differs_is_named():
    wanted = [file("a", b"1"), folder("d"), file("d/b", b"2"), file("d/c", b"3"), link("l", "a")]
    found = {each.path: each for each in (wanted[0], wanted[1], file("d/b", b"two"), wanted[4])}
    names = {"": ["a", "d", "l", ".rdev", ".git", "out"], "d": ["b", "own"]}
    comparison = compare(wanted, found, names)
    assert [entry.path for entry in comparison.same] == ["a", "d", "l"]
    assert [entry.path for entry in comparison.rest] == ["d/b", "d/c"]
    assert comparison.differing == ("d/b",)
    assert comparison.host_only == 3
    assert comparison.adoption == Adoption(2, ("d/b",), 1, 3)


@pytest.mark.parametrize(
    ("wanted", "here", "differs"),
    [
        (file("x", b"1"), file("x", b"1", executable=True), False),
        (file("x"), folder("x"), True),
        (folder("x"), file("x"), True),
        (folder("x"), link("x", "y"), True),
        (link("x", "y"), link("x", "z"), True),
        (link("x", "y"), file("x", b"y"), True),
    ],
)
def test_only_what_would_be_lost_differs(wanted: Entry, here: Entry, differs: bool):
    comparison = compare([wanted], {"x": here}, {"": ["x"]})
    assert (comparison.same, comparison.rest) == ((), (wanted,))
    assert comparison.differing == (("x",) if differs else ())


def test_a_folder_with_very_many_differing_files_names_some_and_counts_all():
    wanted = [file(f"f{n:03}", b"1") for n in range(100)]
    found = {each.path: file(each.path, b"2") for each in wanted}
    adoption = compare(wanted, found, {}).adoption
    assert (len(adoption.differing), adoption.differing_count) == (NAMED_DIFFERING, 100)
    assert "100 files of it differ: f000, f001" in adoption.words
    assert f"and {100 - NAMED_DIFFERING} more" in adoption.words
    asked = adoption_question("/x", adoption)
    assert asked.splitlines()[1:3] == ["  f000", "  f001"]
    assert "overwrite 100 files" in asked


@pytest.mark.parametrize(
    ("adoption", "needs_yes"),
    [
        (Adoption(), False),
        (Adoption(same=3, host_only=9), False),
        (Adoption(same=3, differing=("a",), differing_count=1), True),
        (Adoption(host_only=1), True),
    ],
)
def test_a_yes_is_needed_where_something_gives_way_and_where_nothing_is_equal(
    adoption: Adoption, needs_yes: bool
):
    assert adoption.needs_yes is needs_yes
    if needs_yes and not adoption.differing:
        assert "nothing in common" in adoption.words
        assert "nothing in common" in adoption_question("/x", adoption)


def test_names_from_the_host_cannot_play_tricks_on_the_terminal():
    adoption = Adoption(0, ("a\x1b[2Jb",), 1, 0)
    assert "\x1b" not in adoption_question("/x\x1b[2J", adoption)


def test_a_look_reads_only_what_may_be_equal_and_writes_nothing(tmp_path: Path):
    (tmp_path / "equal").write_bytes(b"12")
    (tmp_path / "longer").write_bytes(b"123")
    (tmp_path / "other").write_bytes(b"21")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "outside").symlink_to("/etc")
    before = sorted(os.listdir(tmp_path))
    names = ["equal", "longer", "other", "outside/passwd", "pipe"]
    # A file that has another size is not read at all: this one could not be.
    wanted = [folder("outside"), *(file(name, b"12") for name in names), file("unread", b"1")]
    (tmp_path / "unread").write_bytes(b"1234")
    (tmp_path / "unread").chmod(0)
    with Root(str(tmp_path)) as root:
        found = survey(root, wanted)
    assert [each.entry.path for each in found.taken] == ["equal"]
    # What lies behind a link is not there: the link itself differs.
    assert found.adoption.differing == ("outside", "longer", "other", "pipe", "unread")
    assert sorted(os.listdir(tmp_path)) == [*before, "unread"]


@pytest.mark.parametrize(
    ("real", "word"),
    [
        ("/", "root of the file system"),
        ("/home/me", "is the home folder"),
        ("/home", "holds the home folder"),
        ("/home/me/.ssh", "lies in ~/.ssh"),
        ("/home/me/.ssh/deep/er", "lies in ~/.ssh"),
        ("/keys", "lies in ~/.ssh"),
        ("/state/rdev", "rdev's own state"),
        ("/state/rdev/workspaces/x-1", "rdev's own state"),
        ("/state", "holds rdev's own state"),
    ],
)
def test_places_that_are_none(real: str, word: str):
    keys = "/keys" if real == "/keys" else "/home/me/.ssh"
    assert word in str(place_fault(real, login="/home/me", keys=keys, state="/state/rdev"))


@pytest.mark.parametrize("real", ["/home/me/project", "/home/me/.sshd", "/data/x", "/home/meg"])
def test_places_that_may_be(real: str):
    known = {"login": "/home/me", "keys": "/home/me/.ssh", "state": "/home/me/.rdev"}
    assert place_fault(real, **known) is None


@pytest.mark.parametrize(
    "name", ["../x", "/a/../b", "~root/x", "~/x/..", "a\0b", "a\nb", "a\x1b[2J", "x" * 5000]
)
def test_names_of_folders_that_may_not_be(name: str, places: Places):
    assert folder_fault(name)
    with pytest.raises(WorkspaceRefused):
        places.named("b", name)


@pytest.mark.parametrize("target", ["", "data", "../x", "~/x", "/a\0b", "/" + "x" * 5000])
def test_targets_that_may_not_be(target: str):
    assert outer_target_fault(target)


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Places:
    (tmp_path / "login" / ".ssh").mkdir(parents=True)
    monkeypatch.setenv("HOME", str(tmp_path / "login"))
    return Places(str(tmp_path / "state"), str(tmp_path / "state" / "places"))


def test_a_name_is_below_the_home_or_absolute(places: Places, tmp_path: Path):
    wanted = str(tmp_path / "login" / "proj")
    for name in ("proj", "~/proj", "./proj/", wanted):
        assert places.named("a", name).path == wanted


def test_a_link_on_the_way_is_resolved_before_it_is_judged(places: Places, tmp_path: Path):
    (tmp_path / "data").mkdir()
    (tmp_path / "login" / "big").symlink_to(tmp_path / "data")
    (tmp_path / "login" / "sly").symlink_to(tmp_path / "login" / ".ssh")
    place = places.named("a", "~/big/proj")
    assert place.path == str(tmp_path / "data" / "proj")
    assert place.asked == str(tmp_path / "login" / "big" / "proj")
    with pytest.raises(WorkspaceRefused, match=r"which is .*\.ssh.* it lies in ~/\.ssh"):
        places.named("a", "~/sly")


def test_a_file_a_stranger_and_a_folder_of_keys_are_refused(places: Places, tmp_path: Path):
    (tmp_path / "file").touch()
    (tmp_path / "keys" / ".ssh").mkdir(parents=True)
    expected = {"file": "no folder", "file/x": "Not a directory", "keys": "holds a .ssh folder"}
    for name, word in expected.items():
        with pytest.raises(WorkspaceRefused, match=word):
            places.named("a", str(tmp_path / name))


@pytest.mark.skipif(os.geteuid() != 0, reason="gives a folder to another user")
def test_a_folder_of_another_user_is_refused(places: Places, tmp_path: Path):
    (tmp_path / "theirs").mkdir()
    os.chown(tmp_path / "theirs", 65534, 65534)
    with pytest.raises(WorkspaceRefused, match="belongs to another user"):
        places.named("a", str(tmp_path / "theirs"))


def test_folders_of_other_workspaces_are_refused_inside_and_around(places: Places, tmp_path: Path):
    theirs = tmp_path / "top" / "theirs"
    (theirs / "deep").mkdir(parents=True)
    with Root(str(theirs)) as root:
        write_marker(root, Marker("other", "vision", "ana@mbp"))
    places.remember("other", Place(str(theirs), is_named=True))
    assert places.named("other", str(theirs)).path == str(theirs)
    for path in (theirs, theirs / "deep", theirs / "new"):
        with pytest.raises(WorkspaceRefused, match=r"the workspace vision, synced last by ana@mbp"):
            places.named("a", str(path))
    with pytest.raises(WorkspaceRefused, match="it holds the folder of another workspace"):
        places.named("a", str(tmp_path / "top"))


def test_a_record_that_is_damaged_is_none(places: Places, tmp_path: Path):
    places.remember("a", Place(str(tmp_path / "x"), is_named=True))
    assert places.find("a") == Place(str(tmp_path / "x"), is_named=True)
    (tmp_path / "state" / "places" / "a.json").write_text("{")
    (tmp_path / "state" / "places" / "B ad.json").write_text("{}")
    assert places.find("a") is None
    assert list(places.folders()) == []


def test_a_marker_of_an_earlier_release_has_no_owner(tmp_path: Path):
    (tmp_path / ".rdev").mkdir()
    (tmp_path / ".rdev" / "workspace.json").write_text('{"format": 1, "id": "a", "name": "n"}')
    assert read_marker(str(tmp_path)) == Marker("a", "n")
