"""The agent's half of sync without a wire: confinement, the store, and crashes at any point."""

from __future__ import annotations

import asyncio
import os
import random
import resource
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from tests.support.sync import ID, LocalEndpoint, content_of, workspace_at

from rdev.agent.workspace.beneath import ComponentOpener, KernelOpener, Root
from rdev.agent.workspace.manager import WorkspaceManager
from rdev.client.sync.sender import WorkspaceSync
from rdev.protocol.digest import content_digest
from rdev.protocol.errors import InvalidRequest, NotFound
from rdev.protocol.exchange import MAX_ENTRIES, ContentRun, Encoding, Needs, Opening
from rdev.protocol.snapshot import Change, Entry, Kind, Snapshot

EMPTY = {"": Snapshot.of().directories[""].digest}


# Both ways of opening beneath a root pass the same tests.
@pytest.fixture(params=[KernelOpener, ComponentOpener])
def root(request, tmp_path: Path):
    folder = tmp_path / "root"
    (folder / "a" / "b").mkdir(parents=True)
    (folder / "a" / "file").write_text("inside")
    (folder / "inner-link").symlink_to("a")
    (folder / "outer-link").symlink_to("..")
    (folder / "absolute-link").symlink_to(tmp_path)
    os.mkfifo(folder / "pipe")
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "file").write_text("outside")
    with Root(str(folder), request.param()) as root:
        yield root


def is_refused(attempt: Callable[[], object]) -> bool:
    try:
        attempt()
    except OSError:
        return True
    return False


@pytest.mark.parametrize(
    "path",
    [
        "../outside/file",
        "a/../../outside/file",
        "/etc/passwd",
        "outer-link/outside/file",
        "absolute-link/outside/file",
        "inner-link/file",
        "a/file/x",
        "nothing/file",
    ],
)
def test_no_path_leaves_the_root_or_follows_a_link(root: Root, path: str):
    assert root.status(path) is None
    for attempt in (
        lambda: root.at(path),
        lambda: root.create(path),
        lambda: root.remove(path),
        lambda: root.make_directory(path),
        lambda: root.make_link("x", path),
        lambda: root.move("a/file", path),
        lambda: root.reading(path).__enter__(),
    ):
        assert is_refused(attempt)
    assert (Path(root.folder).parent / "outside" / "file").read_text() == "outside"
    assert (Path(root.folder) / "a" / "file").read_text() == "inside"


def test_what_is_beneath_can_be_used(root: Root):
    os.close(root.create("a/b/new"))
    root.move("a/b/new", "a/moved")
    with root.reading("a/file") as descriptor:
        assert os.read(descriptor, 10) == b"inside"
    assert sorted(root.names("a")) == ["b", "file", "moved"]
    root.remove("a/moved")
    root.remove_directory("a/b")
    root.make_directories("x/y/z")
    root.make_link("y", "x/link")
    assert root.link_target("x/link") == "y"
    root.remove_tree("x")
    assert root.status("x") is None


def test_a_link_or_a_fifo_is_not_read(root: Root):
    for path in ("inner-link", "pipe", "a"):
        assert is_refused(lambda path=path: root.reading(path).__enter__())


def test_removing_a_tree_follows_no_link(root: Root):
    outside = Path(root.folder).parent / "outside"
    (Path(root.folder) / "a" / "b" / "out").symlink_to(outside)
    root.remove_tree("a")
    assert root.status("a") is None
    assert (outside / "file").exists()


def test_a_folder_swapped_for_a_link_while_files_are_written_lets_nothing_out(root: Root):
    outside = Path(root.folder).parent / "outside"
    inside = Path(root.folder) / "a"
    before = content_of(outside)
    chance = random.Random(7)
    for number in range(300):
        if chance.random() < 0.5:
            inside.rename(Path(root.folder) / "aside")
            inside.symlink_to(outside)
        root.forget()
        try:
            os.close(root.create(f"a/n{number}"))
        except OSError:
            assert inside.is_symlink()
        if inside.is_symlink():
            inside.unlink()
            (Path(root.folder) / "aside").rename(inside)
    assert content_of(outside) == before


@pytest.fixture
def manager(tmp_path: Path):
    manager = WorkspaceManager(str(tmp_path / "home"))
    yield manager
    manager.close()


def test_a_stream_of_ten_million_entries_is_refused_in_little_memory(manager: WorkspaceManager):
    session = manager.session()
    session.open(Opening(ID, "p", "c", EMPTY))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    staged = 0
    with pytest.raises(InvalidRequest, match="more than"):
        for part in range(5_000):
            names = [f"d{part}-{number}" for number in range(2_000)]
            entries = tuple(Entry(name, Kind.DIRECTORY) for name in names)
            session.stage(Change(entries), last=False)
            staged += len(entries)
    assert staged <= MAX_ENTRIES
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100 << 10  # in KiB
    session.close()


def file(path: str, data: bytes) -> Entry:
    return Entry(path, Kind.FILE, content_digest(data), len(data))


def run_of(data: bytes, *, claims: bytes | None = None, size: int | None = None) -> ContentRun:
    digest = content_digest(data if claims is None else claims)
    size = len(data) if size is None else size
    return ContentRun(digest, size, Encoding.IDENTITY, data, last=True)


@pytest.mark.parametrize(
    ("entry", "run"),
    [
        (file("a", b"12345"), run_of(b"54321", claims=b"12345")),
        (file("a", b"12345"), run_of(b"123456", claims=b"12345", size=5)),
        (file("a", b"12345"), run_of(b"1234", claims=b"12345", size=5)),
        (file("a", b"12345"), run_of(b"12345", size=6)),
        (file("a", b"12345"), run_of(b"nobody staged this")),
        (file("a", b"12345"), run_of(bytes((1 << 20) + 1))),
    ],
)
def test_contents_that_are_not_what_was_staged_are_refused(
    manager: WorkspaceManager, entry: Entry, run: ContentRun
):
    session = manager.session()
    session.open(Opening(ID, "p", "c", EMPTY))
    assert session.stage(Change((entry,)), last=True) == Needs(frozenset({entry.digest}))
    with pytest.raises(InvalidRequest):
        session.content(run)
    session.close()
    assert os.listdir(Path(manager.store.folder) / "incoming") == []
    assert not manager.store.has(entry.digest)


@pytest.mark.parametrize(
    "entry",
    [
        Entry("a", Kind.FILE, digest=b"short"),
        Entry("a", Kind.FILE, digest=bytes(32), size=1 << 40),
        Entry("a", Kind.FILE, digest=bytes(32), mtime_ns=-1),
        Entry("a", Kind.DIRECTORY, digest=bytes(32)),
        Entry("a", Kind.SYMLINK, target="/etc/passwd"),
        Entry("a", Kind.SYMLINK, target="../x"),
        Entry("a", Kind.SYMLINK),
    ],
)
def test_entries_that_no_client_of_ours_sends_are_refused(manager: WorkspaceManager, entry: Entry):
    session = manager.session()
    session.open(Opening(ID, "p", "c", EMPTY))
    with pytest.raises(InvalidRequest):
        session.stage(Change((entry,)), last=True)


def test_words_out_of_turn_are_refused(manager: WorkspaceManager):
    for attempt in (
        lambda session: session.stage(Change(), last=True),
        lambda session: session.commit(bytes(32)),
        lambda session: session.content(run_of(b"x")),
        lambda session: session.open(Opening("../up", "p", "c", EMPTY)),
        lambda session: [session.open(Opening(ID, "p", "c", EMPTY)) for _ in range(2)],
    ):
        with pytest.raises(InvalidRequest):
            attempt(manager.session())


def test_a_workspace_is_found_again_by_its_id_and_not_by_its_name(tmp_path: Path):
    first = WorkspaceManager(str(tmp_path))
    folder = first.session().open(Opening("b", "my a/../b proj", "c", EMPTY)).folder
    assert Path(folder).parent == tmp_path / "workspaces"
    first.close()
    second = WorkspaceManager(str(tmp_path))
    assert second.folder("b") == folder
    assert second.folder("proj-b") is None
    assert second.session().open(Opening("b", "renamed", "c", EMPTY)).folder == folder
    second.close()


def test_an_unknown_snapshot_cannot_be_pinned(manager: WorkspaceManager):
    with pytest.raises(NotFound):
        manager.pin("0" * 64, "0123456789ab")
    with pytest.raises(InvalidRequest):
        manager.pin("../x", "0123456789ab")
    manager.unpin("0123456789ab")


_DYING = """
import asyncio, os, sys
from pathlib import Path
from tests.support.sync import LocalEndpoint, workspace_at
from rdev.agent.workspace.manager import WorkspaceManager
from rdev.client.sync.sender import WorkspaceSync
base, fatal, lives = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
def seam(point):
    global lives
    lives -= point == fatal
    if lives == 0:
        os._exit(9)
manager = WorkspaceManager(str(base / "home"), seam=seam)
async def main():
    root = workspace_at(base / "project")
    async with WorkspaceSync(root, lambda: LocalEndpoint(manager)) as syncing:
        await syncing.sync()
asyncio.run(main())
"""


@pytest.mark.parametrize(
    ("fatal", "lives"),
    [("staged", 1), ("journalled", 1), *(("placing", step) for step in (1, 2, 3, 4))],
)
def test_the_opening_after_a_death_finishes_what_has_a_journal_and_drops_the_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fatal: str, lives: int
):
    for name in ("XDG_CACHE_HOME", "XDG_STATE_HOME"):
        monkeypatch.setenv(name, str(tmp_path / name))
    dying = [sys.executable, "-c", _DYING, str(tmp_path)]
    project, home = tmp_path / "project", tmp_path / "home"
    home.mkdir()
    (project / "old").mkdir(parents=True)
    (project / "old" / "gone.py").write_text("1")
    (project / "a.py").write_text("1")
    subprocess.run([*dying, "nowhere", "1"], check=True)
    before = content_of(project)
    shutil.rmtree(project / "old")
    (project / "new").mkdir()
    (project / "new" / "b.py").write_text("2")
    (project / "a.py").write_text("22")
    assert subprocess.run([*dying, fatal, str(lives)], check=False).returncode == 9
    # Opened for a laptop that has nothing at all: what lies there now is the agent's own doing.
    manager = WorkspaceManager(str(home))
    try:
        folder = Path(manager.session().open(Opening(ID, "project", "c", EMPTY)).folder)
        assert content_of(folder) == (before if fatal == "staged" else content_of(project))
        assert not (folder / ".rdev" / "journal").exists()
        assert os.listdir(folder / ".rdev" / "stage") == []
        assert not (folder / ".rdev" / "conflicts").exists()
    finally:
        manager.close()


class CrashError(Exception):
    """The agent's process dies here."""


class SyncMachine(RuleBasedStateMachine):
    """Both sides do as they please, the agent dies anywhere; nothing is lost, all converges."""

    NAMES = st.sampled_from(["a", "b.py", "d", "d/x", "d/y.py", "d/e", "d/e/z", "A"])
    DATA = st.sampled_from([b"", b"one", b"two", b"three"])

    @initialize()
    def start(self):
        self.base = Path(tempfile.mkdtemp(prefix="rdev-machine-"))
        os.environ["XDG_CACHE_HOME"] = str(self.base / "cache")
        os.environ["XDG_STATE_HOME"] = str(self.base / "state")
        self.laptop = self.base / "laptop"
        self.workspace = workspace_at(self.laptop)
        self.fuse: int | None = None
        self.interfering: str | None = None
        self.written_on_host: set[bytes] = set()
        self.serial = 0
        self.manager = WorkspaceManager(str(self.base / "home"), seam=self.seam)
        for name in ("a", "b.py", "d/x", "d/e/z"):
            self.put(self.laptop, name, name.encode())
        self.sync()

    def teardown(self):
        self.manager.close()
        shutil.rmtree(self.base)

    def seam(self, point: str) -> None:
        if self.interfering is not None and point == "journalled":
            name, self.interfering = self.interfering, None
            self.host_writes(name)
        if self.fuse is not None:
            self.fuse -= 1
            if self.fuse < 0:
                raise CrashError(point)

    @property
    def host(self) -> Path:
        folder = self.manager.folder(ID)
        assert folder is not None
        return Path(folder)

    def sync(self) -> None:
        async def once() -> None:
            connect = lambda: LocalEndpoint(self.manager)  # noqa: E731
            async with WorkspaceSync(self.workspace, connect, confirm=lambda _: True) as syncing:
                await syncing.sync()

        asyncio.run(once())

    def put(self, side: Path, name: str, data: bytes) -> bool:
        path = side / name
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError):
            return False
        links = [each for each in path.parents if each != side and each.is_symlink()]
        if path.is_dir() or links:
            return False
        path.unlink(missing_ok=True)
        path.write_bytes(data)
        return True

    @rule(name=NAMES, data=DATA)
    def laptop_writes(self, name, data):
        self.put(self.laptop, name, data)

    @rule(name=NAMES)
    def host_writes(self, name):
        # Each content is unlike all others, so that its loss is seen.
        self.serial += 1
        data = b"host %d" % self.serial
        if self.put(self.host, name, data):
            self.written_on_host = {
                old for old in self.written_on_host if old in self.on_host()
            } | {data}

    @rule(name=NAMES, data=DATA)
    def both_write(self, name, data):
        self.laptop_writes(name, data)
        self.host_writes(name)

    @rule(name=NAMES, data=DATA)
    def host_writes_while_the_laptop_syncs(self, name, data):
        """After the trees were compared, before the files are placed."""
        self.laptop_writes(name, data)
        self.interfering = name
        try:
            self.sync()
        finally:
            self.interfering = None
        self.sync()
        self.check_converged()

    @rule(name=NAMES, on_laptop=st.booleans())
    def makes_a_folder(self, name, on_laptop):
        path = (self.laptop if on_laptop else self.host) / name
        if path.parent.is_dir() and not path.parent.is_symlink() and not os.path.lexists(path):
            path.mkdir()

    @rule(name=NAMES)
    def laptop_deletes(self, name):
        self.delete(self.laptop / name)

    @rule(name=NAMES)
    def host_deletes(self, name):
        self.delete(self.host / name)
        self.written_on_host &= self.on_host()

    def delete(self, path: Path) -> None:
        if not path.parent.is_dir() or path.parent.is_symlink():
            return
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        elif os.path.lexists(path):
            path.unlink()

    @rule(old=NAMES, new=NAMES, on_laptop=st.booleans())
    def renames(self, old, new, on_laptop):
        side = self.laptop if on_laptop else self.host
        if old == new or new.startswith(f"{old}/") or not os.path.lexists(side / old):
            return
        try:
            os.rename(side / old, side / new)
        except OSError:
            return
        self.written_on_host &= self.on_host()

    @rule(name=NAMES, on_laptop=st.booleans())
    def chmods(self, name, on_laptop):
        path = (self.laptop if on_laptop else self.host) / name
        if path.is_file() and not path.is_symlink():
            path.chmod(path.stat().st_mode ^ 0o100)

    @rule(name=NAMES, aim=st.sampled_from(["a", "b.py", "nowhere"]), on_laptop=st.booleans())
    def links(self, name, aim, on_laptop):
        path = (self.laptop if on_laptop else self.host) / name
        if path.parent.is_dir() and not path.parent.is_symlink() and not os.path.lexists(path):
            path.symlink_to(aim)

    @rule()
    def syncs(self):
        self.sync()
        self.check_converged()

    @rule(steps=st.integers(0, 25))
    def syncs_and_crashes(self, steps):
        self.fuse = steps
        try:
            self.sync()
        except CrashError:
            pass
        finally:
            self.fuse = None
        self.manager.close()
        self.manager = WorkspaceManager(str(self.base / "home"), seam=self.seam)
        self.sync()
        self.check_converged()

    def check_converged(self) -> None:
        laptop, host = content_of(self.laptop), content_of(self.host)
        for name, content in laptop.items():
            assert name in host, f"{name} did not arrive"
            assert host[name] == content, f"{name} is not the laptop's"
            if isinstance(content, bytes):
                bits = [(side / name).stat().st_mode & 0o100 for side in (self.laptop, self.host)]
                assert bits[0] == bits[1]
        assert not (self.host / ".rdev" / "journal").exists()
        assert os.listdir(self.host / ".rdev" / "stage") == []

    def on_host(self) -> set[bytes]:
        """Contents of all files on the host, those kept beside included."""
        conflicts = self.host / ".rdev" / "conflicts"
        kept = set(content_of(conflicts).values()) if conflicts.exists() else set()
        found = kept | set(content_of(self.host).values())
        return {content for content in found if isinstance(content, bytes)}

    @invariant()
    def nothing_written_on_the_host_is_lost(self):
        lost = self.written_on_host - self.on_host()
        assert not lost, f"{lost} is nowhere on the host"


def _settings(examples: int) -> settings:
    return settings(
        max_examples=examples,
        stateful_step_count=30,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )


class TestBothSidesChangeAndTheAgentCrashes(SyncMachine.TestCase):
    settings = _settings(20)


@pytest.mark.slow
class TestBothSidesChangeAndTheAgentCrashesForLong(SyncMachine.TestCase):
    settings = _settings(120)
    pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]  # noqa: RUF012
