"""The program runs between while a debugger comes in."""

import sys

import pytest

from rdev.hook.gentle import INTERVAL, gentle


@pytest.fixture(autouse=True)
def restored():
    before = sys.getswitchinterval()
    yield
    sys.setswitchinterval(before)


def test_the_lock_changes_hands_sooner_meanwhile_and_as_before_afterwards():
    before = sys.getswitchinterval()
    with pytest.raises(ValueError, match="no adapter"), gentle():
        assert sys.getswitchinterval() == pytest.approx(INTERVAL)
        raise ValueError("no adapter")
    assert sys.getswitchinterval() == before


def test_a_program_that_chooses_an_interval_meanwhile_keeps_it():
    with gentle():
        sys.setswitchinterval(0.02)
    assert sys.getswitchinterval() == pytest.approx(0.02)


def test_a_program_that_is_gentler_is_left_alone():
    sys.setswitchinterval(0.0001)
    with gentle():
        assert sys.getswitchinterval() == pytest.approx(0.0001)
    assert sys.getswitchinterval() == pytest.approx(0.0001)
