"""Checkpoints: what they hold, that a file is whole or not there, which are kept, and memory."""

import collections
import enum
import io
import math
import os
import pickle
import random
import re
import signal
import subprocess
import sys
import textwrap
import weakref
import zipfile

import numpy as np
import pytest
import torch
from tests.support.disk import small_disk_in
from tests.support.interpreters import ROOT, SERVED, interpreters

from rdev.loop import Callback, Loop, State
from rdev.loop import checkpoint as checkpoints
from rdev.loop.archive import CheckpointError, read, sweep, write
from rdev.loop.callbacks.checkpoint import Checkpoint
from rdev.loop.plain import NotPlainError, clone, graft, pack, unpack

BODY = {"by": "rdev.loop", "format": 1}


# what is kept of objects


@pytest.mark.parametrize(
    "value",
    [
        {"a": (1, 2.5, None, True), "b": ["x", b"\0\xff", 2**100], 3: {}, (1, "k"): 0},
        {1, 2, "three"},
        frozenset({1}),
        complex(1, -2),
        bytearray(b"ab"),
        [math.inf, -0.0],
        np.float64(1.5),
        np.int32(7),
        torch.Size([1, 2]),
        torch.float16,
        torch.device("cpu"),
        collections.OrderedDict(b=1, a=2),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_plain_value_comes_back_from_a_file_as_it_was(tmp_path, value):
    path = str(tmp_path / "a")
    write(path, {**BODY, "value": pack(value)})
    back = graft(None, read(path)["value"])
    assert back == value
    assert type(back) is type(value)


@pytest.mark.parametrize("dtype", ["f2", "f8", ">i4", "?", "c16", "M8[s]", "S3", "U2"])
@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 3)])
def test_an_array_of_any_kind_comes_back_as_it_was(tmp_path, dtype, shape):
    array = np.arange(6).astype("i8").astype(dtype)[: math.prod(shape)].reshape(shape)
    path = str(tmp_path / "a")
    write(path, {**BODY, "value": pack(array.T)})
    back = unpack(read(path)["value"])
    assert (back.dtype, back.shape) == (array.dtype, array.T.shape)
    assert np.array_equal(back, array.T)


def test_what_was_held_elsewhere_is_filled_in_place():
    weights, rows, bias = np.zeros(3), [np.zeros(2), 1], torch.zeros(2, requires_grad=True)
    held = {"w": weights, "rows": rows, "bias": bias, "gone": 1}
    first = rows[0]
    saved = clone(pack({"w": np.ones(3), "rows": [np.full(2, 5.0), 2, 3], "bias": torch.ones(2)}))
    assert graft(held, saved) is held
    assert held["w"] is weights
    assert weights.tolist() == [1, 1, 1]
    assert held["rows"] is rows
    assert rows[0] is first
    assert (first.tolist(), rows[1:]) == ([5, 5], [2, 3])
    assert held["bias"] is bias
    assert bias.tolist() == [1, 1]
    assert "gone" not in held


def test_generators_draw_on_where_they_were():
    generators = {
        "python": random.Random(1),
        "numpy": np.random.default_rng(1),
        "torch": torch.Generator().manual_seed(1),
    }

    def draw():
        return (
            generators["python"].random(),
            generators["numpy"].random(),
            torch.rand(1, generator=generators["torch"]).item(),
        )

    draw()
    saved = clone(pack(generators))
    drawn = draw()
    graft(generators, saved)
    assert draw() == drawn


class Color(enum.Enum):
    RED = 1


def test_what_is_no_state_is_named_with_its_place():
    for value, where in (({"a": [1, Color.RED]}, r"x\['a'\]\[1\]"), (print, "x"), (Color, "x")):
        with pytest.raises(NotPlainError, match=f"^{where} is of the type "):
            pack(value, where="x")
    with pytest.raises(NotPlainError):
        pack(np.array([object()]))


class Ema:
    def __init__(self, state):
        self.state = state

    def state_dict(self):
        return self.state

    def load_state_dict(self, state):
        self.state = state


def test_objects_without_a_state_are_left_out_and_trained_ones_never_silently(tmp_path):
    path = str(tmp_path / "a.ckpt")
    state = State(model=torch.nn.Linear(1, 1), loss_of=print, pair=[torch.nn.Linear(1, 1), 3])
    checkpoints.save(state, path)
    body = read(path)
    assert (sorted(body["objects"]), body["left"]) == (["model", "pair"], ["loss_of"])
    with pytest.raises(CheckpointError, match=r"of 'ema': ema\.state_dict\(\)\['c'\] is of the"):
        checkpoints.save(State(ema=Ema({"c": Color.RED})), path)
    with pytest.raises(CheckpointError, match=r"of 'pair': pair\['f'\] is of the type builtins"):
        checkpoints.save(State(pair={"m": torch.nn.Linear(1, 1), "f": print}), path)


def test_weights_are_read_by_torch_alone(tmp_path):
    model = torch.nn.BatchNorm1d(2)
    path = checkpoints.save(State(model=model), str(tmp_path / "s-{step}-{epoch}.ckpt"))
    assert path == str(tmp_path / "s-0-0.ckpt")
    weights = torch.load(path, weights_only=True)["objects"]["model"]["state"]
    assert weights._metadata == model.state_dict()._metadata
    torch.nn.BatchNorm1d(2).load_state_dict(weights)


def test_load_gives_an_evaluation_the_weights_and_leaves_the_generators(tmp_path):
    state = State(model=torch.nn.Linear(2, 2), optimizer=Ema({"a": 1}))
    state.step, state.epoch = 7, 2
    path = checkpoints.save(state, str(tmp_path / "a.ckpt"))
    other = State(model=torch.nn.Linear(2, 2))
    before = torch.get_rng_state()
    checkpoints.load(path, other)
    assert torch.equal(other.model.weight, state.model.weight)
    assert (other.step, other.epoch) == (7, 2)
    assert torch.equal(torch.get_rng_state(), before)
    other.step = 9
    checkpoints.load(path, other)
    assert other.step == 9


# in memory


def test_a_snapshot_is_gone_back_to_as_often_as_one_likes():
    model = torch.nn.Linear(3, 1)
    state = State(model=model, optimizer=torch.optim.Adam(model.parameters()), w=np.zeros(2))

    def train():
        model.zero_grad()
        model(torch.randn(4, 3)).sum().backward()
        state.optimizer.step()
        state.w += 1
        return model.weight.tolist()

    train()
    snapshot = checkpoints.capture(state)
    trained = [train() for _ in range(3)]
    for _ in range(2):
        checkpoints.restore(state, snapshot)
        assert state.w.tolist() == [1, 1]
        assert [train() for _ in range(3)] == trained


def test_tensors_that_are_one_are_one_in_a_snapshot():
    shared = torch.zeros(3)
    copied = clone({"a": shared, "b": shared.detach(), "c": shared[1:]})
    assert copied["a"] is copied["b"]
    assert copied["a"].data_ptr() != shared.data_ptr()
    assert copied["c"].shape == (2,)


# files


def _cut(path):
    os.truncate(path, os.path.getsize(path) - 100)


def _flip(path):
    with open(path, "r+b") as file:
        file.seek(os.path.getsize(path) // 2)
        octet = file.read(1)
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([octet[0] ^ 1]))


def _empty(path):
    os.truncate(path, 0)


def _text(path):
    path.write_text("hello, this is no checkpoint at all")


def _foreign(path):
    torch.save({"model": torch.zeros(2)}, path)


def _evil(path):
    torch.save({"by": os.system}, path)


def _later(path):
    torch.save({"by": "rdev.loop", "format": 2}, path)


def _archive(path):
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("a", "b")


HARM = [
    (_cut, "it is cut short"),
    (_flip, "it is damaged: "),
    (_empty, "it is cut short"),
    (_text, "it is no checkpoint"),
    (_foreign, "a file of something else, not a checkpoint of rdev.loop"),
    (_evil, "it holds more than values and tensors, and is not loaded"),
    (_later, "its format is 2, this release reads 1"),
    (_archive, "it is damaged: "),
    (os.unlink, "No such file or directory"),
]


@pytest.mark.parametrize(("harm", "cause"), HARM, ids=[harm.__name__ for harm, _ in HARM])
def test_what_is_wrong_with_a_file_is_said_in_one_line(tmp_path, harm, cause):
    path = tmp_path / "a.ckpt"
    write(str(path), {**BODY, "weights": torch.randn(1000)})
    harm(path)
    with pytest.raises(CheckpointError) as caught:
        checkpoints.load(str(path), State())
    message = str(caught.value)
    assert message.startswith(f"unable to read the checkpoint {path}: ")
    assert cause in message
    assert "\n" not in message


NO_TORCH = """
    import os, pickle, sys
    from rdev.loop import Loop
    from rdev.loop.archive import CheckpointError, _HEAD, _SIZES, read
    from rdev.loop.callbacks.checkpoint import Checkpoint

    def step(state):
        state.weights.append(state.batch)

    def train(epochs, **how):
        Loop(step, range(3), epochs=epochs, callbacks=[Checkpoint("kept")], weights=weights).run(**how)

    weights = []
    train(2)
    weights = []
    train(3, resume="auto")
    assert weights == [0, 1, 2] * 3, weights
    assert "torch" not in sys.modules

    with open("kept/latest.ckpt", "rb") as file:
        whole = file.read()
    assert whole.startswith(b"rdev.loop checkpoint")

    def cause(content):
        with open("other", "wb") as file:
            file.write(content)
        try:
            read("other")
        except CheckpointError as error:
            return str(error).partition(": ")[2]

    assert cause(whole) is None
    assert cause(whole[:-5]) == cause(whole[:50]) == cause(b"") == "it is cut short"
    assert cause(whole[:-9] + bytes([whole[-9] ^ 1]) + whole[-8:]) == "it is damaged"
    import zlib
    evil = pickle.dumps({"by": os.system})
    evil = _HEAD + _SIZES.pack(len(evil), zlib.crc32(evil)) + evil
    assert cause(evil) == "it holds a posix.system, and is not loaded", cause(evil)
    assert cause(b"PK\\x03\\x04") == "it was written with torch; import torch before it is read"
    print("done")
"""


@pytest.mark.parametrize("version", SERVED)
def test_without_torch_the_standard_library_serves(tmp_path, version):
    python = interpreters().get(version)
    if python is None:
        pytest.skip(f"no Python {version} on this machine")
    environment = {"PYTHONPATH": str(ROOT / "agent"), "PATH": os.environ["PATH"]}
    command = [python, "-S", "-W", "error", "-c", textwrap.dedent(NO_TORCH)]
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "done\n", "")


def test_a_full_disk_leaves_the_old_file_and_the_training_goes_on(tmp_path, capsys):
    weights = {"w": torch.zeros(10)}

    def step(state):
        if state.step == 2:
            state.weights["w"] = torch.zeros(4_000_000)
        if state.step == 3:
            state.weights["w"] = torch.ones(10)

    with small_disk_in(tmp_path) as disk:
        keep = Checkpoint(str(disk), steps=1)
        state = Loop(step, range(2), callbacks=[keep], weights=weights).run()
        assert state.step == 2
        assert sorted(os.listdir(disk)) == ["latest.ckpt", "step-1.ckpt"]
        assert read(str(disk / "latest.ckpt"))["step"] == 1
        told = capsys.readouterr().err
        line = f"rdev: unable to write the checkpoint {disk}/step-2.ckpt: No space left on device;"
        assert set(told.splitlines()) == {f"{line} the training goes on"}
        Loop(step, range(3), callbacks=[keep], weights=weights).run(resume="auto")
        assert sorted(os.listdir(disk)) == ["latest.ckpt", "step-3.ckpt"]


def test_a_folder_that_cannot_be_made_is_said_in_one_line(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(CheckpointError, match=r"unable to write the checkpoint .*x: \w[^\n]*$"):
        write(str(tmp_path / "file" / "x"), BODY)


KILLED = """
    import os, signal, sys
    from rdev.loop import archive
    real = os.fsync
    def fsync(file):
        real(file)
        os.kill(os.getpid(), signal.SIGKILL)
    archive.write(sys.argv[1], {"by": "rdev.loop", "format": 1, "n": 1})
    os.fsync = fsync
    archive.write(sys.argv[1], {"by": "rdev.loop", "format": 1, "n": 2})
"""


def test_a_writer_that_is_killed_leaves_the_old_file_and_what_it_left_is_swept(tmp_path):
    path = tmp_path / "a.ckpt"
    environment = {"PYTHONPATH": str(ROOT / "agent")}
    command = [sys.executable, "-c", textwrap.dedent(KILLED), path]
    assert subprocess.run(command, env=environment, check=False).returncode == -signal.SIGKILL
    assert read(str(path))["n"] == 1
    assert len(os.listdir(tmp_path)) == 2
    sweep(str(tmp_path))
    assert os.listdir(tmp_path) == ["a.ckpt"]


# which are kept


def idle(state):
    """A step that does nothing."""


def train(callback, *, steps=10, losses=None, data=range(4), step=None, resume=None, **objects):
    def made(state):
        return losses[state.step - 1] if losses else 1.0

    loop = Loop(step or made, data, epochs=None, steps=steps, callbacks=[callback], **objects)
    return loop.run(resume=resume)


def steps_in(folder):
    found = (re.fullmatch(r"step-(\d+)\.ckpt", name) for name in os.listdir(folder))
    return sorted(int(match[1]) for match in found if match)


def test_the_latest_are_kept_and_the_best_besides(tmp_path):
    losses = [9, 1, 8, math.nan, 2, 7, 6, 5, 4, 3]
    train(Checkpoint(str(tmp_path), steps=1, keep=2, best=2), losses=losses)
    assert steps_in(tmp_path) == [2, 5, 9, 10]
    assert os.readlink(tmp_path / "best.ckpt") == "step-2.ckpt"
    assert os.readlink(tmp_path / "latest.ckpt") == "step-10.ckpt"
    highest = Checkpoint(str(tmp_path / "max"), steps=1, best=1, mode="max")
    train(highest, losses=losses)
    assert steps_in(tmp_path / "max") == [1, 10]


def test_a_run_that_goes_on_keeps_and_judges_what_the_earlier_kept(tmp_path):
    losses = [5, 1, 9, 9, 9, 9, 9, 9, 2, 9]
    train(Checkpoint(str(tmp_path), steps=1, keep=1, best=2), losses=losses, steps=5)
    assert steps_in(tmp_path) == [1, 2, 5]
    again = Checkpoint(str(tmp_path), steps=1, keep=1, best=2)
    train(again, losses=losses, resume="auto")
    assert steps_in(tmp_path) == [2, 9, 10]


def test_a_run_begun_anew_leaves_the_files_of_another_and_is_the_latest(tmp_path):
    train(Checkpoint(str(tmp_path), steps=3))
    train(Checkpoint(str(tmp_path), steps=2), steps=4)
    assert steps_in(tmp_path) == [4, 10]
    assert train(Checkpoint(str(tmp_path)), steps=4, resume="auto").step == 4
    os.unlink(tmp_path / "latest.ckpt")
    os.utime(tmp_path / "step-10.ckpt")
    assert train(Checkpoint(str(tmp_path)), steps=1, resume=tmp_path).step == 10


def test_minutes_are_those_in_which_the_training_was_not_held(tmp_path, monkeypatch):
    now = [0.0]
    monkeypatch.setattr("rdev.loop.callbacks.checkpoint.active_monotonic", lambda: now[0])

    def step(state):
        now[0] += 25

    train(Checkpoint(str(tmp_path), minutes=1, keep=None, at_end=False), step=step)
    assert steps_in(tmp_path) == [3, 6, 9]


def test_the_end_of_an_epoch_is_judged_by_what_was_logged_at_it(tmp_path):
    class Validate(Callback):
        def epoch_end(self, state):
            state.metrics["accuracy"] = [0, 0.9, 0.5, 0.1][state.epoch]

    keep = Checkpoint(str(tmp_path), best=1, metric="accuracy", mode="max")
    Loop(idle, range(3), epochs=3, callbacks=[keep, Validate()]).run()
    assert steps_in(tmp_path) == [3, 9]


def test_a_run_that_fails_may_leave_its_state_and_nobody_goes_on_from_it(tmp_path):
    def step(state):
        if state.step == 3:
            raise RuntimeError("no")

    with pytest.raises(RuntimeError, match="no"):
        train(Checkpoint(str(tmp_path), steps=2, at_exception=True), step=step, w=[1])
    assert sorted(os.listdir(tmp_path)) == ["exception-3.ckpt", "latest.ckpt", "step-2.ckpt"]
    failed = str(tmp_path / "exception-3.ckpt")
    with pytest.raises(CheckpointError, match="within a step that failed; `load` reads its"):
        train(Checkpoint(str(tmp_path)), resume=failed, w=[2])
    state = State(w=[2])
    checkpoints.load(failed, state)
    assert state.w == [1]


def test_one_that_a_person_asks_for_is_the_latest_and_stays(tmp_path):
    class Ask(Callback):
        def step_end(self, state):
            if state.step == 3:
                assert checkpoints.save(state) == str(tmp_path / "step-3.ckpt")
                assert os.readlink(tmp_path / "latest.ckpt") == "step-3.ckpt"

    Loop(idle, range(9), callbacks=[Checkpoint(str(tmp_path), steps=2), Ask()]).run()
    assert steps_in(tmp_path) == [3, 9]


def test_without_a_callback_one_lies_below_the_working_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    asked, told = [], []

    class Ask(Callback):
        def step_end(self, state):
            asked.append(checkpoints.save(state))

        def checkpoint_saved(self, state, path):
            told.append((state.step, path))

    Loop(idle, range(1), callbacks=[Ask()]).run()
    assert asked == [str(tmp_path / "checkpoints" / "step-1.ckpt")]
    assert told == [(1, asked[0])]
    assert Loop(idle, range(1), epochs=2).run(resume="checkpoints").step == 2


def test_what_cannot_be_kept_is_said_before_the_first_step(tmp_path):
    with pytest.raises(CheckpointError, match="unable to keep the state of 'ema'"):
        train(Checkpoint(str(tmp_path)), ema=Ema({"c": Color.RED}), step=idle)
    state = train(Checkpoint(str(tmp_path), leave=["ema"]), ema=Ema({"c": Color.RED}))
    assert state.step == 10
    train(Checkpoint(str(tmp_path), leave=["ema"]), steps=11, resume="auto", ema=Ema({}))


def test_auto_is_a_new_run_as_long_as_there_is_nothing_and_refused_without_a_folder(tmp_path):
    assert train(Checkpoint(str(tmp_path / "new")), resume="auto").step == 10
    with pytest.raises(CheckpointError, match="needs a `Checkpoint` among the callbacks"):
        train(Callback(), resume="auto")
    with pytest.raises(CheckpointError, match="it has no whole checkpoint"):
        train(Callback(), resume=tmp_path)


def test_periods_and_modes_that_nobody_can_mean_are_refused():
    for wrong in ({"steps": 0}, {"minutes": -1}, {"keep": 0}, {"mode": "best"}):
        with pytest.raises(ValueError, match=r"more than nothing|mode is"):
            Checkpoint(**wrong)


def test_a_foreign_pickle_never_runs(tmp_path):
    class Evil:
        def __reduce__(self):
            return (os.mkdir, (str(tmp_path / "evil"),))

    path = tmp_path / "a.ckpt"
    for content in (pickle.dumps(Evil()), _torch_of(Evil())):
        path.write_bytes(content)
        with pytest.raises(CheckpointError):
            read(str(path))
    assert not (tmp_path / "evil").exists()


def _torch_of(value):
    file = io.BytesIO()
    torch.save({"by": value}, file)
    return file.getvalue()


def test_a_state_that_is_kept_keeps_no_loader_alive():
    class Batches(list):
        """Something that a weak reference can lead to."""

    data = Batches([1, 2])
    seen = weakref.ref(data)
    state = train(Callback(), data=data, steps=2)
    del data
    assert state.step == 2
    assert seen() is None
