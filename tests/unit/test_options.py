"""Values of options as people type them."""

import argparse

import pytest

from rdev.client.cli.options import gpu_request, processes, retries
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


@pytest.mark.parametrize("word", ["0", "-1", "", ",", "two", "0;1", "gpu-ab"])
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
