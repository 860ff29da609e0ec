"""The user's own hosts in the configuration file: what is edited, and all else that stays."""

import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rdev.client import config, entries
from rdev.client.entries import Entry
from rdev.protocol.errors import ConfigError, UsageError

OLD = """\
# my machines
host = "gpu0"  # the old one
timeout = 60

[environment]
A = "1"

# the big one
[hosts.gpu0]
ssh = "me@gpu0"

# the small one
[hosts.gpu2]
home = "/scratch/me"
"""


@pytest.fixture
def file(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    path = tmp_path / "rdev" / "config.toml"
    path.parent.mkdir()
    return path


def test_a_first_host_makes_the_file(file):
    entries.add(Entry("gpu1", ssh="me@10.0.0.1", transport="paramiko"))
    assert file.read_text() == '[hosts.gpu1]\nssh = "me@10.0.0.1"\ntransport = "paramiko"\n'
    assert entries.entry_of("gpu1") == Entry("gpu1", ssh="me@10.0.0.1", transport="paramiko")


def test_a_host_that_nobody_wrote_down_is_what_ssh_makes_of_its_name(file):
    assert entries.entry_of("gpu7").destination == "gpu7"


def test_comments_and_order_survive_an_addition(file):
    file.write_text(OLD)
    entries.add(Entry("gpu1", python="/opt/conda"))
    assert file.read_text() == OLD + '\n[hosts.gpu1]\npython = "/opt/conda"\n'


def test_a_host_that_is_added_again_is_replaced(file):
    file.write_text(OLD)
    entries.add(Entry("gpu0", ssh="you@gpu0"))
    assert [entry.ssh for entry in entries.entries()] == ["", "you@gpu0"]
    assert "# the small one\n[hosts.gpu2]" in file.read_text()


def test_the_usual_host_is_changed_where_it_stands(file):
    file.write_text(OLD)
    entries.use("gpu2")
    assert file.read_text() == OLD.replace('host = "gpu0"  # the old one', 'host = "gpu2"')
    assert config.load(None).host == "gpu2"


def test_the_usual_host_is_written_before_all_tables(file):
    file.write_text("[environment]\nhost = 'x'\n")
    entries.use("gpu2")
    assert tomllib.loads(file.read_text()) == {"host": "gpu2", "environment": {"host": "x"}}


def test_a_host_that_is_removed_takes_its_table_and_no_other(file):
    file.write_text(OLD)
    assert entries.remove("gpu2")
    assert not entries.remove("gpu2")
    assert [entry.name for entry in entries.entries()] == ["gpu0"]
    assert entries.default_host() == "gpu0"
    assert entries.remove("gpu0")
    assert entries.default_host() == ""
    assert "# the small one" in file.read_text()


def test_a_file_in_a_shape_that_cannot_be_edited_is_left_alone(file):
    text = 'hosts = {gpu0 = {ssh = "me@gpu0"}}\n'
    file.write_text(text)
    with pytest.raises(ConfigError, match="cannot edit"):
        entries.remove("gpu0")
    assert file.read_text() == text


def test_the_other_verbs_read_a_file_with_hosts(file):
    file.write_text(OLD)
    assert config.load(None).timeout == 60


@pytest.mark.parametrize("name", ["", "-o", "a b", "../x", "unix:/x", "a\nb"])
def test_what_cannot_be_a_name_is_refused(file, name):
    with pytest.raises(UsageError):
        entries.add(Entry(name))
    assert not file.exists()


@pytest.mark.parametrize(
    "text",
    ["hosts = 3", "[hosts.x]\nport = 1", "[hosts.x]\nhome = 3", '[hosts.x]\ntransport = "z"'],
)
def test_an_entry_without_meaning_is_an_error(file, text):
    file.write_text(text)
    with pytest.raises(ConfigError):
        entries.entries()


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_any_folder_is_read_back_as_it_was_given(tmp_path_factory, home):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CONFIG_HOME", str(tmp_path_factory.mktemp("config")))
        try:
            entries.add(Entry("gpu1", home=home))
        except ConfigError:  # TOML has no way to write some control characters as JSON does
            assert any(c < " " or c == "\x7f" for c in home)
        else:
            assert entries.entry_of("gpu1").home == home
