"""Two machines with one home: neither takes from the other what it needs."""

import asyncio
import contextlib
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.sync import ID, LocalEndpoint, content_of, workspace_at

from rdev.agent.workspace.manager import WorkspaceManager
from rdev.agent.workspace.store import GRACE
from rdev.agent.workspace.turn import turn
from rdev.client.sync.sender import WorkspaceSync
from rdev.protocol.digest import content_digest
from rdev.protocol.exchange import Opening
from rdev.protocol.snapshot import Change, Entry, Kind, Snapshot

JOB = "0123456789ab"
EMPTY = {"": Snapshot.of().directories[""].digest}


@contextlib.contextmanager
def machine(home: Path, name: str) -> Iterator[WorkspaceManager]:
    """The workspaces of a home, as the agent of one of its machines sees them."""
    own = home / "hosts" / name
    own.mkdir(parents=True, exist_ok=True)
    manager = WorkspaceManager(str(home), machine=str(own))
    try:
        yield manager
    finally:
        manager.close()


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


@pytest.fixture
def one(home: Path):
    with machine(home, "one") as manager:
        yield manager


@pytest.fixture
def two(home: Path):
    with machine(home, "two") as manager:
        yield manager


def age(manager: WorkspaceManager) -> None:
    """Lets a long time pass for all contents of the store."""
    for path in Path(manager.store.folder, "objects").rglob("*"):
        if path.is_file():
            os.utime(path, (0, os.stat(path).st_mtime - 2 * GRACE))


async def synced(root: Path, *managers: WorkspaceManager) -> None:
    """Syncs a laptop's folder through one machine after another, changing it in between."""
    for number, manager in enumerate(managers):
        (root / "train.py").write_text(f"print({number})\n")
        (root / f"only-{number}.py").write_text(f"{number}\n")
        for path in root.glob("only-*"):
            if path.name != f"only-{number}.py":
                path.unlink()
        syncing = WorkspaceSync(workspace_at(root), lambda m=manager: LocalEndpoint(m))
        async with syncing:
            receipt = await syncing.sync()
        assert receipt.problems == ()
        folder = manager.folder(ID)
        assert folder is not None
        assert content_of(Path(folder)) == content_of(root)


async def test_one_workspace_synced_through_two_machines_in_turn_has_no_conflicts(
    tmp_path, one, two
):
    root = workspace_at(tmp_path / "project").root
    await synced(Path(root), one, two, one, one, two, two, one)
    assert one.folder(ID) == two.folder(ID)
    assert not Path(one.folder(ID), ".rdev", "conflicts").exists()


async def test_a_workspace_that_another_machine_changed_meanwhile_is_compared_again(
    tmp_path, one, two
):
    root = Path(workspace_at(tmp_path / "project").root)
    await synced(root, one)
    async with (
        WorkspaceSync(workspace_at(root), lambda: LocalEndpoint(one)) as first,
        WorkspaceSync(workspace_at(root), lambda: LocalEndpoint(two)) as second,
    ):
        for number in range(10):
            (root / "train.py").write_text(f"print('both', {number})\n")
            receipts = await asyncio.gather(first.sync(), second.sync())
            assert [receipt.problems for receipt in receipts] == [(), ()]
            assert content_of(Path(one.folder(ID))) == content_of(root)


def test_transactions_of_two_machines_wait_for_one_another(tmp_path):
    folder, order = str(tmp_path / "turns"), []
    entered, leave = threading.Event(), threading.Event()

    def first() -> None:
        with turn(folder, "w"):
            entered.set()
            assert leave.wait(20)
            order.append("first")

    def second() -> None:
        with turn(folder, "w"):
            order.append("second")

    threads = [threading.Thread(target=first), threading.Thread(target=second)]
    threads[0].start()
    assert entered.wait(20)
    threads[1].start()
    with turn(folder, "another"):
        leave.set()
    for thread in threads:
        thread.join(20)
    assert order == ["first", "second"]


async def test_what_a_job_of_another_machine_keeps_is_not_tidied_away(tmp_path, one, two):
    root = Path(workspace_at(tmp_path / "project").root)
    await synced(root, one)
    async with WorkspaceSync(workspace_at(root), lambda: LocalEndpoint(one)) as syncing:
        receipt = await syncing.sync()
    snapshot = receipt.snapshot.hex()
    one.pin(snapshot, JOB)
    (root / "train.py").write_text("print('later')\n")
    async with WorkspaceSync(workspace_at(root), lambda: LocalEndpoint(two)) as syncing:
        await syncing.sync()
    age(two)
    two.collect()
    assert one.read(snapshot, "train.py") == b"print(0)\n"
    one.unpin(JOB)
    age(two)
    assert two.collect() > 0


async def test_two_jobs_of_one_snapshot_on_two_machines_let_go_of_it_apart(tmp_path, one, two):
    root = Path(workspace_at(tmp_path / "project").root)
    await synced(root, one)
    for manager in (one, two):
        async with WorkspaceSync(workspace_at(root), lambda m=manager: LocalEndpoint(m)) as syncing:
            receipt = await syncing.sync()
    snapshot = receipt.snapshot.hex()
    one.pin(snapshot, JOB)
    two.pin(snapshot, "b" * 12)
    one.unpin(JOB)
    assert two.read(snapshot, "train.py") == b"print(0)\n"


def test_a_content_that_need_not_be_sent_stays_though_another_machine_tidies(one, two):
    content = b"print('old')\n"
    entry = Entry("train.py", Kind.FILE, content_digest(content), len(content), mtime_ns=1)
    one.store.put(content, entry.digest)
    age(one)
    session = one.session()
    session.open(Opening(ID, "project", "laptop", EMPTY))
    needs = session.stage(Change((entry,)), last=True)
    assert needs is not None
    assert not needs.digests
    two.collect()
    session.commit(Snapshot.of().changed(Change((entry,))).digest)
    assert Path(one.folder(ID), "train.py").read_bytes() == content


def test_tidying_bears_that_another_machine_tidies_too(one, two, monkeypatch):
    one.store.put(b"x", content_digest(b"x"))
    age(one)

    def gone_meanwhile(digest: bytes) -> bool:
        two.store.collect(lambda _digest: False)
        return False

    assert one.store.collect(gone_meanwhile) == 0
