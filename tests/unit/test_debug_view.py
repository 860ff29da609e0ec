"""What the terminal debugger says: places, listings, stacks; and what it makes of a typed line."""

from __future__ import annotations

import argparse

import pytest

from rdev.client.debug.aiming import aimed
from rdev.client.debug.code import body_of, code_from, fault_of, function_of
from rdev.client.debug.commands import Commands, _is_expression, _raised
from rdev.client.debug.helping import TOPICS, help_on, usage
from rdev.client.debug.paper import Ink, Paper, brief, clean, cut
from rdev.client.debug.places import Sources
from rdev.client.debug.ranks import ProcessStack, StackFrame, ThreadStack
from rdev.client.debug.session import Frame
from rdev.client.debug.stacks import as_json, brief_place, pages
from rdev.client.debug.terms import Terms, duration
from rdev.client.debug.texts import Texts
from rdev.client.debug.view import View
from rdev.protocol.errors import DebuggerUnavailable, InvalidRequest

JOB = '''\
import os

@trace
def train(model, *batches, lr=0.1):
    """Trains.

    Slowly.
    """
    # a comment
    loss = f(model)
    return loss
'''
LINES = JOB.splitlines()
PATH = "/host/ws/train.py"


@pytest.fixture
def view(tmp_path):
    """A job whose script has three more lines here, and lacks one."""
    root = tmp_path.resolve()
    (root / "train.py").write_text("# 1\n# 2\n# 3\n" + JOB.replace("    return loss\n", ""))

    async def fetch(path: str) -> bytes | None:
        return JOB.encode() if path == "train.py" else None

    return View(Texts(Sources(str(root), "/host/ws"), fetch), "run-7", Paper())


async def test_a_place_is_named_as_the_editor_counts_and_says_what_the_job_has(view):
    assert await view.place(Frame(1, PATH, 10, "train")) == (
        "train.py:13 in train() (line 10 of job run-7)"
    )
    spot = await view.spot(PATH, 11)
    assert spot.name == "train.py:-"
    assert spot.remark == "line 11 of job run-7, not in your editor"
    assert (await view.spot("/usr/lib/x.py", 3)).name == "/usr/lib/x.py:3"


async def test_a_listing_is_the_jobs_text_under_the_editors_numbers(view):
    assert await view.listing(PATH, 9, 12, current=10, marked={9}) == [
        "   12B     # a comment",
        "   13->    loss = f(model)",
        "    -      return loss",
    ]


async def test_a_breakpoint_is_aimed_at_the_jobs_line_or_refused_with_a_reason(view):
    texts = view.texts
    assert await aimed(texts, PATH, 13, job="run-7") == 10
    for line, cause in [
        (1, "line 1 is a comment; line 4 has code"),
        (5, "line 5 is blank; line 6 has code"),
        (10, "line 10 is a docstring's; line 13 has code"),
        (12, "line 12 is a comment; line 13 has code"),
        (99, "the file has only 13 lines"),
    ]:
        with pytest.raises(DebuggerUnavailable) as caught:
            await aimed(texts, PATH, line, job="run-7")
        assert caught.value.cause == cause
    assert await aimed(texts, "/usr/lib/x.py", 99, job="run-7") == 99


def test_a_function_is_found_with_its_decorator_and_its_parameters():
    assert function_of(LINES, 10) == (3, 11, ("model", "lr", "batches"))
    assert function_of(LINES, 1) == (1, len(LINES), ())
    assert function_of(["def (", "x"], 2) == (1, 2, ())


def test_a_function_is_stopped_in_where_its_code_begins():
    assert body_of(LINES, "train") == 10
    assert body_of(["class Net:", "    def forward(self): pass"], "Net.forward") == 2
    assert body_of(LINES, "os") == body_of(LINES, "no.such") == body_of(["def ("], "x") == 0


def test_text_that_our_python_does_not_understand_is_judged_by_its_lines():
    lines = ["match x:", "  new syntax here", "", "# c", "y"]
    assert fault_of(lines, 2) == ""
    assert fault_of(lines, 3) == "line 3 is blank; line 5 has code"


def test_from_a_line_without_code_it_goes_on_to_the_next_that_has():
    assert [code_from(LINES, line) for line in (2, 5, 9, 10)] == [3, 10, 10, 10]
    assert code_from(LINES, 12) == 0


def test_every_command_has_its_own_line_of_help_and_a_usage_where_it_needs_something():
    named = [word for topic in TOPICS for word in topic.words]
    assert set(named) == {*Commands(None).names, "q"}
    assert len(named) == len(set(named))
    assert help_on(["b"]).startswith("b, break, breakpoints [FILE:LINE|LINE|FUNCTION [if EXPR]]   ")
    assert help_on(["jump", "dance"]) == (
        "j, jump LINE   makes LINE, of this function, the next to run\n"
        "'dance' is no command; `h` lists them"
    )
    assert usage("compare", "") == "usage: compare EXPR"
    assert [usage(*words) for words in (("compare", "x"), ("clear", ""), ("x", ""))] == [""] * 3


def test_control_characters_of_the_program_do_not_reach_the_terminal():
    assert clean("a\x1b[2Jb\x07\nc\u202e") == "a\\x1b[2Jb\\x07\nc\\u202e"
    assert clean("\tx") == "        x"
    coloured = Paper(has_colours=True).ink("a\x1b[31m", Ink.STRONG)
    assert coloured == "\x1b[1ma\\x1b[31m\x1b[0m"
    assert Paper().ink("a", Ink.STRONG) == "a"


def test_long_values_are_cut():
    assert cut("x" * 10, 4) == "xxxx... (10 characters)"
    told = "'" + "x" * (1 << 16) + "...'"  # as debugpy cuts any longer one
    assert cut(told, 4) == "'xxx... (more than 65536 characters)"
    assert brief("a\nb", 40) == "a\\nb"
    assert len(brief("x" * 100, 30)) == 30


@pytest.mark.parametrize(
    ("line", "is_expression"),
    [
        ("n = 3", True),
        ("b == 2", True),
        ("s += 1", True),
        ("w @ x", True),
        ("l is None", True),
        ("n", False),
        ("l 3, 9", False),
        ("b train.py:3 if x == 2", False),
        ("until 12", False),
    ],
)
def test_a_variable_that_is_named_like_a_command_is_still_a_variable(line, is_expression):
    assert _is_expression(line.partition(" ")[2]) is is_expression


def test_an_exception_of_an_expression_is_one_line():
    ours = (
        'Traceback (most recent call last):\n  File "<string>", line 1, in <module>\nNameError: x\n'
    )
    theirs = ours.replace("NameError", '  File "/a.py", line 1, in f\nNameError')
    assert _raised(ours) == "NameError: x"
    wrong = (
        'Traceback (most recent call last):\n  File "/v/debugpy/_vendored/pydevd/x.py", line 1, in f\n'
        '    compile(x)\n  File "<string>", line 1\n    a 1\n      ^\nSyntaxError: invalid syntax\n'
    )
    assert _raised(wrong) == "SyntaxError: invalid syntax"
    assert _raised(theirs) == theirs.rstrip()


def stack() -> ProcessStack:
    frames = (
        StackFrame("/env/lib/python3.11/site-packages/torch/nn.py", 7, "forward"),
        StackFrame(PATH, 10, "train"),
    )
    main = ThreadStack("MainThread", frames, is_paused=True)
    idle = ThreadStack("load\x1ber", (StackFrame("/usr/lib/libc.so", 0, "poll"),))
    return ProcessStack(1, 42, "train.py", (main, idle), source="py-spy")


async def test_stacks_show_the_workspaces_frames_with_their_source(view):
    gone = ProcessStack(0, 41, "train.py", cause="it is busy in C code")
    assert await pages([stack(), gone], view) == [
        "rank 0  pid 41  train.py",
        "  no stacks: it is busy in C code",
        "",
        "rank 1  pid 42  train.py, by py-spy",
        "  MainThread, held by the debugger",
        "    torch/nn.py:7 in forward",
        "    train.py:13 in train (line 10 of job run-7)",
        "      loss = f(model)",
        "  load\\x1ber",
        "    libc.so in poll",
    ]
    assert brief_place(stack(), view.sources) == "train.py:10, calling forward"
    assert as_json([stack()])[0]["threads"][0]["frames"][1] == {
        "file": PATH,
        "line": 10,
        "function": "train",
    }


@pytest.mark.parametrize(
    ("word", "seconds"), [("90s", 90), ("15m", 900), ("1h", 3600), ("30", 30), ("1.5m", 90)]
)
def test_a_time_may_be_typed_with_its_unit(word, seconds):
    assert duration(word) == seconds


@pytest.mark.parametrize("word", ["", "0", "-3s", "1d", "25h", "soon", "1e3"])
def test_a_time_that_is_none_is_refused(word):
    with pytest.raises(argparse.ArgumentTypeError):
        duration(word)


def test_the_terms_of_an_attach_fill_what_the_command_line_leaves_open():
    asked = {"lease": "20m", "allowKill": True, "unsafe": "yes"}
    assert Terms().over(asked) == Terms(1200.0, allow_kill=True)
    assert Terms(60.0, unsafe=True).over(asked) == Terms(60.0, allow_kill=True, unsafe=True)
    with pytest.raises(InvalidRequest, match="lease: 'soon' is no time"):
        Terms().over({"lease": "soon"})
