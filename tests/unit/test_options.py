"""Values of options as people type them."""

import argparse

import pytest

from rdev.client.cli.main import parser_for
from rdev.client.cli.options import attempt, gpu_request, line_count, pid, processes, rank, retries
from rdev.wire.job import ONE_PER_GPU, GpuRequest


@pytest.mark.parametrize(
    ("word", "request_"),
    [
        ("2", GpuRequest(count=2)),
        ("all", GpuRequest()),
        ("0,", GpuRequest(devices=("0",))),
        ("0,1", GpuRequest(devices=("0", "1"))),
        ("GPU-ab", GpuRequest(devices=("GPU-ab",))),
        ("GPU-ab, 3", GpuRequest(devices=("GPU-ab", "3"))),
    ],
)
def test_gpus_are_a_count_unless_there_is_a_comma(word, request_):
    assert gpu_request(word) == request_


@pytest.mark.parametrize(
    "word", ["0", "-1", "", ",", "two", "0;1", "gpu-ab", "0,0", "GPU-a b", "\u0663,", "0,999999"]
)
def test_what_names_no_gpus_is_refused(word):
    with pytest.raises(argparse.ArgumentTypeError):
        gpu_request(word)


def test_ranks_and_retries():
    assert (processes("gpu"), processes("8"), retries("0"), retries("100")) == (
        ONE_PER_GPU,
        8,
        0,
        100,
    )
    for parse, word in ((processes, "0"), (processes, "many"), (retries, "101"), (retries, "-1")):
        with pytest.raises(argparse.ArgumentTypeError):
            parse(word)


@pytest.mark.parametrize(
    ("parse", "word", "said"),
    [
        (line_count, "-1", "'-1' is no number of lines from 0"),
        (attempt, "0", "'0' is no attempt from 1"),
        (rank, "-1", "'-1' is no rank from 0"),
        (rank, "\u0663", "is no rank"),
        (pid, "99999999999", "'99999999999' is no process id from 1"),
    ],
)
def test_what_there_cannot_be_is_refused_in_words(parse, word, said):
    with pytest.raises(argparse.ArgumentTypeError, match=said):
        parse(word)
    assert parse("3") == 3


def test_an_option_is_written_out():
    _, parser = parser_for("wait")
    assert parser.parse_args(["--timeout", "3"]).timeout == 3
    with pytest.raises(SystemExit):
        parser.parse_args(["--time", "3"])


def test_no_option_of_run_takes_its_value_for_the_script():
    samples = {"-e": "K=V", "--set": "K=V", "--gpus": "all", "--log-full": "drop", "--on": "step=3"}
    samples |= {"--transport": "openssh", "--detach-keys": "ctrl-p"}
    module, parser = parser_for("run")
    for action in parser._actions:  # argparse has no other way to ask
        for option in action.option_strings if action.nargs is None else ():
            words = [option, samples.get(option, "1"), "train.py"]
            assert module.parse(parser, words).command.target == "train.py", option
