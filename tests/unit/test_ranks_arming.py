"""What stops of one rank may cost the others: decided from what the hooks say."""

from __future__ import annotations

from rdev.agent.debug.ranks import behind, hindrances, lease_of, member_of

ARMED = {
    "size": 2,
    "groups": ["0"],
    "refused": [],
    "shortest": 4.0,
    "longest": 30.0,
    "armed": 7200.0,
}


def members(*answers):
    return [member_of(100 + n, n, {"rank": n, **answer}) for n, answer in enumerate(answers)]


def test_a_job_without_process_groups_has_no_hindrance_and_the_lease_that_is_asked_for():
    alone = members({"rank": None}, {"rank": None})
    assert hindrances(alone) == []
    assert lease_of(alone, 900.0, held=0.0, pending=None) == 900.0


def test_an_armed_job_may_be_stopped_for_half_of_what_it_was_armed_with():
    armed = members(ARMED, ARMED)
    assert hindrances(armed) == []
    assert lease_of(armed, 900.0, held=0.0, pending=None) == 900.0
    assert lease_of(armed, 9000.0, held=0.0, pending=None) == 3600.0


def test_a_stop_that_is_renewed_again_and_again_still_ends_before_the_timeout():
    armed = members(ARMED, ARMED)
    assert lease_of(armed, 900.0, held=7000.0, pending=None) == 199.0
    assert lease_of(armed, 900.0, held=7300.0, pending=None) == 0.0


def test_what_was_in_flight_when_the_ranks_were_armed_keeps_its_own_timeout():
    armed = members(ARMED, ARMED)
    assert lease_of(armed, 900.0, held=0.0, pending=0.0) == 3.0
    assert lease_of(armed, 900.0, held=2.0, pending=0.0) == 1.0
    # Over all stops: the next line's begins anew, and what waits does not.
    assert lease_of(armed, 900.0, held=0.1, pending=2.5) == 0.5


def test_a_rank_that_nobody_reaches_and_a_group_that_does_not_follow_are_named():
    found = hindrances(
        members({**ARMED, "size": 4}, {**ARMED, "size": 4, "refused": ["group x: no"]})
    )
    assert found == ["rank 1: group x: no", "ranks 2, 3 of its process group cannot be reached"]


def test_a_stop_that_hits_a_rank_that_could_not_be_armed_goes_on_before_its_timeout():
    one = members({**ARMED, "size": 2})
    assert lease_of(one, 900.0, held=0.0, pending=None) == 3.0


def test_whoever_has_not_issued_what_another_had_begun_is_waited_for():
    goals = {"0": 12, "pairs": 7}
    assert behind(goals, {0: {"0": 12, "pairs": 7}, 1: {"0": 13, "pairs": 8}}) == []
    assert behind(goals, {0: {"0": 12, "pairs": 7}, 1: {"0": 11, "pairs": 8}}) == [1]
    assert behind(goals, {0: {"0": 12}, 1: {"0": 12, "pairs": 6}}) == [1]
