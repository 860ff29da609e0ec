"""What the owner of a machine may say, and that nothing mistyped passes silently."""

from pathlib import Path

import pytest

from rdev.agent import site
from rdev.agent.site import Site, restricted
from rdev.protocol.errors import ConfigError

FULL = """
# for a shared machine
jobs = 8
store = "200G"
log = "1.5 MiB"
idle_exit = "2h"
hook = false
local_state = "/scratch/local"
gpus = [0, "GPU-1f"]
"""


def test_without_a_file_everything_is_allowed(tmp_path: Path):
    assert site.load(str(tmp_path / "agent.toml")) == Site()


def test_every_key_is_read(tmp_path: Path):
    path = tmp_path / "agent.toml"
    path.write_text(FULL)
    assert site.load(str(path)) == Site(
        jobs=8,
        store=200 << 30,
        log=3 << 19,
        idle_exit=7200.0,
        hook=False,
        local_state="/scratch/local",
        gpus=("0", "GPU-1f"),
    )


@pytest.mark.parametrize(
    ("text", "line", "key"),
    [
        ("jobs = 4\njob = 5\n", 2, "`job` is no key"),
        ("\n\njobs = 0\n", 3, "`jobs`"),
        ("jobs = true\n", 1, "`jobs`"),
        ('jobs = 1\nstore = "many"\n', 2, "`store`"),
        ("store = 0\n", 1, "`store`"),
        ("store = -1\n", 1, "`store`"),
        (f'store = "1{"0" * 400}"\n', 1, "`store`"),
        ('log = "1K"\n', 1, "`log`"),
        ('idle_exit = "5s"\n', 1, "`idle_exit`"),
        ("idle_exit = nan\n", 1, "`idle_exit`"),
        ('hook = "no"\n', 1, "`hook`"),
        ('local_state = "scratch"\n', 1, "`local_state`"),
        ("gpus = 0\n", 1, "`gpus`"),
        ("gpus = [-1]\n", 1, "`gpus`"),
        ("jobs = 1\n[limits]\njobs = 2\n", 2, "`limits`"),
    ],
)
def test_what_means_nothing_is_an_error_that_names_file_line_and_key(text, line, key):
    with pytest.raises(ConfigError) as caught:
        site.parse(text, "/etc/rdev/agent.toml")
    assert "/etc/rdev/agent.toml" in caught.value.message
    assert f"line {line}: " in caught.value.cause
    assert key in caught.value.cause


def test_a_file_that_is_no_toml_is_an_error_that_names_the_line():
    with pytest.raises(ConfigError, match="line 2"):
        site.parse("jobs = 1\nhook = yes\n", "agent.toml")


def test_a_file_that_is_no_text_or_no_file_is_an_error(tmp_path: Path):
    path = tmp_path / "agent.toml"
    path.write_bytes(b"jobs = 1\n# \xff\n")
    with pytest.raises(ConfigError, match="line 2"):
        site.load(str(path))
    with pytest.raises(ConfigError, match="directory"):
        site.load(str(tmp_path))


@pytest.mark.parametrize(
    ("inherited", "gpus", "seen"),
    [
        (None, None, None),
        ("0,1", None, "0,1"),
        (None, ("2", "3"), "2,3"),
        (None, (), ""),
        ("3, 0,2", ("2", "3"), "3,2"),
        ("0", ("2", "3"), ""),
    ],
)
def test_jobs_see_no_gpu_but_those_that_the_site_allows(inherited, gpus, seen):
    login = {} if inherited is None else {"CUDA_VISIBLE_DEVICES": inherited}
    assert restricted(login, gpus).get("CUDA_VISIBLE_DEVICES") == seen
