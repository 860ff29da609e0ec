"""What rdev's troubles cost a job, with room for a loaded machine; `python -m bench harm` measures."""

import pytest
from bench.harm import flood, stalls_of

pytestmark = pytest.mark.slow


@pytest.fixture
def home(rdev, monkeypatch):
    """This process is a client of the person's own agent."""
    for name, value in rdev.environment.items():
        monkeypatch.setenv(name, value)
    return rdev.home


async def test_a_reader_that_does_not_read_neither_slows_the_job_nor_fills_the_agent(home):
    alone, beside, growth = [], [], []
    for turn in range(3):
        alone.append((await flood(home / f"alone-{turn}", is_followed=False))[0])
        seconds, grown = await flood(home / f"beside-{turn}", is_followed=True)
        beside.append(seconds)
        growth.append(grown)
    assert min(beside) < 2 * min(alone) + 0.5, (alone, beside)
    assert max(growth) <= 16 << 20, growth


async def test_no_write_waits_for_a_second_when_agent_and_supervisor_are_killed_together(home):
    stalls = await stalls_of(home, ("agent", "supervisor"))
    assert max(stalls) <= 1.0, stalls


async def test_a_killed_supervisor_is_back_before_the_job_would_notice(home):
    stalls = await stalls_of(home, ("supervisor",))
    assert sorted(stalls)[len(stalls) // 2] <= 0.3, stalls
