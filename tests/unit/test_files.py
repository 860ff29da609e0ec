"""The files of a job's directory: whole or not at all, exact, readable by the next release."""

import errno
import json
import os
import resource
from dataclasses import replace

import pytest

from rdev.wire.blocks import Block, FilesError, read_block, read_file, reserve_block, write_file
from rdev.wire.files import SMALL_SLOT, STATE_SLOT, JobFiles, output_size
from rdev.wire.job import (
    Attempt,
    CommandKind,
    DebugStop,
    Gpu,
    GpuRequest,
    JobSpec,
    JobState,
    LogFull,
    Reason,
    Stream,
    Usage,
    Window,
)
from rdev.wire.output import (
    APPROXIMATE,
    ARRIVAL_SIZE,
    GAP_SLOTS,
    Arrival,
    Gap,
    GapTable,
    merged_arrivals,
    read_gaps,
    reserve_gaps,
    unpack_arrivals,
)
from rdev.wire.records import (
    Accepted,
    Exit,
    Launch,
    Started,
    Status,
    job_of,
    spec_from_json,
    spec_to_json,
)

SPEC = JobSpec(
    CommandKind.SCRIPT,
    "train.py",
    ("--lr", "0.1"),
    name="train",
    workspace_id="w1",
    snapshot="ab" * 32,
    environment={"A": "ü"},
    timeout=3.5,
    hook=False,
    terminal=Window(50, 100),
    gpus=GpuRequest(devices=("0", "GPU-1")),
)
ATTEMPT = Attempt(1, Reason.EXITED, 3, ends=(Stream(0, "stdout", 7),))
STOP = DebugStop(0, 77, "/w/a.py", 7, "f", "breakpoint", 2.0)


def through_json(value):
    return type(value).from_json(json.loads(json.dumps(value.to_json())))


EVERY_RECORD = pytest.mark.parametrize(
    "value",
    [
        Accepted("0" * 12, "train", "r1", 1.5, "boot", SPEC, ("python3", "train.py"), "/w"),
        Launch("0" * 12, ("a", "b"), {"A": "1"}, "/w", 0o22, 10.0, None),
        Launch("0" * 12, ("a",), {}, "/", 0, 1.0, 2.0, Window(1, 2), log_full=LogFull.BLOCK),
        Launch("0" * 12, ("a",), {}, "/", 0, 1.0, None, limits={"nofile": (1, 2)}, cpus=(0, 3)),
        Started(1, 2, 3.0, 4.0),
        Exit(256, 1.0, errno.ENOENT, "unable", 2, Usage(1.0, 2.0, 3), 1),
        Status(attempt=2, attempts=(ATTEMPT,), usage=Usage(1.0), gpus=(Gpu(0, "GPU-1"),)),
        Status(JobState.STOPPING, stops=(STOP,), stop_reason=Reason.TIMEOUT, signals=(2, 15)),
        Status(JobState.FAILED, Reason.SIGNALED, 137, 9, revision=7),
    ],
    ids=lambda value: type(value).__name__,
)


@EVERY_RECORD
def test_what_is_written_is_what_is_read(value):
    assert through_json(value) == value


def with_moods(body):
    """As a later release may write it: something new in every object, however deep."""
    if isinstance(body, list):
        return [with_moods(item) for item in body]
    if not isinstance(body, dict):
        return body
    # The variables of an environment have the names that people give them, limits the kernel's.
    are_named = ("environment", "limits")
    inner = {k: v if k in are_named else with_moods(v) for k, v in body.items()}
    return {**inner, "mood": {"fine": 8}}


@EVERY_RECORD
def test_a_later_releases_keys_are_left_out(value):
    assert type(value).from_json(with_moods(value.to_json())) == value


def test_a_later_releases_keys_of_a_specification_are_left_out():
    assert spec_from_json(with_moods(spec_to_json(SPEC))) == SPEC


def test_a_job_is_the_sum_of_its_files():
    accepted = Accepted("0" * 12, "train", "r1", 1.5, "boot", SPEC, ("python3",), "/w")
    status = Status(JobState.SUCCEEDED, Reason.EXITED, 0, pid=5, started=2.0, ended=3.0)
    job = job_of(accepted, status, (Stream(0, "stdout", 9),))
    assert (job.id, job.spec, job.state, job.exit_code) == ("0" * 12, SPEC, JobState.SUCCEEDED, 0)
    assert (job.created, job.started, job.ended, job.pid) == (1.5, 2.0, 3.0, 5)
    assert (job.streams[0].size, job.directory) == (9, "/w")


def test_a_file_is_private_and_replaced_whole(tmp_path):
    path = str(tmp_path / "a.json")
    write_file(path, {"a": 1})
    write_file(path, {"a": 2})
    assert read_file(path)["a"] == 2
    assert os.stat(path).st_mode & 0o777 == 0o600
    assert os.listdir(tmp_path) == ["a.json"]


@pytest.mark.parametrize("content", ["", "{", "[]", '{"a": 1}', '{"format": 99}'])
def test_a_file_of_no_known_format_is_refused(tmp_path, content):
    path = tmp_path / "a.json"
    path.write_text(content)
    with pytest.raises(FilesError):
        read_file(str(path))


@pytest.fixture
def block_path(tmp_path):
    path = str(tmp_path / "block")
    reserve_block(path, SMALL_SLOT)
    return path


def test_an_empty_block_says_nothing(block_path):
    assert read_block(block_path) is None


def test_a_block_is_its_latest_record_and_never_grows(block_path):
    size = os.stat(block_path).st_size
    for number in range(5):
        block = Block(block_path)  # each write by another process
        block.write({"n": number})
        block.close()
        assert read_block(block_path)["n"] == number
    assert os.stat(block_path).st_size == size


@pytest.mark.parametrize("cut", [1, 9, 20, 40])
def test_a_torn_write_leaves_the_record_before_it(block_path, cut):
    block = Block(block_path)
    block.write({"n": 1})
    block.write({"n": 2, "text": "x" * 30})
    block.close()
    with open(block_path, "rb+") as file:  # the second record lies in the first slot
        record = file.read(SMALL_SLOT)
        assert b'"n": 2' in record
        file.seek(cut)
        file.write(b"#" * (SMALL_SLOT - cut))
    assert read_block(block_path)["n"] == 1
    block = Block(block_path)
    block.write({"n": 3})
    block.close()
    assert read_block(block_path)["n"] == 3


def test_a_record_that_does_not_fit_is_refused_and_the_old_one_stays(block_path):
    block = Block(block_path)
    block.write({"n": 1})
    with pytest.raises(FilesError):
        block.write({"text": "x" * SMALL_SLOT})
    block.close()
    assert read_block(block_path)["n"] == 1


def test_a_record_that_a_limit_cuts_is_an_error_and_the_old_one_stays(block_path):
    block = Block(block_path)
    block.write({"n": 1})
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20, hard))
    try:
        for _ in range(2):
            with pytest.raises(OSError, match="too large"):
                block.write({"n": 2})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert read_block(block_path)["n"] == 1
    block.write({"n": 3})
    assert read_block(block_path)["n"] == 3
    block.close()


def test_a_status_with_many_stops_fits_in_its_block(tmp_path):
    path = str(tmp_path / "state")
    reserve_block(path, STATE_SLOT)
    status = Status(
        JobState.RUNNING, stops=(replace(STOP, file="ü" * 200, function="ü" * 200),) * 20
    )
    block = Block(path)
    block.write(status.to_json())
    block.close()
    assert Status.from_json(read_block(path)) == status


def test_a_torn_record_at_the_end_of_the_index_is_left_out():
    arrivals = [Arrival(10, 0, 5, 0, "stdout"), Arrival(11, 5, 7, 3, "stderr", APPROXIMATE)]
    content = b"".join(arrival.pack() for arrival in arrivals)
    assert len(content) == 2 * ARRIVAL_SIZE
    assert list(unpack_arrivals(content + b"torn")) == arrivals


def test_arrivals_that_follow_one_another_are_read_as_one():
    parts = [
        Arrival(1, 0, 5, 0, "stdout"),
        Arrival(2, 5, 5, 0, "stdout"),
        Arrival(3, 0, 1, 0, "stderr"),
        Arrival(4, 10, 5, 0, "stdout"),
        Arrival(5, 20, 5, 0, "stdout"),  # 15 to 20 is missing: a gap, or a lost record
        Arrival(6, 25, 90, 0, "stdout"),
        Arrival(7, 115, 90, 0, "stdout"),
    ]
    merged = merged_arrivals(b"".join(part.pack() for part in parts), at_most=100)
    assert [(a.stream, a.offset, a.length, a.time_ns) for a in merged] == [
        ("stdout", 0, 10, 2),
        ("stderr", 0, 1, 3),
        ("stdout", 10, 5, 4),
        ("stdout", 20, 95, 6),
        ("stdout", 115, 90, 7),
    ]


@pytest.fixture
def gaps_path(tmp_path):
    path = str(tmp_path / "gaps")
    reserve_gaps(path)
    return path


def test_a_gap_grows_in_place_and_another_begins_after_data(gaps_path):
    table = GapTable(gaps_path)
    table.add(100, 10, error=errno.ENOSPC)
    table.add(110, 5, error=errno.ENOSPC)
    table.add(200, 1, error=errno.EDQUOT)
    table.close()
    wanted = [Gap(100, 15, errno.ENOSPC), Gap(200, 1, errno.EDQUOT)]
    assert read_gaps(gaps_path) == wanted
    again = GapTable(gaps_path)  # by the supervisor that comes after
    assert (again.gaps, again.end) == (wanted, 201)
    again.close()


def test_an_empty_table_of_gaps_is_not_read_to_its_end(gaps_path):
    def read_so_far():
        with open("/proc/thread-self/io", encoding="ascii") as file:
            return int(file.readline().removeprefix("rchar: "))

    before = read_so_far()
    assert read_gaps(gaps_path) == []
    assert read_so_far() - before < 1000


def test_a_damaged_gap_ends_the_list(gaps_path):
    table = GapTable(gaps_path)
    table.add(0, 1, error=errno.ENOSPC)
    table.add(9, 1, error=errno.ENOSPC)
    table.close()
    with open(gaps_path, "rb+") as file:
        file.seek(32 + 8)
        file.write(b"\x07")
    assert read_gaps(gaps_path) == [Gap(0, 1, errno.ENOSPC)]


def test_a_full_table_of_gaps_stays_exact(gaps_path):
    size = os.stat(gaps_path).st_size
    table = GapTable(gaps_path)
    for number in range(GAP_SLOTS):
        assert not table.is_full
        table.add(10 * number, 1, error=errno.ENOSPC)
    assert table.is_full
    table.add(table.end, 1000, error=errno.ENOSPC)
    table.close()
    assert read_gaps(gaps_path)[-1].length == 1001
    assert os.stat(gaps_path).st_size == size


def test_the_outputs_of_a_job_and_their_sizes(tmp_path):
    files = JobFiles(str(tmp_path))
    assert files.outputs() == []
    os.mkdir(tmp_path / "logs")
    for name in ("1.stderr", "0.stderr", "0.stdout", "0.stdout.gaps", "index"):
        (tmp_path / "logs" / name).write_bytes(b"abc")
    assert files.outputs() == [(0, "stdout"), (0, "stderr"), (1, "stderr")]
    os.unlink(files.gaps(0, "stdout"))
    reserve_gaps(files.gaps(0, "stdout"))
    assert output_size(files, 0, "stdout") == 3
    table = GapTable(files.gaps(0, "stdout"))
    table.add(3, 40, error=errno.ENOSPC)
    table.close()
    assert output_size(files, 0, "stdout") == 43


def test_a_gap_that_cannot_be_recorded_now_is_recorded_with_the_next_one(tmp_path):
    path = str(tmp_path / "gaps")
    reserve_gaps(path)
    table = GapTable(path)
    kept = os.dup(table._file)
    with open("/dev/full", "wb") as full:
        os.dup2(full.fileno(), table._file)
        table.add(10, 5, error=errno.ENOSPC)
        table.add(15, 5, error=errno.ENOSPC)
        table.add(30, 1, error=errno.ENOSPC)
        assert read_gaps(path) == []
        assert [(gap.offset, gap.length) for gap in table.gaps] == [(10, 10), (30, 1)]
        os.dup2(kept, table._file)
        os.close(kept)
    table.add(31, 1, error=errno.ENOSPC)
    table.close()
    assert [(gap.offset, gap.length) for gap in read_gaps(path)] == [(10, 10), (30, 2)]
