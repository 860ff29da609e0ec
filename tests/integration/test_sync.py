"""A laptop's folder and a host's, over a real stream."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from tests.support.sync import ID, Host, LocalEndpoint, content_of, serving, workspace_at

from rdev.client.sync import scan as scanning
from rdev.client.sync.sender import WorkspaceSync
from rdev.client.sync.watch import watch
from rdev.client.sync.watcher import InotifyWatcher, ObserverWatcher
from rdev.client.workspaces import RemoteEndpoint, endpoints, sync_workspace
from rdev.protocol.digest import content_digest
from rdev.protocol.errors import (
    ConnectionLost,
    DiskFull,
    InvalidRequest,
    MassDeletion,
    NotFound,
    RdevError,
    SyncFailed,
)
from rdev.protocol.exchange import UNASKED, ContentRun, Encoding, Opening
from rdev.protocol.snapshot import Change, Entry, Kind, Snapshot, diff
from rdev.v1 import workspace_pb2_grpc


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


@pytest.fixture
async def host(tmp_path: Path):
    async with serving(tmp_path / "home") as host:
        yield host


@pytest.fixture
def laptop(tmp_path: Path) -> Path:
    root = tmp_path / "project"
    (root / "pkg").mkdir(parents=True)
    (root / "train.py").write_text("import pkg.model\n")
    (root / "pkg" / "model.py").write_text("SIZE = 1\n")
    (root / "pkg" / "run.sh").write_text("#!/bin/sh\n")
    (root / "pkg" / "run.sh").chmod(0o4755)
    (root / "model").symlink_to("pkg/model.py")
    return root


async def sync(host: Host, root: Path, **options):
    return await sync_workspace(host, workspace_at(root), **options)


def remote_endpoint(host: Host) -> RemoteEndpoint:
    return RemoteEndpoint(workspace_pb2_grpc.WorkspaceServiceStub(host.channel))


async def test_a_first_copy_is_the_laptops_tree(host: Host, laptop: Path):
    receipt = await sync(host, laptop)
    assert content_of(host.folder) == content_of(laptop)
    # The executable bit travels; other bits, setuid first of all, do not.
    assert (host.folder / "pkg" / "run.sh").stat().st_mode & 0o7777 == 0o700
    assert (host.folder / "train.py").stat().st_mode & 0o7777 == 0o600
    assert (receipt.written, receipt.deleted, receipt.entries) == (5, 0, 5)
    assert receipt.folder == str(host.folder)
    assert f"snapshot {receipt.snapshot.hex()[:4]}" in str(receipt)


async def test_nothing_to_do_sends_nothing_and_names_the_same_snapshot(host: Host, laptop: Path):
    first = await sync(host, laptop)
    second = await sync(host, laptop)
    assert (second.written, second.deleted, second.bytes) == (0, 0, 0)
    assert second.snapshot == first.snapshot


async def test_an_edit_sends_that_file_alone(host: Host, laptop: Path):
    await sync(host, laptop)
    (laptop / "train.py").write_text("print(2)\n")
    receipt = await sync(host, laptop)
    assert (receipt.written, receipt.bytes) == (1, 9)
    assert (host.folder / "train.py").read_text() == "print(2)\n"


async def test_a_renamed_folder_sends_no_content(host: Host, laptop: Path):
    (laptop / "pkg" / "table.bin").write_bytes(os.urandom(400_000))
    await sync(host, laptop)
    (laptop / "pkg").rename(laptop / "package")
    receipt = await sync(host, laptop)
    assert receipt.bytes == 0
    assert content_of(host.folder) == content_of(laptop)


async def test_large_and_incompressible_files_arrive(host: Host, laptop: Path):
    (laptop / "noise.bin").write_bytes(os.urandom(5 << 20))
    (laptop / "zeros.bin").write_bytes(bytes(9 << 20))
    (laptop / "text.txt").write_text("".join(f"line {n}\n" for n in range(400_000)))
    (laptop / "empty").write_bytes(b"")
    await sync(host, laptop)
    assert content_of(host.folder) == content_of(laptop)


async def test_kinds_that_change_into_one_another(host: Host, laptop: Path):
    (laptop / "a").mkdir()
    (laptop / "a" / "inner").write_text("1")
    (laptop / "b").write_text("2")
    (laptop / "c").symlink_to("b")
    await sync(host, laptop)
    (laptop / "a" / "inner").unlink()
    (laptop / "a").rmdir()
    (laptop / "a").write_text("file now")
    (laptop / "b").unlink()
    (laptop / "b").mkdir()
    (laptop / "b" / "x").write_text("3")
    (laptop / "c").unlink()
    (laptop / "c").write_text("no link")
    receipt = await sync(host, laptop)
    assert content_of(host.folder) == content_of(laptop)
    assert receipt.problems == ()


async def test_an_edit_of_equal_size_in_the_same_second_never_runs_its_old_bytecode(
    host: Host, laptop: Path
):
    module = laptop / "answer.py"
    now = time.time_ns()
    environment = {key: value for key, value in os.environ.items() if "PYTHON" not in key}
    for number in range(3, 7):
        module.write_text(f"ANSWER = {number}\n")
        os.utime(module, ns=(now, now))
        await sync(host, laptop)
        assert not list((host.folder / "__pycache__").glob("answer.*.pyc"))
        done = subprocess.run(
            [sys.executable, "-c", "import answer; print(answer.ANSWER)"],
            cwd=host.folder,
            capture_output=True,
            check=True,
            text=True,
            env=environment,
        )
        assert done.stdout == f"{number}\n"
        assert list((host.folder / "__pycache__").glob("answer.*.pyc"))


async def test_bytecode_that_a_running_process_writes_late_is_not_believed(
    host: Host, laptop: Path
):
    module = laptop / "answer.py"
    now = time.time_ns()
    module.write_text("ANSWER = 1\n")
    os.utime(module, ns=(now, now))
    await sync(host, laptop)
    program = [sys.executable, "-c", "import answer; print(answer.ANSWER)"]
    environment = {key: value for key, value in os.environ.items() if "PYTHON" not in key}
    options = {"cwd": host.folder, "env": environment, "text": True}
    subprocess.run(program, check=True, capture_output=True, **options)
    (cached,) = (host.folder / "__pycache__").glob("answer.*.pyc")
    late = cached.read_bytes()
    module.write_text("ANSWER = 2\n")
    os.utime(module, ns=(now, now))
    await sync(host, laptop)
    cached.write_bytes(late)
    done = subprocess.run(program, check=True, capture_output=True, **options)
    assert done.stdout == "2\n"


async def test_a_file_changed_on_the_host_is_kept_beside_and_said_once(host: Host, laptop: Path):
    await sync(host, laptop)
    (host.folder / "train.py").write_text("the host's own words\n")
    receipt = await sync(host, laptop)
    assert [each.kind for each in receipt.problems] == ["CONFLICT"]
    assert (host.folder / "train.py").read_bytes() == (laptop / "train.py").read_bytes()
    kept = list((host.folder / ".rdev" / "conflicts").rglob("train.py"))
    assert [path.read_text() for path in kept] == ["the host's own words\n"]
    assert (await sync(host, laptop)).problems == ()


async def test_an_unknown_file_in_the_way_is_kept_beside(host: Host, laptop: Path):
    await sync(host, laptop)
    (host.folder / "new.py").write_text("made on the host\n")
    (host.folder / "data").mkdir()
    (host.folder / "data" / "big").write_text("made on the host too\n")
    (laptop / "new.py").write_text("made on the laptop\n")
    (laptop / "data").write_text("a file here\n")
    receipt = await sync(host, laptop)
    assert sorted(each.path for each in receipt.problems) == ["data", "new.py"]
    assert content_of(host.folder) == content_of(laptop)
    conflicts = (host.folder / ".rdev" / "conflicts").rglob("*")
    kept = sorted(path.read_text() for path in conflicts if path.is_file())
    assert kept == ["made on the host\n", "made on the host too\n"]


async def test_a_file_and_what_lies_in_a_folder_of_its_name_are_both_kept_in_one_second(
    host: Host, laptop: Path
):
    await sync(host, laptop)
    (laptop / "d").mkdir()
    (host.folder / "d").write_text("a file\n")
    await sync(host, laptop)
    (host.folder / "d" / "x").write_text("in a folder\n")
    (laptop / "d" / "x").write_text("the laptop's\n")
    assert len((await sync(host, laptop)).problems) == 1
    assert content_of(host.folder) == content_of(laptop)
    conflicts = (host.folder / ".rdev" / "conflicts").rglob("*")
    kept = sorted(path.read_text() for path in conflicts if path.is_file())
    assert kept == ["a file\n", "in a folder\n"]


async def test_what_the_host_created_is_never_touched(host: Host, laptop: Path):
    await sync(host, laptop)
    (host.folder / "pkg" / "result.txt").write_text("42")
    (laptop / "pkg" / "model.py").unlink()
    (laptop / "pkg" / "run.sh").unlink()
    (laptop / "model").unlink()
    (laptop / "pkg").rmdir()
    await sync(host, laptop)
    assert content_of(host.folder / "pkg") == {"result.txt": b"42"}


async def test_a_file_deleted_here_and_changed_there_stays_there(host: Host, laptop: Path):
    async with WorkspaceSync(workspace_at(laptop), endpoints(host)) as syncing:
        await syncing.sync()
        (host.folder / "train.py").write_text("changed there\n")
        (laptop / "train.py").unlink()
        receipt = await syncing.sync()
    assert [each.kind for each in receipt.problems] == ["KEPT"]
    assert (host.folder / "train.py").read_text() == "changed there\n"


async def test_the_same_edit_on_both_sides_is_no_conflict(host: Host, laptop: Path):
    await sync(host, laptop)
    for folder in (laptop, host.folder):
        (folder / "train.py").write_text("both\n")
    assert (await sync(host, laptop)).problems == ()
    (laptop / "train.py").write_text("then only the laptop\n")
    assert (await sync(host, laptop)).problems == ()
    assert (host.folder / "train.py").read_text() == "then only the laptop\n"


async def test_a_folder_deleted_on_the_host_comes_back(host: Host, laptop: Path):
    await sync(host, laptop)
    for path in (host.folder / "pkg").iterdir():
        path.unlink()
    (host.folder / "pkg").rmdir()
    await sync(host, laptop)
    assert content_of(host.folder) == content_of(laptop)


async def test_a_folder_that_vanishes_on_the_host_under_an_open_stream_comes_back(
    host: Host, laptop: Path
):
    async with WorkspaceSync(workspace_at(laptop), endpoints(host)) as syncing:
        await syncing.sync()
        subprocess.run(["rm", "-rf", str(host.folder / "pkg")], check=True)
        (laptop / "pkg" / "model.py").write_text("SIZE = 2\n")
        await syncing.sync()
        assert (host.folder / "pkg" / "model.py").read_text() == "SIZE = 2\n"
    await sync(host, laptop)
    assert content_of(host.folder) == content_of(laptop)


async def test_a_folder_moved_away_on_the_host_under_an_open_stream_is_not_written_to(
    host: Host, laptop: Path, tmp_path: Path
):
    async with WorkspaceSync(workspace_at(laptop), endpoints(host)) as syncing:
        await syncing.sync()
        (laptop / "pkg" / "model.py").write_text("SIZE = 2\n")
        await syncing.sync()
        (host.folder / "pkg").rename(tmp_path / "moved")
        before = content_of(tmp_path / "moved")
        (laptop / "pkg" / "model.py").write_text("SIZE = 3\n")
        await syncing.sync()
        assert content_of(tmp_path / "moved") == before
        assert (host.folder / "pkg" / "model.py").read_text() == "SIZE = 3\n"


async def test_a_folder_that_became_a_link_to_elsewhere_is_not_written_through(
    host: Host, laptop: Path, tmp_path: Path
):
    await sync(host, laptop)
    elsewhere = tmp_path / "elsewhere"
    (host.folder / "pkg").rename(elsewhere)
    before = content_of(elsewhere)
    (host.folder / "pkg").symlink_to(elsewhere)
    (laptop / "pkg" / "model.py").write_text("SIZE = 2\n")
    receipt = await sync(host, laptop)
    assert content_of(elsewhere) == before
    assert content_of(host.folder) == content_of(laptop)
    assert "pkg" in [each.path for each in receipt.problems]


async def test_a_workspace_folder_deleted_on_the_host_is_made_again(host: Host, laptop: Path):
    await sync(host, laptop)
    subprocess.run(["rm", "-rf", str(host.folder)], check=True)
    await sync(host, laptop)
    assert content_of(host.folder) == content_of(laptop)


async def test_secrets_are_not_sent_and_are_named(host: Host, laptop: Path):
    (laptop / ".env").write_text("TOKEN=1")
    (laptop / "pkg" / "server.pem").write_text("key")
    (laptop / "id_ed25519").write_text("key")
    (laptop / "id_map.py").write_text("source")
    (laptop / ".aws").mkdir()
    (laptop / ".aws" / "credentials").write_text("key")
    receipt = await sync(host, laptop)
    secret = {".env", ".aws", "id_ed25519", "pkg/server.pem"}
    assert set(receipt.secrets) == secret
    assert "not sent, may hold secrets" in str(receipt)
    assert not secret & set(content_of(host.folder))
    assert (host.folder / "id_map.py").exists()
    (laptop / ".rdevignore").write_text("!.env\n")
    assert ".env" not in (await sync(host, laptop)).secrets
    assert (host.folder / ".env").read_text() == "TOKEN=1"


async def test_problem_files_are_named_and_do_not_stop_the_rest(host: Host, laptop: Path):
    (laptop / "out").symlink_to("/etc/passwd")
    os.mkfifo(laptop / "pipe")
    with open(laptop / "huge.bin", "wb") as file:
        file.truncate((50 << 20) + 1)
    receipt = await sync(host, laptop)
    kinds = {each.path: each.kind for each in receipt.problems}
    assert kinds == {"out": "LINK_OUTSIDE", "pipe": "SPECIAL", "huge.bin": "TOO_LARGE"}
    assert (host.folder / "train.py").exists()
    assert "huge.bin: not synced" in str(receipt)


_AS_ANOTHER_USER = """
import asyncio, os, sys
from pathlib import Path
from tests.support.sync import serving, workspace_at
from rdev.client.workspaces import sync_workspace
async def warm(base):
    # Loads what is imported late: the other user may not be able to read this Python.
    async with serving(base / "warm") as host:
        await sync_workspace(host, workspace_at(base / "project"))
async def main(base):
    async with serving(base / "home") as host:
        root = base / "project"
        one = await sync_workspace(host, workspace_at(root))
        os.chmod(root / "locked.py", 0)
        (root / "open.py").write_text("2")
        two = await sync_workspace(host, workspace_at(root))
        assert one.problems == (), one
        assert [(p.path, p.kind) for p in two.problems] == [("locked.py", "UNREADABLE")], two
        assert (host.folder / "locked.py").read_text() == "1"
        assert (host.folder / "open.py").read_text() == "2"
base = Path(sys.argv[1])
asyncio.run(warm(base))
for path in [base, *base.rglob("*")]:
    os.chown(path, 65534, 65534, follow_symlinks=False)
os.setgid(65534); os.setuid(65534)
asyncio.run(main(base))
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="drops from root to another user")
def test_an_unreadable_file_is_named_and_stays_on_the_host():
    with tempfile.TemporaryDirectory() as name:
        base = Path(name)
        (base / "project").mkdir()
        for file in ("locked.py", "open.py"):
            (base / "project" / file).write_text("1")
        environment = {
            **os.environ,
            "XDG_CACHE_HOME": str(base / "cache"),
            "XDG_STATE_HOME": str(base / "state"),
            "HOME": str(base),
        }
        done = subprocess.run(
            [sys.executable, "-c", _AS_ANOTHER_USER, str(base)],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr


async def test_a_stream_killed_in_the_middle_of_contents_changes_nothing(host: Host, laptop: Path):
    await sync(host, laptop)
    before = content_of(host.folder)
    data = os.urandom(3 << 20)
    digest = content_digest(data)
    remote = scanning.Scanner(str(laptop)).scan().snapshot
    wanted = remote.changed(Change((Entry("big", Kind.FILE, digest, len(data)),), ("train.py",)))
    endpoint = remote_endpoint(host)
    digests = {path: each.digest for path, each in remote.directories.items()}
    opened = await endpoint.open(Opening(ID, "project", "c", digests))
    assert opened.differing == ()
    await endpoint.stage(diff(remote, wanted))
    assert await endpoint.needs() == {digest}
    half = ContentRun(digest, len(data), Encoding.IDENTITY, data[: 1 << 20], last=False)
    await endpoint.send([half])
    await endpoint.close()
    async with asyncio.timeout(10):
        while os.listdir(host.home / "store" / "incoming"):
            await asyncio.sleep(0.01)
    assert content_of(host.folder) == before
    (laptop / "train.py").write_text("after\n")
    await sync(host, laptop)
    assert content_of(host.folder) == content_of(laptop)


async def test_an_agent_killed_in_the_middle_is_found_again_and_nothing_is_sent_twice(
    tmp_path: Path, laptop: Path
):
    """A stream breaks once, after the contents and before the commit."""
    (laptop / "big.bin").write_bytes(os.urandom(2 << 20))
    broken = asyncio.Event()

    class Breaking:
        def __init__(self, host: Host) -> None:
            self.host = host

        @property
        def channel(self):
            return self.host.channel

        async def recover(self) -> None:
            broken.set()

    def seam(point: str) -> None:
        if point == "journalled" and not broken.is_set():
            # What grpc reports when the process at the other end is gone.
            raise ConnectionLost("sync", "the agent died")

    async with serving(tmp_path / "home", seam) as host:
        receipt = await sync_workspace(Breaking(host), workspace_at(laptop))
        assert broken.is_set()
        assert receipt.bytes < 1000
        assert content_of(host.folder) == content_of(laptop)


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
    assert await one.needs() == {HELLO.digest}
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


async def test_a_file_that_never_holds_still_is_left_out_and_named(host: Host, laptop: Path):
    await sync(host, laptop)

    class Saving(RemoteEndpoint):
        """Somebody saves whenever the file has been announced and not yet been read."""

        async def needs(self) -> frozenset[bytes]:
            with open(laptop / "train.py", "a") as file:
                file.write("# more\n")
            return await super().needs()

    def connect() -> Saving:
        return Saving(workspace_pb2_grpc.WorkspaceServiceStub(host.channel))

    (laptop / "train.py").write_text("start\n")
    (laptop / "large.bin").write_bytes(os.urandom(UNASKED + 1))  # large enough to ask for needs
    async with WorkspaceSync(workspace_at(laptop), connect) as syncing:
        receipt = await syncing.sync()
    assert [(each.path, each.kind) for each in receipt.problems] == [("train.py", "CHANGING")]
    assert (host.folder / "train.py").read_text() == "import pkg.model\n"
    assert (host.folder / "large.bin").read_bytes() == (laptop / "large.bin").read_bytes()


async def test_most_files_gone_is_asked_about(host: Host, laptop: Path):
    for number in range(150):
        (laptop / f"f{number}").write_text(str(number))
    await sync(host, laptop)
    for number in range(150):
        (laptop / f"f{number}").unlink()
    with pytest.raises(MassDeletion):
        await sync(host, laptop)
    assert (host.folder / "f7").exists()
    asked = []
    await sync(host, laptop, confirm=lambda question: asked.append(question) or True)
    assert len(asked) == 1
    assert content_of(host.folder) == content_of(laptop)


async def test_an_emptied_root_is_asked_about(host: Host, laptop: Path):
    await sync(host, laptop)
    subprocess.run(["find", str(laptop), "-mindepth", "1", "-delete"], check=True)
    with pytest.raises(MassDeletion):
        await sync(host, laptop)
    assert (host.folder / "train.py").exists()


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


@pytest.fixture
def small_disk(tmp_path: Path):
    if os.geteuid() != 0:
        pytest.skip("mounting a small tmpfs needs root")
    place = tmp_path / "small"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=12m", "tmpfs", str(place)]
    if subprocess.run(mount, check=False).returncode != 0:
        pytest.skip("this machine lets nobody mount a tmpfs")
    yield place
    subprocess.run(["umount", str(place)], check=True)


async def test_a_full_disk_is_said_and_nothing_half_done_is_left(small_disk: Path, laptop: Path):
    async with serving(small_disk / "home") as host:
        await sync(host, laptop)
        before = content_of(host.folder)
        (laptop / "train.py").write_text("changed\n")
        (laptop / "a.bin").write_bytes(os.urandom(6 << 20))
        with pytest.raises(DiskFull) as caught:
            await sync(host, laptop)
        assert "MiB are needed" in str(caught.value)
        assert content_of(host.folder) == before
        assert os.listdir(host.home / "store" / "incoming") == []
        (laptop / "a.bin").unlink()
        await sync(host, laptop)
        assert content_of(host.folder) == content_of(laptop)


async def test_a_disk_that_fills_up_while_files_are_staged_changes_nothing(
    small_disk: Path, laptop: Path
):
    filler = small_disk / "filler"

    def fill(point: str) -> None:
        if point == "staging" and not filler.exists() and armed:
            with open(filler, "wb", buffering=0) as file, pytest.raises(OSError, match="space"):
                while True:
                    file.write(bytes(1 << 16))

    armed = False
    async with serving(small_disk / "home", fill) as host:
        await sync(host, laptop)
        before = content_of(host.folder)
        armed = True
        for number in range(3):
            (laptop / f"{number}.bin").write_bytes(os.urandom(300_000))
        with pytest.raises(DiskFull):
            await sync(host, laptop)
        assert content_of(host.folder) == before
        armed = False
        filler.unlink()
        await sync(host, laptop)
        assert content_of(host.folder) == content_of(laptop)


@pytest.mark.parametrize("make", [InotifyWatcher, ObserverWatcher])
@pytest.mark.skipif(sys.platform != "linux", reason="inotify is Linux's")
async def test_a_save_is_pushed(host: Host, laptop: Path, make):
    async with asyncio.timeout(30), WorkspaceSync(workspace_at(laptop), endpoints(host)) as syncing:
        receipts = watch(syncing, str(laptop), make, on_hold=print)
        await anext(receipts)

        async def until(done):
            while not done():
                await anext(receipts)

        (laptop / "train.py").write_text("saved\n")
        await until(lambda: (host.folder / "train.py").read_text() == "saved\n")
        # As editors do: beside, then by rename.
        (laptop / "train.py~").write_text("renamed\n")
        (laptop / "train.py~").replace(laptop / "train.py")
        await until(lambda: (host.folder / "train.py").read_text() == "renamed\n")
        # A folder that is made and filled before anybody can watch it.
        (laptop / "deep" / "er").mkdir(parents=True)
        (laptop / "deep" / "er" / "new.py").write_text("1")
        await until(lambda: content_of(host.folder) == content_of(laptop))
        (laptop / "deep" / "er" / "new.py").write_text("22")
        await until(lambda: content_of(host.folder) == content_of(laptop))
        (laptop / "deep").rename(laptop / "deeper")
        await until(lambda: content_of(host.folder) == content_of(laptop))
        (laptop / "deeper" / "er" / "new.py").write_text("333")
        await until(lambda: content_of(host.folder) == content_of(laptop))
        # An ignore file concerns what lies anywhere.
        (laptop / ".gitignore").write_text("er/\n")
        await until(lambda: not (host.folder / "deeper" / "er").exists())
        await receipts.aclose()


async def test_a_watched_root_that_is_emptied_is_held(host: Host, laptop: Path):
    held = asyncio.Event()
    async with asyncio.timeout(30), WorkspaceSync(workspace_at(laptop), endpoints(host)) as syncing:
        receipts = watch(syncing, str(laptop), InotifyWatcher, on_hold=lambda _: held.set())
        await anext(receipts)
        subprocess.run(["find", str(laptop), "-mindepth", "1", "-delete"], check=True)
        following = asyncio.ensure_future(anext(receipts))
        await held.wait()
        assert (host.folder / "train.py").exists()
        (laptop / "train.py").write_text("back\n")
        await following
        assert content_of(host.folder) == content_of(laptop)
        await receipts.aclose()


async def test_an_agent_that_dies_between_the_renames_finishes_them_later(
    tmp_path: Path, laptop: Path
):
    class DiedError(Exception):
        pass

    armed = False

    def seam(point: str) -> None:
        if armed and point == "placing":
            raise DiedError

    async with serving(tmp_path / "home", seam) as host:
        await sync(host, laptop)
        (laptop / "train.py").write_text("two\n")
        (laptop / "pkg" / "model.py").write_text("SIZE = 2\n")
        armed = True
        with pytest.raises(RdevError):
            await sync(host, laptop)
    armed = False
    async with serving(tmp_path / "home") as host:
        await sync(host, laptop)
        assert content_of(host.folder) == content_of(laptop)
        assert not (host.folder / ".rdev" / "journal").exists()
        assert not (host.folder / ".rdev" / "conflicts").exists()
