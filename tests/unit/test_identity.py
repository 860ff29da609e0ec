"""Who a person is said to be, whatever the laptop calls them."""

import pytest

from rdev.client.identity import owner


@pytest.mark.parametrize(
    ("user", "shown"),
    [("ana", "ana"), ("a\udcffna", "a?na"), ("a\nna\x1b[2J", "a?na?[2J"), ("x" * 999, "x" * 128)],
)
def test_a_name_can_travel_and_be_shown(user, shown, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setenv("LOGNAME", user)
    assert owner().partition("@")[0] == shown
    owner().encode()
