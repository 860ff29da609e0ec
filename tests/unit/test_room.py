"""A store that the site limits: what goes first, and what never goes."""

import os
from pathlib import Path

import pytest
from tests.support.sync import LocalEndpoint, workspace_at

from rdev.agent.workspace.manager import WorkspaceManager
from rdev.agent.workspace.store import Store
from rdev.client.sync.sender import WorkspaceSync
from rdev.protocol.digest import content_digest
from rdev.protocol.errors import LimitExceeded

SIZE = 1000
JOB = "0123456789ab"


def put(store: Store, letter: str, *, touched: float) -> bytes:
    """A content of one letter that was last needed then."""
    content = letter.encode() * SIZE
    digest = content_digest(content)
    store.put(content, digest)
    os.utime(store.path(digest), (touched, touched))
    return digest


def test_without_a_limit_nothing_is_removed(tmp_path: Path):
    store = Store(str(tmp_path))
    old = put(store, "a", touched=1)
    store.make_room("take it", 1 << 60, spared=())
    assert store.has(old)


def test_what_was_needed_longest_ago_goes_first_and_no_more_than_must(tmp_path: Path):
    store = Store(str(tmp_path), most=3 * SIZE)
    digests = [
        put(store, letter, touched=when) for letter, when in (("a", 30), ("b", 10), ("c", 20))
    ]
    store.make_room("take it", SIZE, spared=())
    assert [store.has(digest) for digest in digests] == [True, False, True]


def test_what_a_job_keeps_and_what_is_about_to_be_used_stays(tmp_path: Path):
    kept: list[bytes] = []
    store = Store(str(tmp_path), most=3 * SIZE, pinned=lambda: kept)
    digests = [put(store, letter, touched=when) for letter, when in (("a", 1), ("b", 2), ("c", 3))]
    kept.append(digests[0])
    store.make_room("take it", SIZE, spared=digests[1:2])
    assert [store.has(digest) for digest in digests] == [True, True, False]


def test_what_cannot_fit_is_refused_and_nothing_is_removed_in_vain(tmp_path: Path):
    kept: list[bytes] = []
    store = Store(str(tmp_path), most=3 * SIZE, pinned=lambda: kept)
    digests = [put(store, letter, touched=when) for letter, when in (("a", 1), ("b", 2))]
    kept.append(digests[0])
    with pytest.raises(LimitExceeded, match="the site lets each user keep"):
        store.make_room("take it", 3 * SIZE, spared=())
    assert all(map(store.has, digests))


def test_what_is_on_its_way_counts(tmp_path: Path):
    store = Store(str(tmp_path), most=3 * SIZE)
    store.make_room("take it", 2 * SIZE, spared=())
    old = put(store, "a", touched=1)
    store.make_room("take it", SIZE, spared=())
    store.make_room("take it", SIZE, spared=())
    assert store.has(old)
    store.make_room("take it", 3 * SIZE, spared=())
    assert not store.has(old)


async def test_syncs_go_on_within_the_limit_and_jobs_keep_what_they_were_started_from(tmp_path):
    manager = WorkspaceManager(str(tmp_path / "home"), most=10 * SIZE)
    root = Path(workspace_at(tmp_path / "project").root)
    objects = Path(manager.store.folder, "objects")
    try:
        async with WorkspaceSync(workspace_at(root), lambda: LocalEndpoint(manager)) as syncing:
            for number in range(12):
                (root / "data.bin").write_bytes(bytes([number]) * 3 * SIZE)
                receipt = await syncing.sync()
                if number == 0:
                    manager.pin(receipt.snapshot.hex(), JOB)
                sizes = [path.stat().st_size for path in objects.rglob("*") if path.is_file()]
                assert sum(sizes) <= 10 * SIZE
            assert manager.read((await _first(manager)), "data.bin") == bytes(3 * SIZE)
            (root / "data.bin").write_bytes(b"x" * 8 * SIZE)
            with pytest.raises(LimitExceeded):
                await syncing.sync()
    finally:
        manager.close()


async def _first(manager: WorkspaceManager) -> str:
    return Path(manager.store.folder, "pins", JOB).read_text().strip()
