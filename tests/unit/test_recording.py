"""TensorBoard files, CSV rows: what callbacks write down, as its readers see it."""

import contextlib
import csv
import math
import resource
import signal
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rdev.loop import Callback, Loop, log
from rdev.loop.callbacks import Checkpoint, Csv, TensorBoard
from rdev.wire import tfevents
from rdev.wire.appending import Appender


class Evaluation(Callback):
    """Logs as an evaluation at the end of each epoch does."""

    def epoch_end(self, state):
        log(accuracy=state.epoch / 10)


def two_phases(state):
    yield "critic", 1 / state.step
    if state.step % 3 == 0:
        yield "generator", {"loss": 2.0, "norm": 3.0}


def read(folder):
    """(step, value) by tag, as TensorBoard itself reads a folder."""
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    events = accumulator.EventAccumulator(str(folder), {"scalars": 0})
    events.Reload()
    return {
        tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]
    }


def rows(path):
    return list(csv.DictReader(path.read_text().splitlines()))


def test_tensorboard_reads_what_a_run_has_written(tmp_path):
    began = time.time()
    callbacks = [TensorBoard(str(tmp_path), every=1), Evaluation()]
    Loop(two_phases, range(6), epochs=2, callbacks=callbacks).run()
    seen = read(tmp_path)
    assert [step for step, _ in seen["critic/loss"]] == list(range(1, 13))
    assert seen["critic/loss"][3][1] == 0.25
    assert seen["generator/norm"] == [(step, 3.0) for step in (3, 6, 9, 12)]
    assert seen["accuracy"] == [(6, pytest.approx(0.1)), (12, pytest.approx(0.2))]
    (file,) = tmp_path.iterdir()
    assert began - 1 <= float(file.name.split(".")[3]) <= time.time()


def test_of_every_tenth_step_the_first_and_the_last_are_there_too(tmp_path):
    def step(state):
        if state.step == 17:
            log(once=1.0)
        return float(state.step)

    Loop(step, range(25), callbacks=[TensorBoard(str(tmp_path), every=10)]).run()
    assert read(tmp_path) == {
        "loss": [(n, float(n)) for n in (1, 10, 20, 25)],
        "once": [(17, 1.0)],
    }


def test_values_that_are_not_finite_or_too_large_are_written_as_such(tmp_path):
    values = [math.nan, math.inf, -1e300]
    Loop(lambda s: values[s.batch], range(3), callbacks=[TensorBoard(str(tmp_path), every=1)]).run()
    nan, inf, huge = [value for _, value in read(tmp_path)["loss"]]
    assert (math.isnan(nan), inf, huge) == (True, math.inf, -math.inf)


def test_ten_thousand_scalars_cost_little(tmp_path):
    callbacks = [TensorBoard(str(tmp_path), every=1)]
    began = time.process_time()
    Loop(lambda _: 1.0, range(10_000), callbacks=callbacks).run()
    assert time.process_time() - began < 0.5
    assert len(read(tmp_path)["loss"]) == 10_000


@given(st.binary(max_size=64))
def test_the_check_is_that_of_the_file_format(data):
    crc = pytest.importorskip("tensorboard.compat.tensorflow_stub.pywrap_tensorflow")
    assert tfevents.crc32c(data) == crc.crc32c(data)


def test_after_a_resume_tensorboard_has_each_step_once(tmp_path):
    for purge, steps in ((None, range(1, 11)), (6, range(6, 15))):
        file = tfevents.EventFile(str(tmp_path), purge=purge)
        for step in steps:
            file.write(step, {"loss": float(step + (purge or 0))}, wall_time=time.time())
        file.close()
    assert read(tmp_path)["loss"] == [(n, float(n if n < 6 else n + 6)) for n in range(1, 15)]


@pytest.fixture
def full_disk():
    """A function that sets how long a file may become, as a disk that is full would."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size or before[0], before[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
    signal.signal(signal.SIGXFSZ, handler)


def test_a_full_disk_is_told_once_and_its_records_are_written_when_there_is_room(
    tmp_path, full_disk, capfd, monkeypatch
):
    monkeypatch.setattr("rdev.loop.callbacks.recording.FLUSH_SECONDS", 0.0)

    def step(state):
        if state.step == 10:
            full_disk(300)
        if state.step == 90:
            full_disk(None)
        return float(state.step)

    Loop(step, range(100), callbacks=[TensorBoard(str(tmp_path), every=1)]).run()
    assert read(tmp_path)["loss"] == [(n, float(n)) for n in range(1, 101)]
    assert capfd.readouterr().err.count("unable to write TensorBoard's file in") == 1


def test_a_folder_that_cannot_be_made_ends_no_training(tmp_path, capfd):
    (tmp_path / "taken").touch()
    callbacks = [TensorBoard(str(tmp_path / "taken")), Csv(str(tmp_path / "taken" / "a.csv"))]
    state = Loop(lambda _: 1.0, range(50), callbacks=callbacks).run()
    assert state.step == 50
    told = capfd.readouterr().err.splitlines()
    assert [line.split(":")[:2] for line in told] == [
        ["rdev.loop", f" unable to open TensorBoard's file in {tmp_path}/taken"],
        ["rdev.loop", f" unable to open {tmp_path}/taken/a.csv"],
    ]


def test_what_no_room_in_memory_is_for_is_dropped_whole(tmp_path, full_disk):
    file = Appender(str(tmp_path / "log"))
    full_disk(100)
    pieces = 0
    while not file.dropped:
        with contextlib.suppress(OSError):
            file.add(b"x" * 65_535 + b"\n")
        pieces += 1
    full_disk(None)
    file.close()
    assert (tmp_path / "log").read_bytes() == (b"x" * 65_535 + b"\n") * (pieces - 1)


def test_a_csv_has_a_row_a_step_and_a_column_a_metric(tmp_path):
    path = tmp_path / "out" / "metrics.csv"
    Loop(lambda s: s.step / 4, range(3), epochs=2, callbacks=[Csv(str(path)), Evaluation()]).run()
    found = rows(path)
    assert list(found[0]) == ["time", "step", "epoch", "phase", "loss", "accuracy"]
    assert [row["step"] for row in found] == list("123456")
    assert [row["loss"] for row in found] == ["0.25", "0.5", "0.75", "1.0", "1.25", "1.5"]
    assert [row["accuracy"] for row in found] == ["", "", "0.1", "", "", "0.2"]


def test_each_phase_has_a_row_of_its_own(tmp_path):
    path = tmp_path / "metrics.csv"
    Loop(two_phases, range(3), callbacks=[Csv(str(path))]).run()
    found = [(row["step"], row["phase"], row["loss"], row["norm"]) for row in rows(path)]
    assert found[2:] == [("3", "critic", repr(1 / 3), ""), ("3", "generator", "2.0", "3.0")]


def test_metrics_with_the_names_of_columns_and_commas_are_told_apart(tmp_path):
    path = tmp_path / "metrics.csv"
    Loop(lambda _: {"step": 7.0, "a,b": 1.0}, range(1), callbacks=[Csv(str(path))]).run()
    (row,) = rows(path)
    assert (row["step"], row["step_"], row["a,b"]) == ("1", "7.0", "1.0")


def test_a_run_that_failed_and_was_resumed_has_each_step_once(tmp_path):
    path, board = tmp_path / "metrics.csv", tmp_path / "board"

    def run(step, **options):
        recording = [Csv(str(path)), TensorBoard(str(board), every=1)]
        kept = Checkpoint(str(tmp_path / "kept"), steps=4, at_end=False)
        return Loop(step, range(8), epochs=2, callbacks=[*recording, kept]).run(**options)

    def fails(state):
        if state.step == 11:
            raise RuntimeError("power")
        return float(state.step)

    with pytest.raises(RuntimeError, match="power"):
        run(fails)
    path.write_text(path.read_text() + "1.0,12,1,,9")  # torn by a crash
    run(lambda state: {"loss": -float(state.step), "lr": 0.5}, resume="auto")
    found = [(row["step"], row["loss"], row["lr"]) for row in rows(path)]
    assert found[:8] == [(str(n), f"{n}.0", "") for n in range(1, 9)]
    assert found[8:] == [(str(n), f"-{n}.0", "0.5") for n in range(9, 17)]
    steps = [step for step, _ in read(board)["loss"]]
    assert steps == list(range(1, 17))
    assert dict(read(board)["loss"])[9] == -9.0


def test_a_run_from_the_beginning_keeps_the_rows_of_the_earlier(tmp_path):
    path = tmp_path / "metrics.csv"
    for value in (1.0, 2.0, 3.0):
        Loop(lambda _, value=value: value, range(1), callbacks=[Csv(str(path))]).run()
    kept = [tmp_path / name for name in ("metrics-1.csv", "metrics-2.csv", "metrics.csv")]
    assert [rows(one)[0]["loss"] for one in kept] == ["1.0", "2.0", "3.0"]


@pytest.mark.parametrize("every_rank", [False, True])
def test_other_ranks_write_only_if_asked_and_then_elsewhere(tmp_path, monkeypatch, every_rank):
    monkeypatch.setenv("RANK", "1")
    callbacks = [
        Csv(str(tmp_path / "a.csv"), every_rank=every_rank),
        TensorBoard(str(tmp_path / "tb"), every_rank=every_rank),
    ]
    Loop(lambda _: 1.0, range(2), callbacks=callbacks).run()
    written = {
        str(p.relative_to(tmp_path))
        for p in tmp_path.rglob("*")
        if p.suffix == ".csv" or p.is_dir()
    }
    assert written == ({"a-rank-1.csv", "tb", "tb/rank-1"} if every_rank else set())
