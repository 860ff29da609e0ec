"""Which words a person means a host by."""

import pytest

from rdev.client.entries import Entry, add
from rdev.client.lookup import names_host, ssh_knows


@pytest.fixture(autouse=True)
def laptop(tmp_path, monkeypatch):
    for name in ("XDG_CONFIG_HOME", "XDG_STATE_HOME"):
        monkeypatch.setenv(name, str(tmp_path / name))
    (tmp_path / "ssh_config").write_text("Host gpu1\n  HostName 10.0.0.1\n")
    monkeypatch.setenv("RDEV_SSH_CONFIG", str(tmp_path / "ssh_config"))


def test_a_host_is_what_no_job_is_called_or_what_was_named():
    add(Entry("mine", ssh="me@10.0.0.1"))
    for word in ("local", "unix:/run/a.sock", "me@gpu1", "ssh://gpu1:22", "mine"):
        assert names_host(word), word
    for word in ("night", "@-1", "gpu1", "0123456789ab"):
        assert not names_host(word), word


async def test_ssh_knows_what_its_configuration_has_an_address_for():
    assert await ssh_knows("gpu1")
    for word in ("night", "@-1", "-x"):
        assert not await ssh_knows(word), word
