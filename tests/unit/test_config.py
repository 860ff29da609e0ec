"""Where configuration comes from, and what wins."""

import pytest

from rdev.client import config
from rdev.protocol.errors import ConfigError
from rdev.wire.job import EnvironmentChoice


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "user"))
    for name in ("RDEV_HOST", "RDEV_PYTHON"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "user" / "rdev").mkdir(parents=True)
    (tmp_path / "root").mkdir()
    return tmp_path / "root"


def test_nothing_is_needed(root):
    assert config.load(str(root)) == config.Config()
    assert config.load(None) == config.Config()


def test_variables_beat_the_workspace_which_beats_the_user(root, monkeypatch):
    (root.parent / "user" / "rdev" / "config.toml").write_text(
        "host = 'a'\npython = 'p'\ngrace = 3"
    )
    assert config.load(None).host == "a"
    (root / "pyproject.toml").write_text("[tool.rdev]\nhost = 'b'")
    assert config.load(str(root)).host == "b"
    (root / "rdev.toml").write_text("host = 'c'")
    assert config.load(str(root)).host == "c"
    monkeypatch.setenv("RDEV_HOST", "d")
    loaded = config.load(str(root))
    assert (loaded.host, loaded.python, loaded.grace) == ("d", "p", 3)


def test_how_jobs_are_run_is_configured(root):
    (root / "rdev.toml").write_text("retries = 2\nkeep_children = true\nlog_full = 'stop'")
    loaded = config.load(str(root))
    assert (loaded.retries, loaded.keep_children, loaded.log_full) == (2, True, "stop")


def test_which_environment_is_meant_is_a_table_of_its_own(root):
    (root / "rdev.toml").write_text(
        "[env]\nname = 'vision'\npython = 'p'\nprelude = 'module load cuda'"
    )
    assert config.load(str(root)).env == EnvironmentChoice(
        "vision", prelude="module load cuda", python="p"
    )
    (root / "rdev.toml").write_text("[env]\nmanage = true\npython = '3.12'")
    assert config.load(str(root)).env == EnvironmentChoice(managed=True, python="3.12")


def test_what_the_workspace_says_of_an_environment_replaces_what_the_user_says(root):
    user = root.parent / "user" / "rdev" / "config.toml"
    user.write_text("[env]\nname = 'mine'\nprelude = 'module load cuda'")
    (root / "rdev.toml").write_text("[env]\nmanage = true")
    expected = EnvironmentChoice(managed=True, prelude="module load cuda")
    assert config.load(str(root)).env == expected


def test_a_workspaces_environment_beats_the_python_of_the_users_file(root):
    user = root.parent / "user" / "rdev" / "config.toml"
    user.write_text("python = 'mine'\n[env]\nprelude = 'module load cuda'")
    assert config.load(str(root)).python == "mine"
    (root / "rdev.toml").write_text("[env]\nname = 'vision'")
    assert config.load(str(root)).python == ""
    (root / "rdev.toml").write_text("python = 'ours'\n[env]\nname = 'vision'")
    assert config.load(str(root)).python == "ours"


def test_flags_beat_all_that_files_say_of_python_and_environment(root):
    (root / "rdev.toml").write_text("python = 'p'\n[env]\nmanage = true\nprelude = 'x'")
    loaded = config.load(str(root))
    named = loaded.with_environment(python=None, env="vision")
    assert (named.python, named.env) == ("", EnvironmentChoice("vision", prelude="x"))
    assert loaded.with_environment(python="q", env=None).python == "q"
    assert loaded.with_environment(python=None, env=None) == loaded


@pytest.mark.parametrize(
    "table",
    [
        "env = 'vision'",
        "[env]\nnmae = 'x'",
        "[env]\nmanage = 1",
        "[env]\nname = 'x'\nmanage = true",
    ],
)
def test_an_env_table_without_a_meaning_is_refused(root, table):
    (root / "rdev.toml").write_text(table)
    with pytest.raises(ConfigError, match="env"):
        config.load(str(root))


def test_environments_add_up(root):
    (root.parent / "user" / "rdev" / "config.toml").write_text("[environment]\nA = '1'\nB = '1'")
    (root / "rdev.toml").write_text("[environment]\nB = 2")
    assert config.load(str(root)).environment == {"A": "1", "B": "2"}


@pytest.mark.parametrize(
    "text",
    [
        "hots = 'x'",
        "host = 3",
        "timeout = true",
        "retries = 101",
        "retries = 1.5",
        "retries = true",
        "keep_children = 1",
        "log_full = 'wait'",
        "host = [",
        "environment = 'A=1'",
        "grace = -1",
        "timeout = inf",
        "[workspace]\nfolder = '/x'",
    ],
)
def test_what_has_no_meaning_is_refused_by_file_and_key(root, text):
    (root / "rdev.toml").write_text(text)
    with pytest.raises(ConfigError, match=r"rdev\.toml"):
        config.load(str(root))


def test_the_workspace_table_belongs_to_sync(root):
    (root / "rdev.toml").write_text("[workspace]\nid = 'x'")
    assert config.load(str(root)) == config.Config()
