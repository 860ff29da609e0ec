"""What a person is told, and whether it can be typed as it stands."""

import argparse

import pytest

from rdev.client.cli.main import _fail, overview
from rdev.client.hosts import LOCAL, aimed
from rdev.protocol.errors import JobConflict


@pytest.mark.parametrize(
    ("hint", "typed"),
    [
        ("end it with `rdev stop dup`", "end it with `rdev stop -H gpu1 dup`"),
        ("`rdev env ls` lists those", "`rdev env ls -H gpu1` lists those"),
        ("`rdev ps -a` or `rdev logs x`", "`rdev ps -H gpu1 -a` or `rdev logs -H gpu1 x`"),
        ("`rdev attach -i -H gpu2 x` returns", "`rdev attach -i -H gpu2 x` returns"),
        ("see `rdev stop --help`", "see `rdev stop --help`"),
        ("`rdev up gpu1`, `rdev psst`", "`rdev up gpu1`, `rdev psst`"),
    ],
)
def test_a_hints_commands_act_where_the_command_did(hint, typed):
    assert aimed(hint, "gpu1") == typed
    assert aimed(hint, LOCAL) == hint


def test_a_host_that_was_typed_is_in_the_hint(capfd):
    _fail("stop", argparse.Namespace(host="gpu1"), JobConflict("stop x", "it waits"))
    assert "`rdev stop -H gpu1 JOB`" in capfd.readouterr().err
    _fail("stop", argparse.Namespace(host=None), JobConflict("stop x", "it waits"))
    assert "`rdev stop JOB`" in capfd.readouterr().err


def test_the_overview_says_how_another_machine_is_named():
    assert "-H HOST" in overview()
