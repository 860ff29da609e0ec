"""The environments of one machine: what there is, what a job gets, what is made for a workspace."""

from __future__ import annotations

import asyncio
import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from rdev.agent.environment.activation import Activations, is_active, scripts, variables
from rdev.agent.environment.contents import Looks, has_module
from rdev.agent.environment.difference import Difference, between
from rdev.agent.environment.found import Environment, Kind, Place
from rdev.agent.environment.lock import project_paths, read_lock
from rdev.agent.environment.managed import ManagedEnvironments
from rdev.agent.environment.order import Sought, Step, order
from rdev.agent.environment.places import (
    at_path,
    conda_places,
    home_of,
    is_below,
    of_interpreter,
    on_path,
    places,
)
from rdev.agent.environment.usage import in_use
from rdev.agent.environment.uv import Tell
from rdev.agent.threads import in_daemon
from rdev.protocol.errors import EnvironmentNotFound, WorkspaceNotFound
from rdev.protocol.ids import WORKSPACE_ID, require
from rdev.wire.home import Home
from rdev.wire.job import CommandKind, EnvironmentChoice, JobSpec

_VERSION = re.compile(r"\d+(\.\d+)*")

# The environment that a workspace brings along.
_WORKSPACES = ".venv"

# So many names are told when the one that was asked for is not among them.
_MOST_NAMED = 8


@dataclass(frozen=True, slots=True)
class Prepared:
    """What a job gets.

    Attributes:
        environment: What it runs in; None where nothing was found and nothing is needed.
        why: Why that one.
        interpreter: For scripts and modules; as it was named, or a whole path; may be empty.
        words: What it runs in, in words; empty for a Python outside of environments.
        lead: Folder of the interpreter where it is not simply the first on the login's PATH.
        variables: The whole environment that it begins with.
    """

    environment: Environment | None
    why: str
    interpreter: str
    words: str
    lead: str
    variables: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class _Request:
    """What one job, or one question, asks for.

    Attributes:
        python: The interpreter that was named.
        choice: What was asked for beside it.
        folder: The workspace's, or the home.
        workspace_id: Empty outside of workspaces.
        refresh: Remember nothing.
        is_question: Nothing is made.
        tell: Told what is made.
    """

    python: str
    choice: EnvironmentChoice
    folder: str
    workspace_id: str
    refresh: bool = False
    is_question: bool = False
    tell: Tell = lambda _line: None


class EnvironmentManager:
    """Finds, activates and makes environments. Nothing in it runs in the background.

    Args:
        home: The agent's state folder.
        login: Gives the login environment, without what belongs to a connection or to us.
        workspaces: Gives the folder of a workspace by its id; None if there is no such workspace.
        patience: Seconds that a prelude or an activation may take; None for the usual.
    """

    def __init__(
        self,
        home: Home,
        *,
        login: Callable[[], Mapping[str, str]],
        workspaces: Callable[[str], str | None],
        patience: float | None = None,
    ) -> None:
        self._login = login
        self._workspaces = workspaces
        self._ours = _releases(home)
        cache = os.path.join(home.host, "activations")
        self._activations = (
            Activations(cache) if patience is None else Activations(cache, patience=patience)
        )
        self._managed = ManagedEnvironments(
            os.path.join(home.root, "envs"),
            machine=home.machine_id,
            in_use=lambda: in_use(home.jobs),
        )
        self._looks = Looks()

    async def prepare(self, spec: JobSpec, folder: str) -> Prepared:
        """What a new job gets.

        Args:
            spec: What was asked for.
            folder: The workspace's folder, or the home.

        Raises:
            EnvironmentNotFound: What was named is not there, or has no interpreter.
            EnvironmentFailed: It could not be activated or made.
        """
        request = _Request(spec.python, spec.env, folder, spec.workspace_id)
        prepared = await self._prepared(request)
        needs_python = spec.kind is not CommandKind.PROGRAM or spec.processes != 0
        if needs_python and prepared.environment is not None and not prepared.interpreter:
            cause = f"the {prepared.environment.words} has no interpreter"
            raise EnvironmentNotFound(f"run {spec.target}", cause, hint=_HINT_INTERPRETER)
        return prepared

    async def show(
        self, workspace_id: str, python: str, choice: EnvironmentChoice
    ) -> tuple[Prepared, Difference]:
        """What a job would get, and what that changes in the login environment; makes nothing.

        Raises:
            RdevError: See `prepare`.
        """
        folder = self._folder(workspace_id)
        request = _Request(python, choice, folder, workspace_id, is_question=True)
        prepared = await self._prepared(request)
        return prepared, between(self._login(), prepared.variables)

    async def sync(
        self,
        workspace_id: str,
        python: str,
        choice: EnvironmentChoice,
        *,
        tell: Tell,
        refresh: bool = False,
    ) -> Environment | None:
        """Makes what a job would get; what activation changes is known then, too.

        Raises:
            RdevError: See `prepare`.
        """
        folder = self._folder(workspace_id)
        request = _Request(python, choice, folder, workspace_id, refresh=refresh, tell=tell)
        return (await self._prepared(request)).environment

    async def find(self, workspace_id: str, *, module: str = "") -> Sequence[Environment]:
        """All environments that are found, those nearest to a job first.

        Args:
            workspace_id: Also in this workspace; may be empty.
            module: Only those that have this top-level module; empty means all.
        """
        folder = self._folder(workspace_id) if workspace_id else ""
        return await asyncio.to_thread(self._find, folder, module)

    def seen(self) -> Sequence[Environment]:
        """All that are found outside of workspaces. It blocks."""
        return self._find("", "")

    def _find(self, folder: str, module: str) -> list[Environment]:
        login = self._login()
        own = on_path(["python3"], login.get("PATH", os.defpath), without=self._ours)
        found = places(login, workspace=folder, managed=self._managed.folder)
        if own:
            place = of_interpreter(own)
            others = [
                p for p in found if os.path.realpath(p.prefix) != os.path.realpath(place.prefix)
            ]
            near = [p for p in others if folder and is_below(p.prefix, folder)]
            found = [*near, place, *(p for p in others if p not in near)]
        seen = (self._looks.at(place) for place in found if not self._is_ours(place.prefix))
        return [each for each in seen if not module or has_module(each, module)]

    # --- what one job gets

    async def _prepared(self, request: _Request) -> Prepared:
        login = self._login()
        # A shell may take a minute, which is longer than an agent that is to end waits for.
        ambient = await in_daemon(lambda: self._ambient(request, login))
        found = await self._first(request, ambient)
        if found is None:
            return Prepared(None, "there is no python3 on the login's PATH", "", "", "", ambient)
        step, place = found
        return await in_daemon(lambda: self._entered(step, place, request, ambient))

    async def _first(
        self, request: _Request, ambient: Mapping[str, str]
    ) -> tuple[Step, Place] | None:
        """The first that is found, in the order in which it is sought."""
        has_workspace = bool(request.workspace_id)
        for sought in order(request.python, request.choice, has_workspace=has_workspace):
            if sought.step is Step.MANAGED:
                place: Place | None = await self._made(request, ambient)
            else:
                place = await asyncio.to_thread(self._place, sought, request, ambient)
            if place is not None:
                return sought.step, place
        return None

    def _ambient(self, request: _Request, login: Mapping[str, str]) -> Mapping[str, str]:
        """The login environment after the prelude."""
        prelude = request.choice.prelude
        if not prelude:
            return login
        difference = self._activations.prelude(
            prelude, login, folder=request.folder, refresh=request.refresh
        )
        return difference.applied(login)

    def _place(self, sought: Sought, request: _Request, ambient: Mapping[str, str]) -> Place | None:
        match sought.step:
            case Step.PYTHON | Step.CONFIGURED:
                return self._of_named(sought.value, request.folder, ambient)
            case Step.NAMED:
                return self._named(sought.value, request, ambient)
            case Step.WORKSPACE:
                place = at_path(os.path.join(request.folder, _WORKSPACES))
                is_whole = place is not None and self._looks.at(place).python
                return place if is_whole else None
            case Step.NAMESAKE:
                return next((p for p in conda_places(ambient) if p.name == sought.value), None)
            case _:
                path = ambient.get("PATH", os.defpath)
                found = on_path(["python3"], path, without=self._ours)
                return of_interpreter(found) if found else None

    def _of_named(self, python: str, folder: str, ambient: Mapping[str, str]) -> Place:
        path = _absolute(python, folder, ambient) if "/" in python else ""
        # `3.12` is what uv and pyenv understand, too.
        names = [python, f"python{python}"] if _VERSION.fullmatch(python) else [python]
        found = path or on_path(names, ambient.get("PATH", os.defpath), without=self._ours)
        # What is not there fails when it is executed, as a command that is mistyped does.
        place = of_interpreter(found or python)
        self._refuse_ours(place.prefix, python)
        return place

    def _named(self, name: str, request: _Request, ambient: Mapping[str, str]) -> Place:
        if "/" in name or name.startswith(("~", ".")):
            place = at_path(_absolute(name, request.folder, ambient))
            known: list[Place] = []
        else:
            folder = request.folder if request.workspace_id else ""
            known = places(ambient, workspace=folder, managed=self._managed.folder)
            place = next((each for each in known if each.name == name), None)
        if place is None:
            raise EnvironmentNotFound(f"use the environment {name!r}", _absence(name, known))
        self._refuse_ours(place.prefix, name)
        return place

    async def _made(self, request: _Request, ambient: Mapping[str, str]) -> Place:
        path = ambient.get("PATH", os.defpath)
        fallback = on_path(["python3"], path, without=self._ours)
        lock = await asyncio.to_thread(
            read_lock, request.folder, python=request.choice.python, fallback=fallback
        )
        if request.is_question:
            return Place(lock.digest, Kind.MANAGED, self._managed.prefix(lock))
        name, identity = os.path.basename(request.folder), request.workspace_id
        workspace = name if name.endswith(identity) else f"{name}-{identity}"
        prefix = await self._managed.ready(lock, ambient, workspace=workspace, tell=request.tell)
        return Place(lock.digest, Kind.MANAGED, prefix)

    def _entered(
        self, step: Step, place: Place, request: _Request, ambient: Mapping[str, str]
    ) -> Prepared:
        """What a job gets that runs in what was found."""
        environment = self._looks.at(place)
        made = ambient
        is_login = step is Step.LOGIN
        if not is_login and place.kind is not Kind.SYSTEM and not is_active(environment, ambient):
            made = variables(environment, ambient)
            sources = scripts(environment, ambient)
            if sources:
                made = self._activations.sourced(
                    sources, made, words=environment.words, refresh=request.refresh
                ).applied(made)
        if place.kind is Kind.MANAGED:
            made = _with_paths(made, project_paths(request.folder))
        words = "" if place.kind is Kind.SYSTEM else environment.words
        python = environment.python
        lead = "" if is_login else os.path.dirname(python)
        why = step.value + _notes(step, request, has_python=bool(python))
        return Prepared(environment, why, python, words, lead, made)

    def _folder(self, workspace_id: str) -> str:
        if not workspace_id:
            return home_of(self._login())
        folder = self._workspaces(require(WORKSPACE_ID, workspace_id, "workspace id"))
        if folder is None:
            raise WorkspaceNotFound("look at the workspace", "the host does not have it yet")
        return folder

    def _is_ours(self, prefix: str) -> bool:
        place = os.path.realpath(prefix)
        return any(is_below(place, os.path.realpath(folder)) for folder in self._ours)

    def _refuse_ours(self, prefix: str, name: str) -> None:
        if self._is_ours(prefix):
            cause = "it is rdev's own, which a later release replaces"
            raise EnvironmentNotFound(f"use {name}", cause)


def _releases(home: Home) -> tuple[str, ...]:
    """The folders of the Pythons that run agents: what is installed there is no script's business.

    A release says so by a file; where the home bears no programs, it lies elsewhere.
    """
    usual = os.path.join(home.root, "dist")
    is_release = os.path.isfile(os.path.join(sys.prefix, "release.json"))
    return (usual, os.path.dirname(sys.prefix)) if is_release else (usual,)


def _notes(step: Step, request: _Request, *, has_python: bool) -> str:
    """What a person should know of a choice beside its reason."""
    if step is Step.MANAGED and not has_python:
        return "; `rdev env sync`, or the next run, makes it"
    if step not in (Step.NAMESAKE, Step.LOGIN) or not request.workspace_id:
        return ""
    broken = at_path(os.path.join(request.folder, _WORKSPACES))
    return f"; the workspace's {_WORKSPACES} has no Python that can be run" if broken else ""


_HINT_INTERPRETER = "install Python in it, or name an interpreter with --python"


def _absolute(path: str, folder: str, login: Mapping[str, str]) -> str:
    if path == "~" or path.startswith("~/"):
        path = home_of(login) + path[1:]
    return os.path.normpath(os.path.join(folder, path))


def _absence(name: str, known: list[Place]) -> str:
    if "/" in name or name.startswith(("~", ".")):
        return "there is no conda or virtual environment in that folder on the host"
    usable = dict.fromkeys(p.name for p in known if p.kind in (Kind.CONDA, Kind.VENV))
    if not usable:
        return "the host has no environments"
    names = list(usable)
    more = f" and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
    return f"the host has no such environment; it has {', '.join(names[:_MOST_NAMED])}{more}"


def _with_paths(environment: Mapping[str, str], paths: list[str]) -> dict[str, str]:
    parts = [*paths, environment.get("PYTHONPATH", "")]
    joined = os.pathsep.join(part for part in parts if part)
    return {**environment, "PYTHONPATH": joined} if joined else dict(environment)
