"""In which order a job's Python is sought: a pure function of what was asked for."""

import pytest

from rdev.agent.environment.order import Sought, Step, order
from rdev.wire.job import EnvironmentChoice

EVERYTHING = EnvironmentChoice(name="vision", active="laptop", managed=True, python="3.12")


NOTHING = EnvironmentChoice()


def steps(python="", choice=NOTHING, *, has_workspace=True):
    return [sought.step for sought in order(python, choice, has_workspace=has_workspace)]


def test_a_named_python_beats_everything():
    assert order("/opt/python", EVERYTHING, has_workspace=True) == (
        Sought(Step.PYTHON, "/opt/python"),
    )


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        (EVERYTHING, Sought(Step.NAMED, "vision")),
        (EnvironmentChoice(managed=True, python="3.12"), Sought(Step.MANAGED, "3.12")),
        (EnvironmentChoice(python="python3.12"), Sought(Step.CONFIGURED, "python3.12")),
    ],
)
def test_what_is_asked_for_is_found_or_refused_and_never_replaced(choice, expected):
    assert order("", choice, has_workspace=True) == (expected,)


def test_what_is_only_tried_ends_with_the_login():
    active = EnvironmentChoice(active="vision")
    assert steps(choice=active) == [Step.WORKSPACE, Step.NAMESAKE, Step.LOGIN]
    assert steps() == [Step.WORKSPACE, Step.LOGIN]


def test_a_prelude_says_nothing_about_the_python():
    assert steps(choice=EnvironmentChoice(prelude="module load cuda")) == steps()


def test_outside_of_workspaces_no_workspace_is_looked_into():
    assert steps(has_workspace=False) == [Step.LOGIN]
