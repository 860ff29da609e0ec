"""The endpoint contract, on the wire and off it; who takes turns, what is kept."""

from __future__ import annotations

import asyncio
import os
import subprocess
from pathlib import Path

import pytest
from tests.support.sync import (
    ID,
    Host,
    LocalEndpoint,
    content_of,
    remote_endpoint,
    sync,
    workspace_at,
)

from rdev.client.sync.sender import WorkspaceSync
from rdev.client.workspaces import RemoteEndpoint, endpoints
from rdev.protocol.digest import content_digest
from rdev.protocol.errors import InvalidRequest, NotFound, SyncFailed
from rdev.protocol.exchange import ContentRun, Encoding, Needs, Opening
from rdev.protocol.snapshot import Change, Entry, Kind, Snapshot


def an_endpoint(host: Host, kind: str) -> RemoteEndpoint | LocalEndpoint:
    return LocalEndpoint(host.manager) if kind == "local" else remote_endpoint(host)


EMPTY = {"": Snapshot.of().directories[""].digest}
HELLO = Entry("a", Kind.FILE, content_digest(b"hello"), 5)
HELLO_RUN = ContentRun(HELLO.digest, 5, Encoding.IDENTITY, b"hello", last=True)


@pytest.mark.parametrize("kind", ["remote", "local"])
async def test_endpoint_contract_transactions(host: Host, kind: str):
    wanted = Snapshot.of([HELLO])
    one = an_endpoint(host, kind)
    opened = await one.open(Opening(ID, "project", "c", EMPTY))
    assert (opened.differing, opened.entries) == ((), ())
    # A transaction that is staged again replaces the first.
    await one.stage(Change((Entry("never", Kind.DIRECTORY),)))
    await one.stage(Change((HELLO,)))
    assert await one.needs() == Needs(frozenset({HELLO.digest}))
    await one.send([HELLO_RUN])
    committed = await one.commit(wanted.digest)
    assert (committed.snapshot, committed.written) == (wanted.digest, 1)
    # Contents sent unasked, and not needed, do no harm.
    again = Change((Entry("b", Kind.FILE, HELLO.digest, 5),))
    await one.stage(again)
    await one.send([HELLO_RUN])
    both = wanted.changed(again)
    assert (await one.commit(both.digest)).snapshot == both.digest
    assert content_of(host.folder) == {"a": b"hello", "b": b"hello"}
    await one.close()


@pytest.mark.parametrize("kind", ["remote", "local"])
async def test_endpoint_contract_who_compared_too_early_loses_the_turn(host: Host, kind: str):
    one, late = an_endpoint(host, kind), an_endpoint(host, kind)
    await one.open(Opening(ID, "project", "c", EMPTY))
    await late.open(Opening(ID, "project", "other", EMPTY))
    await one.stage(Change((HELLO,)))
    await one.send([HELLO_RUN])
    await one.commit(Snapshot.of([HELLO]).digest)
    own = Change((Entry("c", Kind.DIRECTORY),))
    await late.stage(own)
    with pytest.raises(SyncFailed):
        await late.commit(Snapshot.of().changed(own).digest)
    assert content_of(host.folder) == {"a": b"hello"}
    await late.close()
    await one.close()


@pytest.mark.parametrize("kind", ["remote", "local"])
@pytest.mark.parametrize(
    "path",
    ["../x", "/etc/x", "a/../../x", ".rdev/index", "a\x00b", "x" * 300, "a//b", "", "e\u0301"],
)
async def test_endpoint_contract_a_path_that_may_not_be_is_refused(
    host: Host, kind: str, path: str
):
    for change in (Change((Entry(path, Kind.DIRECTORY),)), Change((), (path,))):
        endpoint = an_endpoint(host, kind)
        await endpoint.open(Opening(ID, "project", "c", EMPTY))
        with pytest.raises(InvalidRequest):
            await endpoint.stage(change)
            await endpoint.needs()
        await endpoint.close()
    assert content_of(host.folder) == {}


async def test_two_laptops_take_turns(host: Host, laptop: Path, tmp_path: Path):
    other = tmp_path / "other"
    subprocess.run(["cp", "-a", str(laptop), str(other)], check=True)
    (other / "theirs.py").write_text("1")
    async with (
        WorkspaceSync(workspace_at(laptop), endpoints(host)) as one,
        WorkspaceSync(workspace_at(other), endpoints(host)) as two,
    ):
        await one.sync()
        await two.sync()
        assert (host.folder / "theirs.py").exists()
        (laptop / "train.py").write_text("mine\n")
        await one.sync()
        assert content_of(host.folder) == content_of(laptop)
        (laptop / "train.py").write_text("again\n")
        await asyncio.gather(one.sync(), two.sync())
    assert content_of(host.folder) in (content_of(laptop), content_of(other))


async def test_a_pinned_snapshot_outlives_the_tree_it_came_from(host: Host, laptop: Path):
    receipt = await sync(host, laptop)
    host.manager.pin(receipt.snapshot.hex(), "0123456789ab")
    text = (laptop / "train.py").read_bytes()
    old = content_digest(text)
    async with WorkspaceSync(workspace_at(laptop), endpoints(host)) as syncing:
        for number in range(70):
            (laptop / "train.py").write_text(f"{number}\n")
            await syncing.sync()
    for path in (host.home / "store" / "objects").rglob("*"):
        if path.is_file():
            os.utime(path, (1, 1))
    host.manager.collect()
    assert host.manager.store.has(old)
    assert host.manager.read(receipt.snapshot.hex(), "train.py") == text
    with pytest.raises(NotFound):
        host.manager.read(receipt.snapshot.hex(), "gone.py")
    host.manager.unpin("0123456789ab")
    assert host.manager.collect() > 0
    assert not host.manager.store.has(old)
    assert (await sync(host, laptop)).bytes == 0
