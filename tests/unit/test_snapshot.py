"""Snapshots, paths, and contents that want to be larger than they say."""

from __future__ import annotations

import resource

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from rdev.protocol import convert_workspace as convert
from rdev.protocol.compression import FREE_SIZE, BombRefused, Decoder, decoded, encoded, runs
from rdev.protocol.digest import content_digest
from rdev.protocol.exchange import MAX_ENTRIES, Encoding, Opened
from rdev.protocol.paths import path_fault, target_fault
from rdev.protocol.snapshot import Change, Entry, Kind, Snapshot, TreeFault, diff

NAMES = st.sampled_from(["a", "b", "c-d", "é", "z.py"])


@st.composite
def snapshots(draw) -> Snapshot:
    entries: dict[str, Entry] = {}
    folders = [""]
    for _ in range(draw(st.integers(0, 12))):
        folder, name = draw(st.sampled_from(folders)), draw(NAMES)
        path = f"{folder}/{name}" if folder else name
        if path in entries:
            continue
        kind = draw(st.sampled_from(Kind))
        if kind is Kind.DIRECTORY:
            entries[path] = Entry(path, kind)
            folders.append(path)
        elif kind is Kind.SYMLINK:
            entries[path] = Entry(path, kind, target=draw(NAMES))
        else:
            digest = content_digest(draw(st.binary(max_size=2)))
            entries[path] = Entry(path, kind, digest=digest, executable=draw(st.booleans()))
    return Snapshot.of(entries.values())


@settings(max_examples=200, deadline=None)
@given(snapshots(), snapshots())
def test_a_diff_applied_leads_to_the_wanted_snapshot(have: Snapshot, want: Snapshot):
    change = diff(have, want)
    after = have.changed(change)
    assert after.digest == want.digest
    assert after == want
    assert not diff(after, want)
    # Parents before children when creating, children before parents when deleting.
    assert list(change.upserts) == sorted(change.upserts, key=lambda entry: entry.path)
    for number, path in enumerate(change.deletes):
        assert not any(later.startswith(f"{path}/") for later in change.deletes[number:])


@settings(max_examples=100, deadline=None)
@given(snapshots(), snapshots())
def test_equal_digests_mean_equal_trees(one: Snapshot, other: Snapshot):
    same = {entry.path: entry for entry in one} == {entry.path: entry for entry in other}
    assert (one.digest == other.digest) == same


@settings(max_examples=100, deadline=None)
@given(snapshots(), st.data())
def test_entries_survive_the_wire(snapshot: Snapshot, data):
    for entry in snapshot:
        assert convert.entry_from_pb(convert.entry_to_pb(entry)) == entry
    opened = Opened("/folder", tuple(snapshot.directories), tuple(snapshot))
    parts = list(convert.opened_to_pb(opened))
    assert [part.last for part in parts] == [False] * (len(parts) - 1) + [True]
    assert [path for part in parts for path in part.differing] == list(opened.differing)


def test_a_mtime_is_no_part_of_a_snapshot_and_the_executable_bit_is():
    entry = Entry("a", Kind.FILE, content_digest(b""), mtime_ns=1)
    later = Entry("a", Kind.FILE, content_digest(b""), mtime_ns=2)
    runs_it = Entry("a", Kind.FILE, content_digest(b""), executable=True)
    assert Snapshot.of([entry]).digest == Snapshot.of([later]).digest
    assert Snapshot.of([entry]).digest != Snapshot.of([runs_it]).digest


def test_the_digest_of_a_known_tree_never_changes():
    entries = [
        Entry("src", Kind.DIRECTORY),
        Entry("src/a.py", Kind.FILE, content_digest(b"print(1)\n"), 9, executable=True),
        Entry("link", Kind.SYMLINK, target="src/a.py"),
    ]
    # Laptops and hosts of different releases compare these.
    known = "0a3848ded3dce3f834f1d559d50cf81c97ec1d5371984f39675bbc0c90951e3f"
    assert Snapshot.of(entries).digest.hex() == known


def test_a_change_that_does_not_fit_is_refused():
    have = Snapshot.of([Entry("d", Kind.DIRECTORY), Entry("d/x", Kind.DIRECTORY)])
    for change in (
        Change((Entry("no/x", Kind.DIRECTORY),)),
        Change((), ("d",)),
        Change((), ("nothing",)),
        Change((Entry("d", Kind.SYMLINK, target="x"),)),
    ):
        with pytest.raises(TreeFault):
            have.changed(change)
    with pytest.raises(TreeFault):
        Snapshot.of([Entry("a/b", Kind.DIRECTORY)])


@pytest.mark.parametrize(
    "path",
    [
        "",
        "/",
        "/etc/passwd",
        "..",
        "../x",
        "a/..",
        "a/../../x",
        "./a",
        "a/./b",
        "a//b",
        "a/",
        "a\0b",
        "x" * 256,
        "é" * 128,
        "a/" + "x" * 256,
        "/".join(["d" * 100] * 50),
        "e\u0301",
        "a\udcff",
        ".rdev",
        ".RDEV/x",
        ".rdev/index",
    ],
)
def test_paths_that_may_not_travel(path: str):
    assert path_fault(path)


@pytest.mark.parametrize(
    "path",
    [
        "a",
        "...",
        "..a",
        "a..",
        "x" * 255,
        "é" * 127,
        "a b/c\nd",
        "src/.rdev",
        ".rdevignore",
        "a\\b",
        "-rf",
        "~",
    ],
)
def test_paths_that_may(path: str):
    assert path_fault(path) is None


@pytest.mark.parametrize(
    ("path", "target", "allowed"),
    [
        ("link", "a", True),
        ("d/link", "../a", True),
        ("d/link", "./x/../y", True),
        ("link", "../a", False),
        ("d/link", "../../a", False),
        ("d/link", "x/../../../a", False),
        ("link", "/etc", False),
        ("link", "", False),
        ("link", "a\0", False),
        ("link", "a/../../b", False),
    ],
)
def test_link_targets(path: str, target: str, allowed: bool):
    assert (target_fault(path, target) is None) is allowed


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=5000), st.integers(1, 50))
def test_contents_come_out_as_they_went_in(data: bytes, times: int):
    data *= times
    encoding, packed = encoded(data)
    out = bytearray()
    decoder = Decoder(encoding, len(data), out.extend)
    for run in runs(packed):
        decoder.feed(run)
    assert bytes(out) == data
    assert decoder.given == len(data)
    assert decoded(encoding, len(data), packed) == data


def test_zeros_travel_although_they_compress_too_well():
    data = bytes(20 << 20)
    encoding, packed = encoded(data)
    assert encoding is Encoding.IDENTITY
    assert len(packed) == len(data)


def test_a_kilobyte_that_becomes_gigabytes_is_refused_in_little_memory():
    packer = zstandard.ZstdCompressor(level=1).compressobj()
    bomb = b"".join(packer.compress(bytes(1 << 20)) for _ in range(1024)) + packer.flush()
    assert len(bomb) < 200 << 10
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    taken = 0

    def sink(data: bytes) -> None:
        nonlocal taken
        taken += len(data)

    # It says what it is, ...
    with pytest.raises(BombRefused, match="encoded size"):
        Decoder(Encoding.ZSTD, 1 << 30, sink).feed(bomb)
    # ... and it lies.
    with pytest.raises(BombRefused, match="claims"):
        Decoder(Encoding.ZSTD, 1 << 20, sink).feed(bomb)
    assert taken < 150 << 20
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100 << 10  # in KiB


@pytest.mark.parametrize("said", [True, False])
def test_a_small_content_that_becomes_a_large_one_is_refused_in_little_memory(said: bool):
    size = 256 << 20 if said else -1
    packer = zstandard.ZstdCompressor(level=1).compressobj(size=size)
    bomb = b"".join(packer.compress(bytes(1 << 20)) for _ in range(256)) + packer.flush()
    assert zstandard.frame_content_size(bomb) == size
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for declared in (1000, FREE_SIZE):
        with pytest.raises(BombRefused):
            decoded(Encoding.ZSTD, declared, bomb)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100 << 10  # in KiB


def test_a_frame_that_wants_a_huge_window_is_refused():
    parameters = zstandard.ZstdCompressionParameters(window_log=27, compression_level=3)
    packer = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    frame = packer.compress(bytes(range(256)) * 1000) + packer.flush()
    assert zstandard.get_frame_parameters(frame).window_size == 128 << 20
    with pytest.raises(BombRefused, match="refused"):
        Decoder(Encoding.ZSTD, 256_000, lambda _: None).feed(frame)


def test_rubbish_is_refused():
    with pytest.raises(BombRefused):
        Decoder(Encoding.ZSTD, 100, lambda _: None).feed(b"not zstd at all")
    with pytest.raises(BombRefused):
        decoded(Encoding.ZSTD, 100, b"not zstd at all")


def test_a_stage_in_parts_stays_under_the_cap_of_a_message():
    entries = tuple(
        Entry(f"{'d' * 200}{number:06}/{'é' * 100}", Kind.FILE, bytes(32)) for number in range(9000)
    )
    parts = list(convert.change_to_pb(Change(entries, tuple(entry.path for entry in entries))))
    assert max(part.ByteSize() for part in parts) < 1 << 20
    assert (
        sum(len(part.upserts) for part in parts) == sum(len(part.deletes) for part in parts) == 9000
    )
    assert [part.last for part in parts] == [False] * (len(parts) - 1) + [True]
    assert len(entries) < MAX_ENTRIES
