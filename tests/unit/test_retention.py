"""Which ended jobs are removed."""

from hypothesis import given
from hypothesis import strategies as st

from rdev.agent.jobs.retention import Ended, Keep, to_remove

DAY = 86400.0
NOW = 1000 * DAY
KEEP = Keep(newest=2, seconds=30 * DAY, size=100)


def ended(name, *, days, size=0):
    return Ended(name, NOW - days * DAY, size)


def test_the_newest_are_kept_whatever_their_age_and_size():
    jobs = [ended("a", days=400, size=1000), ended("b", days=300, size=1000)]
    assert to_remove(jobs, KEEP, now=NOW) == ()


def test_others_go_after_their_time():
    jobs = [ended(str(days), days=days) for days in (1, 2, 29, 31, 40)]
    assert to_remove(jobs, KEEP, now=NOW) == ("31", "40")


def test_the_oldest_go_when_the_logs_take_too_much():
    jobs = [ended(str(days), days=days, size=40) for days in (1, 2, 3, 4, 5, 6)]
    assert to_remove(jobs, KEEP, now=NOW) == ("5", "6")


def test_a_clock_that_was_set_back_removes_nothing():
    jobs = [ended(str(days), days=-days) for days in range(10)]
    assert to_remove(jobs, KEEP, now=NOW) == ()


@given(
    st.lists(st.tuples(st.floats(0, 2000), st.integers(0, 60)), max_size=20),
    st.integers(0, 5),
    st.integers(0, 200),
)
def test_what_stays_obeys_the_limits(jobs, newest, size):
    listed = [ended(str(number), days=days, size=of) for number, (days, of) in enumerate(jobs)]
    keep = Keep(newest=newest, seconds=30 * DAY, size=size)
    removed = set(to_remove(listed, keep, now=NOW))
    ordered = sorted(listed, key=lambda job: (job.ended, job.id), reverse=True)
    assert not removed & {job.id for job in ordered[:newest]}
    others = [job for job in ordered[newest:] if job.id not in removed]
    assert sum(job.size for job in others) <= size
    assert all(NOW - job.ended <= 30 * DAY for job in others)
