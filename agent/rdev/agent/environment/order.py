"""In which order the interpreter and the environment of a job are sought; nothing is looked at.

named python > named environment > managed > configured python
    > the workspace's .venv > the laptop's namesake in conda > python3 of the login

What is asked for by name is found or the job is refused; what is only tried may be missing.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from rdev.wire.job import EnvironmentChoice


class Step(enum.Enum):
    """One place to look, and why what is found there is taken."""

    PYTHON = "the interpreter was named"
    NAMED = "the environment was named"
    MANAGED = "it is made from the workspace's lock file, as [env] says"
    CONFIGURED = "[env] names the interpreter"
    WORKSPACE = "it lies in the workspace"
    NAMESAKE = "the laptop's active environment has the same name"
    LOGIN = "it is the first python3 on the login's PATH"


@dataclass(frozen=True, slots=True)
class Sought:
    """What is sought at a step.

    Attributes:
        step: The step.
        value: The interpreter, or the environment's name or folder; empty where there is one only.
    """

    step: Step
    value: str = ""


def order(python: str, choice: EnvironmentChoice, *, has_workspace: bool) -> tuple[Sought, ...]:
    """What to look for, in this order, until something is found.

    Args:
        python: The interpreter that was named; may be empty.
        choice: What was asked for beside it.
        has_workspace: The job runs in a workspace.
    """
    if python:
        return (Sought(Step.PYTHON, python),)
    if choice.name:
        return (Sought(Step.NAMED, choice.name),)
    if choice.managed:
        return (Sought(Step.MANAGED, choice.python),)
    if choice.python:
        return (Sought(Step.CONFIGURED, choice.python),)
    tried = [Sought(Step.WORKSPACE)] if has_workspace else []
    if choice.active:
        tried.append(Sought(Step.NAMESAKE, choice.active))
    return (*tried, Sought(Step.LOGIN))
