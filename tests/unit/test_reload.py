"""Edited code taken into a running process: what changes, what stays, and what is refused."""

import importlib
import os
import subprocess
import sys
import textwrap

import pytest
from tests.support.interpreters import ROOT, SERVED, interpreters

from rdev.loop.reload import reload
from rdev.loop.setting import Refused

BEFORE = """
    import functools

    RATE = 1
    calls = []
    calls.append("top")

    def loss(x, scale=1):
        return x * scale

    def outer(offset):
        def inner(x):
            return x + offset
        return inner

    def twice(function):
        @functools.wraps(function)
        def wrapped(x):
            return 2 * function(x)
        return wrapped

    @twice
    def decorated(x):
        return x

    class Model:
        size = 3

        def __init__(self):
            self.weights = [1.0]

        def forward(self, x):
            return x * self.weights[0]

        @staticmethod
        def kind():
            return "old"

        @property
        def shape(self):
            return (1,)

    class Child(Model):
        def forward(self, x):
            return super().forward(x) + 1
"""


@pytest.fixture
def edited(tmp_path, monkeypatch):
    """Writes the module anew, with replacements."""
    path = tmp_path / "trained_here.py"
    text = textwrap.dedent(BEFORE)
    path.write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    module = importlib.import_module("trained_here")

    def edit(*pairs, more=""):
        now = text
        for old, new in pairs:
            assert old in now
            now = now.replace(old, new)
        path.write_text(now + textwrap.dedent(more))
        return module

    yield edit
    del sys.modules["trained_here"]


def test_whoever_holds_a_function_runs_its_new_code(edited):
    module = edited(("x * scale", "x * scale + 100"), ("scale=1", "scale=2"))
    held, model = module.loss, module.Model()
    bound = model.forward
    assert reload("trained_here") == {"changed": ["loss"], "added": [], "left": []}
    assert held is module.loss
    assert held(1) == 102
    assert bound(2) == 2
    assert module.calls == ["top"]  # the top level was not run again


def test_methods_of_every_kind_change_and_objects_keep_what_they_hold(edited):
    module = edited(
        ("return x * self.weights[0]", "return -x * self.weights[0]"),
        ('"old"', '"new"'),
        ("return (1,)", "return (2,)"),
        ("super().forward(x) + 1", "super().forward(x) + 2"),
        ("return x + offset", "return x - offset"),
    )
    model, child, inner = module.Model(), module.Child(), module.outer(1)
    model.weights[0] = 5.0
    changed = reload("trained_here")["changed"]
    assert set(changed) == {"Model.forward", "Model.kind", "Model.shape", "Child.forward", "outer"}
    assert (model.forward(2), model.kind(), model.shape) == (-10.0, "new", (2,))
    assert child.forward(1) == 1.0
    assert inner(1) == 0  # made before
    assert module.outer(1)(1) == 0


def test_a_decorated_function_changes_within_its_decoration(edited):
    module = edited(("def decorated(x):\n    return x", "def decorated(x):\n    return x + 1"))
    held = module.decorated
    assert reload("trained_here")["changed"] == ["decorated"]
    assert held(1) == 4


def test_what_is_new_is_added_and_sees_the_modules_own_names(edited):
    module = edited(
        (
            "    def forward(self, x):\n        return x *",
            "    def extra(self):\n        return loss(2) + RATE\n\n    def forward(self, x):\n        return x *",
        ),
        more="""
            import math
            LIMIT = 7
            def fresh():
                calls.append("fresh")
                return math.floor(LIMIT + 0.5)
        """,
    )
    model = module.Model()
    found = reload("trained_here")
    assert set(found["added"]) == {"Model.extra", "math", "LIMIT", "fresh"}
    assert module.fresh() == 7
    assert module.calls == ["top", "fresh"]
    module.RATE = 10
    assert model.extra() == 12


def test_a_constant_that_differs_stays_and_is_named(edited):
    module = edited(("RATE = 1", "RATE = 2"))
    assert reload("trained_here") == {"changed": [], "added": [], "left": ["RATE"]}
    assert module.RATE == 1


def test_lines_that_only_move_change_nothing_and_are_followed(edited):
    module = edited(("def loss(", "\n\n\ndef loss("))
    line = module.loss.__code__.co_firstlineno
    assert reload("trained_here")["changed"] == []
    assert module.loss.__code__.co_firstlineno == line + 3


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("return x * scale", "return x *", "invalid syntax"),
        ("def loss(x, scale=1)", "def loss(x, scale=unknown)", "NameError"),
    ],
)
def test_all_of_it_is_taken_or_nothing(edited, old, new, words):
    module = edited((old, new), ('"old"', '"new"'))
    with pytest.raises(Refused, match=words):
        reload("trained_here")
    assert module.loss(3) == 3
    assert module.Model.kind() == "old"


def test_a_file_names_its_module_and_what_is_not_there_is_refused(edited, tmp_path):
    edited(("x * scale", "x * scale + 1"))
    assert reload(str(tmp_path / "trained_here.py"))["changed"] == ["loss"]
    with pytest.raises(Refused, match="no module"):
        reload("nowhere")
    with pytest.raises(Refused, match="no module"):
        reload("rdev.loop.reload")


def test_a_function_that_another_one_made_runs_its_new_code_with_the_variables_it_has(edited):
    module = edited(("return x + offset", "return x * 100 + offset"))
    held = module.outer(7)
    assert held(1) == 8
    assert reload("trained_here")["changed"] == ["outer"]
    assert held(1) == 107


def test_a_function_that_would_take_one_variable_for_another_is_refused_and_nothing_changes(edited):
    module = edited(
        ("def outer(offset):", "def outer(offset, other=3):"),
        ("return x + offset", "return x + other"),
        ("return x * scale", "return x * scale + 1"),
    )
    held = module.outer(7)
    with pytest.raises(Refused, match="other variables"):
        reload("trained_here")
    assert (held(1), module.loss(1)) == (8, 1)


def test_a_program_is_known_by_the_name_that_it_was_started_by(edited, monkeypatch):
    module = edited(("x * scale", "x * scale + 100"))
    monkeypatch.setitem(sys.modules, "__main__", module)
    monkeypatch.delitem(sys.modules, "trained_here")
    monkeypatch.setattr(module.__spec__, "name", "package.trains")
    assert reload("package.trains")["changed"] == ["loss"]
    sys.modules["trained_here"] = module  # as the fixture expects it


EVERYWHERE = """
import sys, threading
from rdev.loop import Callback, Loop
from rdev.loop.probe import current

def main():
    def step(state):
        return 1.0

    class Ask(Callback):
        def run_begin(self, state):
            self.helper = threading.Thread(target=asks)
            self.helper.start()
            state.control.pause()

        def run_end(self, state):
            self.helper.join()

    class Optimizer:
        def __init__(self):
            self.param_groups = [{"lr": 0.5}]

    state = Loop(step, range(10**9), callbacks=[Ask()], optimizer=Optimizer()).run()
    assert state.optimizer.param_groups[0]["lr"] == 0.25

def asks():
    control = current().control
    def done(request):
        return request.wait(20)
    try:
        first = done(control.pause()).step
        assert done(control.set("lr", 0.25)).answer["before"] == 0.5
        assert done(control.step(3)).step == first + 3
        with open(__file__) as file:
            text = file.read()
        with open(__file__, "w") as file:
            file.write(text.replace("return " + "1.0", "return " + "7.0"))
        assert done(control.reload("__main__")).answer["changed"] == ["main"]
        done(control.step())
        assert done(control.read()).answer["loss"] == 7.0
        done(control.pause(when="loss == 7.0"))
        done(control.resume())
        while not control.is_paused:
            pass
        assert control.reason == "loss == 7.0"
        print("done", flush=True)
    finally:
        control.stop()

main()
"""


@pytest.mark.parametrize("version", SERVED)
def test_every_interpreter_is_held_stepped_and_edited(tmp_path, version):
    python = interpreters().get(version)
    if python is None:
        pytest.skip(f"no Python {version} on this machine")
    script = tmp_path / "train.py"
    script.write_text(EVERYWHERE)
    environment = {"PYTHONPATH": str(ROOT / "agent"), "PATH": os.environ["PATH"]}
    command = [python, "-S", "-W", "error", str(script)]
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "done\n", "")
