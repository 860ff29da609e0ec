"""Links that a person asked for: made on the host, never followed, never in anybody's way."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from tests.support.sync import ID, Host, LocalEndpoint, content_of, workspace_at

from rdev.agent.workspace.parting import part
from rdev.client.sync.explain import explain
from rdev.client.sync.root import find_workspace
from rdev.client.sync.scan import Scanner
from rdev.client.workspaces import endpoints, sync_workspace
from rdev.protocol.errors import ConfigError, InvalidRequest
from rdev.protocol.exchange import Opening
from rdev.protocol.snapshot import Snapshot

EMPTY = {"": Snapshot.of().directories[""].digest}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """What is too large to sync."""
    (tmp_path / "datasets" / "x").mkdir(parents=True)
    (tmp_path / "datasets" / "x" / "train.bin").write_text("much\n")
    return tmp_path / "datasets" / "x"


async def sync(host: Host, root: Path, **links: str):
    paths = {path.replace("__", "/"): target for path, target in links.items()}
    return await sync_workspace(host, replace(workspace_at(root), links=paths))


def kinds(receipt) -> dict[str, str]:
    return {each.path: each.kind for each in receipt.problems}


async def test_a_link_is_made_and_sync_neither_follows_nor_deletes_it(
    host: Host, laptop: Path, data: Path
):
    for _ in range(3):
        receipt = await sync(host, laptop, data=str(data), pkg__weights=str(data))
        assert receipt.problems == ()
        assert os.readlink(host.folder / "data") == str(data)
        assert os.readlink(host.folder / "pkg" / "weights") == str(data)
        (laptop / "train.py").write_text(f"{receipt.snapshot.hex()}\n")
    shutil.rmtree(laptop / "pkg")
    await sync(host, laptop, data=str(data), pkg__weights=str(data))
    assert content_of(host.folder / "pkg") == {"weights": str(data)}
    assert content_of(data) == {"train.bin": b"much\n"}


async def test_a_link_is_made_in_folders_that_only_it_needs(host: Host, laptop: Path, data: Path):
    assert (await sync(host, laptop, deep__er__data=str(data))).problems == ()
    assert (host.folder / "deep" / "er" / "data" / "train.bin").read_text() == "much\n"


async def test_folders_that_were_made_for_links_go_with_them_unless_something_lies_there(
    host: Host, laptop: Path, data: Path
):
    await sync(host, laptop, deep__er__data=str(data), used__data=str(data), pkg__data=str(data))
    (host.folder / "used" / "result.txt").write_text("a job's\n")
    assert (await sync(host, laptop, deep=str(data))).problems == ()
    assert os.readlink(host.folder / "deep") == str(data)
    assert content_of(host.folder / "used") == {"result.txt": b"a job's\n"}
    assert not (host.folder / "pkg" / "data").is_symlink()
    assert (host.folder / "pkg" / "model.py").exists()
    # A folder that was there before is not ours, though a link lay in it.
    (host.folder / "own").mkdir()
    await sync(host, laptop, own__data=str(data))
    await sync(host, laptop)
    assert (host.folder / "own").is_dir()


async def test_who_leaves_takes_the_folders_of_links_along(host: Host, laptop: Path, data: Path):
    await sync(host, laptop, deep__er__data=str(data))
    part(str(host.folder))
    assert not (host.folder / "deep").exists()


async def test_links_follow_the_configuration(host: Host, laptop: Path, data: Path):
    await sync(host, laptop, one=str(data), two=str(data))
    await sync(host, laptop, one="/", three=str(data))
    links = {k: v for k, v in content_of(host.folder).items() if isinstance(v, str)}
    assert links == {"model": "pkg/model.py", "one": "/", "three": str(data)}
    await sync(host, laptop)
    links = {k: v for k, v in content_of(host.folder).items() if isinstance(v, str)}
    assert links == {"model": "pkg/model.py"}


async def test_what_is_no_longer_ours_is_left_when_its_entry_goes(
    host: Host, laptop: Path, data: Path
):
    await sync(host, laptop, one=str(data), two=str(data))
    (host.folder / "one").unlink()
    (host.folder / "one").symlink_to("/elsewhere")
    (host.folder / "two").unlink()
    (host.folder / "two").write_text("a file now\n")
    await sync(host, laptop)
    assert os.readlink(host.folder / "one") == "/elsewhere"
    assert (host.folder / "two").read_text() == "a file now\n"


async def test_a_persons_own_link_of_that_target_is_taken_and_never_removed(
    host: Host, laptop: Path, data: Path
):
    await sync(host, laptop)
    (host.folder / "data").symlink_to(data)
    assert (await sync(host, laptop, data=str(data))).problems == ()
    await sync(host, laptop)
    assert os.readlink(host.folder / "data") == str(data)


async def test_what_lies_there_already_is_never_replaced(host: Host, laptop: Path, data: Path):
    await sync(host, laptop)
    (host.folder / "a").write_text("file\n")
    (host.folder / "b").mkdir()
    (host.folder / "c").symlink_to("/elsewhere")
    before = content_of(host.folder)
    receipt = await sync(host, laptop, a=str(data), b=str(data), c=str(data))
    assert kinds(receipt) == dict.fromkeys("abc", "LINK_KEPT_OUT")
    assert "a folder of that name lies there, and stays" in str(receipt)
    assert "a link to /elsewhere of that name lies there" in str(receipt)
    assert content_of(host.folder) == before
    await sync(host, laptop)
    assert content_of(host.folder) == before


async def test_a_target_that_does_not_exist_is_said_and_linked_all_the_same(
    host: Host, laptop: Path, data: Path
):
    for _ in range(2):
        receipt = await sync(host, laptop, data=f"{data}/none")
        assert kinds(receipt) == {"data": "LINK_DANGLES"}
        assert os.readlink(host.folder / "data") == f"{data}/none"


@pytest.mark.parametrize("is_folder", [True, False])
async def test_what_the_laptop_has_under_that_name_is_ignored_and_said(
    host: Host, laptop: Path, data: Path, is_folder: bool
):
    if is_folder:
        (laptop / "data").mkdir()
        (laptop / "data" / "sample").write_text("little\n")
    else:
        (laptop / "data").write_text("little\n")
    receipt = await sync(host, laptop, data=str(data))
    assert kinds(receipt) == {"data": "LINKED"}
    assert content_of(data) == {"train.bin": b"much\n"}
    assert os.readlink(host.folder / "data") == str(data)
    problem = explain(str(laptop), "data/sample", links=["data"]).problem
    assert "`[workspace] links`" in problem


async def test_a_link_on_the_laptop_is_the_counterpart_and_needs_no_word(
    host: Host, laptop: Path, data: Path
):
    (laptop / "data").symlink_to("/home/me/data")
    assert (await sync(host, laptop, data=str(data))).problems == ()


async def test_what_was_synced_makes_room_for_the_link_at_once(
    host: Host, laptop: Path, data: Path
):
    (laptop / "data").mkdir()
    (laptop / "data" / "sample").write_text("little\n")
    await sync(host, laptop)
    receipt = await sync(host, laptop, data=str(data))
    assert kinds(receipt) == {"data": "LINKED"}
    assert os.readlink(host.folder / "data") == str(data)
    # And back: the link goes, the folder comes.
    assert (await sync(host, laptop)).problems == ()
    assert content_of(host.folder) == content_of(laptop)


async def test_links_come_with_an_adoption_and_not_before_it(
    host: Host, laptop: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("HOME", str(tmp_path / "login"))
    checkout = tmp_path / "login" / "project"
    shutil.copytree(laptop, checkout, symlinks=True)
    (checkout / "train.py").write_text("the host's\n")
    workspace = replace(workspace_at(laptop), folder="project", links={"data": str(data)})
    with pytest.raises(Exception, match=r"train\.py"):
        await sync_workspace(host, workspace)
    assert not os.path.lexists(checkout / "data")
    await sync_workspace(host, workspace, confirm=lambda _: True)
    assert os.readlink(checkout / "data") == str(data)


async def test_no_link_is_made_through_a_link(host: Host, laptop: Path, data: Path, tmp_path: Path):
    """Neither through one of a job nor through one of our own."""
    await sync(host, laptop)
    (host.folder / "out").symlink_to(data)
    before = content_of(tmp_path / "datasets")
    receipt = await sync(host, laptop, a=str(data), a__b="/etc", out__c="/etc")
    assert kinds(receipt) == dict.fromkeys(["a/b", "out/c"], "LINK_KEPT_OUT")
    assert content_of(tmp_path / "datasets") == before


async def test_a_record_that_was_tampered_with_removes_nothing_outside(
    host: Host, laptop: Path, tmp_path: Path
):
    await sync(host, laptop)
    (tmp_path / "victim").symlink_to("/x")
    outer = os.path.relpath(tmp_path / "victim", host.folder)
    record = host.folder / ".rdev" / "links.json"
    victims = {outer: "/x", str(tmp_path / "victim"): "/x", "c": 3}
    record.write_text(json.dumps({"links": victims}))
    await sync(host, laptop)
    assert os.readlink(tmp_path / "victim") == "/x"


@pytest.mark.parametrize("kind", ["remote", "local"])
@pytest.mark.parametrize(
    ("path", "target"),
    [
        ("../x", "/etc"),
        ("a/../../x", "/etc"),
        ("/x", "/etc"),
        (".rdev/index", "/etc"),
        ("", "/etc"),
        ("data", "etc"),
        ("data", "/a\0b"),
    ],
)
async def test_links_that_may_not_be_are_refused_by_the_agent(
    host: Host, kind: str, path: str, target: str
):
    endpoint = LocalEndpoint(host.manager) if kind == "local" else endpoints(host)()
    with pytest.raises(InvalidRequest):
        await endpoint.open(Opening(ID, "p", "c", EMPTY, links={path: target}))
    await endpoint.close()
    assert host.manager.folder(ID) is None


@pytest.mark.parametrize(
    "text",
    [
        "links = {data = 'relative'}",
        "links = {'../up' = '/data'}",
        "links = {'.rdev' = '/data'}",
        "links = {data = 3}",
        "links = {a.b = '/data'}",
        "links = 'data'",
        "path = 3",
        "path = '../x'",
        "path = '~other/x'",
    ],
)
def test_a_configuration_that_has_no_meaning_is_refused(laptop: Path, text: str):
    (laptop / "rdev.toml").write_text(f"[workspace]\n{text}\n")
    with pytest.raises(ConfigError):
        find_workspace(str(laptop))


def test_the_configuration_says_what_is_linked_and_where(laptop: Path):
    table = "[workspace]\npath = '~/p'\nlinks = {data = '/d', 'a/b' = '/e'}\n"
    (laptop / "rdev.toml").write_text(table)
    found = find_workspace(str(laptop))
    assert (found.folder, found.links) == ("~/p", {"data": "/d", "a/b": "/e"})
    (laptop / "data").write_text("x\n")
    assert Scanner(str(laptop), links=found.links).scan().snapshot.get("data") is None
