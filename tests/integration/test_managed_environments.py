"""Environments that are made from a workspace's lock file, by a real uv and without an index."""

import asyncio
import contextlib
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tests.support.jobs import jobs_in, tidy
from tests.support.prefixes import login_path
from tests.support.wheels import wheel

from rdev.agent.environment.manager import EnvironmentManager
from rdev.agent.environment.uv import find_uv, uv_environment
from rdev.agent.jobs.resolve import Surroundings
from rdev.protocol.errors import EnvironmentFailed
from rdev.wire.home import Home
from rdev.wire.job import CommandKind, EnvironmentChoice, JobSpec, JobState

MANAGED = EnvironmentChoice(managed=True)
UV = Path(sys.executable).parent / "uv"


class World:
    def __init__(self, folder, jobs, environments, login):
        self.workspace, self.envs = folder / "workspace", folder / "state" / "envs"
        self.jobs, self.environments, self.login = jobs, environments, login
        self.told = []

    async def sync(self):
        self.told = []
        return await self.environments.sync("ws", "", MANAGED, tell=self.told.append)

    async def start(self, source):
        (self.workspace / "main.py").write_text(source)
        spec = JobSpec(
            CommandKind.SCRIPT, "main.py", workspace_id="ws", env=MANAGED, grace=1.0, hook=False
        )
        return await self.jobs.manager.create(os.urandom(8).hex(), spec)

    async def printed(self, source):
        ended = await self.jobs.end(await self.start(source))
        output = await self.jobs.printed(ended, is_endless=False)
        assert ended.state is JobState.SUCCEEDED, output.stderr
        return output.stdout.decode()

    def made(self):
        return {name for name in os.listdir(self.envs) if not name.startswith((".", "by-"))}


@pytest.fixture
def folder(tmp_path):
    for name in ("home", "workspace", "state"):
        (tmp_path / name).mkdir(mode=0o700)
    for name, version in (("tiny", "1.0"), ("tiny", "2.0"), ("other", "1.0")):
        wheel(tmp_path / "wheels", name, version)
    return tmp_path


@contextlib.asynccontextmanager
async def at(folder, *, machine="here", **variables):
    login = {
        "HOME": str(folder / "home"),
        "PATH": login_path(folder),
        "UV_FIND_LINKS": str(folder / "wheels"),
        "UV_NO_INDEX": "1",
        "UV_OFFLINE": "1",
        **variables,
    }
    workspaces = {"ws": str(folder / "workspace")}
    environments = EnvironmentManager(
        Home(str(folder / "state"), machine),
        login=lambda: dict(login),
        workspaces=workspaces.get,
    )
    async with (
        tidy(folder / "state" / "hosts" / machine / "jobs") as jobs_dir,
        jobs_in(
            jobs_dir,
            workspaces=workspaces,
            surroundings=Surroundings(login, 0o022, None),
            environments=environments,
        ) as jobs,
    ):
        yield World(folder, jobs, environments, login)


@pytest.fixture
async def world(folder):
    async with at(folder) as made:
        yield made


def requires(world, text):
    (world.workspace / "requirements.txt").write_text(text)


VERSION = "import sys, tiny; print(tiny.__version__, sys.prefix)"


async def test_requirements_become_an_environment_that_the_job_runs_in(world):
    requires(world, "tiny==1.0\n")
    made = await world.sync()
    assert any("tiny==1.0" in line for line in world.told), world.told
    assert await world.printed(VERSION) == f"1.0 {made.prefix}\n"
    assert world.made() == {made.name}


async def test_uv_leaves_nothing_in_the_home_and_has_the_credentials_that_are_there(folder, world):
    # An index that is reached makes it lock its credentials, whether there are any or not.
    ours = uv_environment(str(world.envs), world.login)["UV_CREDENTIALS_DIR"]
    assert ours.startswith(str(world.envs))
    (folder / "home" / ".local" / "share" / "uv" / "credentials").mkdir(parents=True)
    assert "UV_CREDENTIALS_DIR" not in uv_environment(str(world.envs), world.login)


async def test_programs_of_packages_run_though_it_was_made_elsewhere_and_renamed(world):
    requires(world, "tiny==1.0\n")
    made = await world.sync()
    output = subprocess.run(
        [f"{made.prefix}/bin/tiny"], capture_output=True, text=True, check=True
    ).stdout
    assert output == "tiny 1.0\n"


async def test_the_second_time_takes_milliseconds_and_needs_nothing(folder, world):
    requires(world, "tiny==1.0\n")
    await world.sync()
    async with at(folder, UV_FIND_LINKS="/none") as later:
        begun = time.perf_counter()
        await later.sync()
        taken = time.perf_counter() - begun
        assert later.told == []
        assert taken < 0.25
        assert (await later.printed(VERSION)).startswith("1.0 ")


async def test_a_changed_lock_is_another_environment_while_an_old_job_runs_on(world):
    requires(world, "tiny==1.0\n")
    first = await world.sync()
    waiting = "import sys, time, tiny\nprint(1, flush=True)\ntime.sleep(30)\nimport no_such"
    job = await world.start(waiting)
    await world.jobs.first_bytes(job)
    requires(world, "tiny==2.0\n")
    assert (await world.printed(VERSION)).startswith("2.0 ")
    link = os.path.realpath(world.envs / "by-workspace" / "workspace-ws")
    assert os.path.basename(link) != first.name
    managed = world.environments._managed
    for name in world.made():
        os.utime(world.envs / name, (0, 0))
    assert managed.collect() == []  # one has a job, the other is the workspace's latest
    await world.jobs.manager.stop(job.id, now=True)
    await world.jobs.end(job)
    assert managed.collect() == [first.name]
    assert world.made() == {os.path.basename(link)}
    assert (await world.printed(VERSION)).startswith("2.0 ")


async def test_what_another_machine_of_the_home_uses_is_spared(folder, world):
    requires(world, "tiny==1.0\n")
    first = await world.sync()
    waiting = "import time\nprint(1, flush=True)\ntime.sleep(30)"
    async with at(folder, machine="there") as other:
        job = await other.start(waiting)
        await other.jobs.first_bytes(job)
        requires(world, "tiny==2.0\n")
        await world.sync()
        os.utime(world.envs / first.name, (0, 0))
        assert world.environments._managed.collect() == []
        await other.jobs.manager.stop(job.id, now=True)
        await other.jobs.end(job)
        assert other.environments._managed.collect() == [first.name]


async def test_one_that_was_asked_for_just_now_is_not_collected(world):
    requires(world, "tiny==1.0\n")
    await world.sync()
    requires(world, "tiny==2.0\n")
    await world.sync()
    assert world.environments._managed.collect() == []
    assert len(world.made()) == 2


async def test_what_a_forgotten_workspace_used_is_removed(world):
    requires(world, "tiny==1.0\n")
    made = await world.sync()
    link = world.envs / "by-workspace" / "workspace-ws"
    for path in (made.prefix, link):
        os.utime(path, (0, 0), follow_symlinks=False)
    await world.sync()  # it is used again
    os.utime(made.prefix, (0, 0))
    assert world.environments._managed.collect() == []
    os.utime(link, (0, 0), follow_symlinks=False)
    assert world.environments._managed.collect() == [made.name]
    assert not link.is_symlink()


async def test_what_uv_keeps_is_emptied_after_two_months(world):
    requires(world, "tiny==1.0\n")
    first = await world.sync()
    cache = world.envs / ".cache"
    os.utime(cache / "CACHEDIR.TAG", (0, 0))
    (world.envs / ".new-other").mkdir()  # another agent of this home is just making one
    requires(world, "tiny==2.0\n")
    await world.sync()
    assert cache.is_dir()
    (world.envs / ".new-other").rmdir()
    requires(world, "tiny==1.0\n# and no more\n")
    await world.sync()
    assert not cache.exists()
    assert list(Path(first.prefix).glob("lib/*/site-packages/tiny*")), "what is in use stays"


async def test_a_question_makes_nothing(world):
    requires(world, "tiny==1.0\n")
    shown, _ = await world.environments.show("ws", "", MANAGED)
    assert (shown.interpreter, "`rdev env sync`" in shown.why) == ("", True)
    assert not world.envs.exists()
    await world.sync()
    shown, difference = await world.environments.show("ws", "", MANAGED)
    assert shown.interpreter == f"{shown.environment.prefix}/bin/python"
    assert difference.values["VIRTUAL_ENV"] == shown.environment.prefix


async def test_two_at_once_make_one(folder, world):
    requires(world, "tiny==1.0\nother==1.0\n")
    async with at(folder, machine="there") as other:
        made = await asyncio.gather(world.sync(), world.sync(), other.sync(), other.sync())
    assert len({each.prefix for each in made}) == 1
    assert world.made() == {made[0].name}
    assert not [name for name in os.listdir(world.envs) if name.startswith(".new-")]
    assert (await world.printed(VERSION)).startswith("1.0 ")


async def test_what_cannot_be_had_is_said_and_leaves_nothing_behind(world):
    requires(world, "absent==1.0\n")
    with pytest.raises(EnvironmentFailed, match="absent"):
        await world.sync()
    with pytest.raises(EnvironmentFailed, match="absent"):
        await world.start("pass")
    assert world.made() == set()
    assert not [name for name in os.listdir(world.envs) if name.startswith(".new-")]


async def test_whoever_goes_away_meanwhile_leaves_nothing_half_made(world):
    requires(world, "tiny==1.0\n")
    going = asyncio.ensure_future(world.sync())
    async with asyncio.timeout(30):
        while not world.told:
            await asyncio.sleep(0)
    going.cancel()
    with pytest.raises(asyncio.CancelledError):
        await going
    assert not [name for name in os.listdir(world.envs) if name.startswith(".new-")]
    assert (await world.sync()).name in world.made()


async def test_a_workspace_without_a_lock_is_refused(world):
    with pytest.raises(EnvironmentFailed, match="no lock file"):
        await world.start("pass")


async def test_a_locked_project_is_made_as_locked_and_found_where_it_lies(world):
    project = "[project]\nname = 'mine'\nversion = '1'\nrequires-python = '>=3.10'\n"
    project += "dependencies = ['tiny<2']\n[build-system]\nrequires = ['none']\n"
    (world.workspace / "pyproject.toml").write_text(project)
    (world.workspace / "src" / "mine").mkdir(parents=True)
    (world.workspace / "src" / "mine" / "__init__.py").write_text("name = 'mine'\n")
    environment = {**os.environ, **world.login, "UV_PYTHON": sys.executable}
    subprocess.run([UV, "lock", "-q"], cwd=world.workspace, env=environment, check=True)
    source = "import mine, sys, tiny; print(mine.name, tiny.__version__, sys.prefix)"
    printed = (await world.printed(source)).split()
    assert printed[:2] == ["mine", "1.0"]
    assert Path(printed[2]).parent == world.envs
    assert not (world.workspace / ".venv").exists()


async def test_a_pylock_is_met(world):
    (world.workspace / "in.txt").write_text("tiny<2\n")
    environment = {**os.environ, **world.login, "UV_PYTHON": sys.executable}
    compile_it = [UV, "pip", "compile", "-q", "in.txt", "--format", "pylock.toml", "-o"]
    subprocess.run([*compile_it, "pylock.toml"], cwd=world.workspace, env=environment, check=True)
    assert (await world.printed(VERSION)).startswith("1.0 ")


async def test_the_users_own_environment_is_left_alone(folder, world):
    requires(world, "tiny==1.0\n")
    own = folder / "home" / "active"
    subprocess.run([UV, "venv", "-q", own], env={**os.environ, **world.login}, check=True)
    before = sorted(own.rglob("*"))
    async with at(folder, VIRTUAL_ENV=str(own), PATH=f"{own}/bin:{login_path(folder)}") as active:
        made = await active.sync()
        assert (await active.printed(VERSION)) == f"1.0 {made.prefix}\n"
    assert sorted(own.rglob("*")) == before


async def test_uv_is_fetched_by_pip_where_there_is_none(folder, monkeypatch):
    # A package of that name whose program says what it is given stands for the real one.
    wheel(folder / "wheels", "uv", "1.0")
    login = {
        "HOME": str(folder / "home"),
        "PATH": login_path(folder),
        "PIP_NO_INDEX": "1",
        "PIP_FIND_LINKS": str(folder / "wheels"),
    }
    monkeypatch.setattr(sys, "executable", str(folder / "dist" / "bin" / "python"))
    told = []
    envs = str(folder / "state" / "envs")
    with pytest.raises(EnvironmentFailed) as failed:
        await find_uv(envs, {**login, "PIP_FIND_LINKS": ""}, tell=told.append)
    assert "install uv on the host" in failed.value.hint
    assert os.listdir(envs) == []
    assert await find_uv(envs, login, tell=told.append) == f"{envs}/.uv/bin/uv"
    assert told == ["uv is not here; it is fetched by pip"] * 2
    assert os.listdir(envs) == [".uv"]
    assert await find_uv(envs, {**login, "PATH": "/none"}, tell=print) == f"{envs}/.uv/bin/uv"
