"""What users may import, name by name; a change here is a change of the contract."""

import importlib
import subprocess
import sys

import pytest

PUBLIC = {
    "rdev.client": [
        "Chunk", "CommandKind", "Config", "Connection", "Event", "Events", "Gap", "Input", "Job",
        "JobSpec", "JobState", "Jobs", "Launch", "Logs", "RdevError", "Receipt", "Sink", "Window",
        "Workspace", "connect", "find_workspace", "follow", "launch", "sync_workspace",
    ],
    "rdev.loop": [
        "Callback", "Loop", "Probe", "ShuffleSampler", "State", "join", "log", "seeded", "track",
    ],
}  # fmt: skip


@pytest.mark.parametrize("package", PUBLIC)
def test_the_public_names_are_these(package):
    module = importlib.import_module(package)
    assert sorted(module.__all__) == PUBLIC[package]
    for name in module.__all__:
        assert getattr(module, name).__doc__, name


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="nothing_of_ours"):
        importlib.import_module("rdev.client").nothing_of_ours  # noqa: B018


def test_the_hot_path_of_the_command_imports_nothing_heavy():
    code = """
import sys
import rdev.client.cli.main as main
main.overview()
heavy = {"grpc", "google.protobuf", "asyncio", "paramiko", "asyncssh", "torch", "typing", "argparse"}
print(sorted(heavy & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
