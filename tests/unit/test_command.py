"""Cutting the command out of `rdev run`'s words."""

import argparse

import pytest

from rdev.client.cli import exec as exec_verb
from rdev.client.command import Command, split_command
from rdev.protocol.errors import UsageError
from rdev.wire.job import CommandKind

WITH_VALUE = frozenset({"-H", "--name"})


def split(line: str):
    return split_command(line.split(), with_value=WITH_VALUE)


def test_everything_after_the_script_belongs_to_the_script():
    ours, command = split("-d --name x train.py --name y -d -- z")
    assert ours == ["-d", "--name", "x"]
    assert command == Command(CommandKind.SCRIPT, "train.py", ("--name", "y", "-d", "--", "z"))


def test_a_module():
    ours, command = split("-H gpu -m pkg.train --lr 1")
    assert ours == ["-H", "gpu"]
    assert command == Command(CommandKind.MODULE, "pkg.train", ("--lr", "1"))


def test_a_program_after_two_dashes():
    ours, command = split("-- ls -l")
    assert ours == []
    assert command == Command(CommandKind.PROGRAM, "ls", ("-l",))


def test_an_option_with_its_value_attached():
    ours, command = split("--name=x train.py")
    assert ours == ["--name=x"]
    assert command.target == "train.py"


@pytest.mark.parametrize("line", ["", "-d", "--", "-m", "--name x", "--name"])
def test_no_command_is_usage(line):
    with pytest.raises(UsageError):
        split(line)


@pytest.mark.parametrize("words", [["--", ""], ["--", "", "x"], ["-m", ""], [""]])
def test_an_empty_command_is_usage(words):
    with pytest.raises(UsageError, match="the command is empty"):
        split_command(words, with_value=WITH_VALUE)


def test_an_empty_command_beside_a_job_is_usage():
    parser = argparse.ArgumentParser()
    exec_verb.configure(parser)
    with pytest.raises(UsageError, match="the command is empty"):
        exec_verb.parse(parser, ["local", "--", ""])
