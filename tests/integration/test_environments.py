"""What jobs run in: real jobs in real environments, activated by real shells."""

import contextlib
import os
import sys
import time

import pytest
from tests.support.jobs import jobs_in, tidy
from tests.support.prefixes import (
    conda_env,
    login_path,
    own_variables,
    package,
    script,
    virtual,
)

from rdev.agent.environment.manager import EnvironmentManager
from rdev.agent.jobs.resolve import Surroundings
from rdev.protocol.errors import EnvironmentFailed, EnvironmentNotFound
from rdev.wire.home import Home
from rdev.wire.job import CommandKind, EnvironmentChoice, JobSpec, JobState

SHOW = (
    "import os, sys; print(sys.executable); [print(k, v, sep='=') for k, v in os.environ.items()]"
)


class World:
    """A host: a login's home, a workspace, and the agent's managers."""

    def __init__(self, folder, jobs, environments, login):
        self.home, self.workspace = folder / "home", folder / "workspace"
        self.state = folder / "state"
        self.jobs, self.environments, self.login = jobs, environments, login

    async def run(self, **options):
        job = await self.start(**options)
        return await self.jobs.end(job)

    async def start(self, **options):
        kind = options.pop("kind", CommandKind.SCRIPT)
        options = {"workspace_id": "ws", "grace": 1.0, **options}
        spec = JobSpec(kind, options.pop("target", "show.py"), **options)
        return await self.jobs.manager.create(os.urandom(8).hex(), spec)

    async def seen(self, **options):
        """What a job sees: its interpreter and its variables."""
        ended = await self.run(**options)
        printed = (await self.jobs.printed(ended, is_endless=False)).stdout.decode()
        assert ended.state is JobState.SUCCEEDED, printed
        interpreter, *lines = printed.splitlines()
        return ended, interpreter, dict(line.split("=", 1) for line in lines if "=" in line)

    def live(self):
        jobs = self.state / "hosts" / "here" / "jobs"
        return [name for name in os.listdir(jobs) if not name.startswith(".")]


@pytest.fixture
async def world(tmp_path):
    for name in ("home", "workspace", "state"):
        (tmp_path / name).mkdir(mode=0o700)
    (tmp_path / "workspace" / "show.py").write_text(SHOW)
    async with at(tmp_path) as made:
        yield made


@contextlib.asynccontextmanager
async def at(folder, *, path=None, patience=20.0, **variables):
    login = {"HOME": str(folder / "home"), "PATH": path or login_path(folder), **variables}
    workspaces = {"ws": str(folder / "workspace")}
    environments = EnvironmentManager(
        Home(str(folder / "state"), "here"),
        login=lambda: dict(login),
        workspaces=workspaces.get,
        patience=patience,
    )
    async with (
        tidy(folder / "state" / "hosts" / "here" / "jobs") as jobs_dir,
        jobs_in(
            jobs_dir,
            workspaces=workspaces,
            surroundings=Surroundings(login, 0o022, None),
            environments=environments,
        ) as jobs,
    ):
        yield World(folder, jobs, environments, login)


@pytest.fixture
def vision(tmp_path):
    """A conda environment whose activation changes much."""
    prefix = conda_env(tmp_path / "home" / "miniforge3" / "envs" / "vision")
    script(prefix, "a-cuda.sh", "export CUDA_HOME=$CONDA_PREFIX/cuda\n")
    script(
        prefix,
        "b-libs.sh",
        'export LD_LIBRARY_PATH="$CUDA_HOME/lib64:${LD_LIBRARY_PATH:-/none}"\n'
        "echo noise; echo noise >&2; unset UNWANTED; export MANY='one\ntwo'; false\n",
    )
    own_variables(prefix, WANDB_PROJECT="vision", GONE="***unset***")
    return prefix


async def test_a_conda_environment_is_found_by_name_and_its_activation_is_in_the_job(
    tmp_path, world, vision
):
    async with at(tmp_path, UNWANTED="1", GONE="1", LD_LIBRARY_PATH="/site") as host:
        job, interpreter, variables = await host.seen(env=EnvironmentChoice(name="vision"))
    assert interpreter == f"{vision}/bin/python"
    assert (job.interpreter, job.env) == (interpreter, "conda env vision")
    assert variables["CONDA_PREFIX"] == str(vision)
    assert variables["CONDA_DEFAULT_ENV"] == "vision"
    assert variables["PATH"].startswith(f"{vision}/bin:")
    assert variables["CUDA_HOME"] == f"{vision}/cuda"
    assert variables["LD_LIBRARY_PATH"] == f"{vision}/cuda/lib64:/site"
    assert variables["WANDB_PROJECT"] == "vision"
    assert not {"UNWANTED", "GONE"} & variables.keys()


async def test_the_laptops_environment_has_a_namesake_here(world, vision):
    job, _, variables = await world.seen(env=EnvironmentChoice(active="vision"))
    assert job.env == "conda env vision"
    assert variables["CUDA_HOME"] == f"{vision}/cuda"


async def test_a_laptops_environment_without_a_namesake_changes_nothing(world):
    job, _, variables = await world.seen(env=EnvironmentChoice(active="only-there"))
    assert job.env == ""
    assert variables["PATH"] == world.login["PATH"]


async def test_the_workspaces_own_comes_before_the_namesake(world, vision):
    own = virtual(world.workspace / ".venv")
    job, interpreter, variables = await world.seen(env=EnvironmentChoice(active="vision"))
    assert (job.env, interpreter) == ("venv .venv", f"{own}/bin/python")
    assert variables["VIRTUAL_ENV"] == str(own)
    assert "CUDA_HOME" not in variables


async def test_ranks_have_what_activation_sets(world, vision):
    package(vision, "torch")  # torchrun is the interpreter's own, and this one is none
    sites = next(vision.glob("lib/python3*/site-packages"))
    (sites / "torch.py").unlink()
    (sites / "torch" / "distributed").mkdir(parents=True)
    (sites / "torch" / "distributed" / "run.py").write_text(
        "import os, sys; a = sys.argv[sys.argv.index('--') + 1:]\n"
        "os.environ['RANK'] = '0'; os.execv(a[0], a)\n"
    )
    ended = await world.run(env=EnvironmentChoice(name="vision"), processes=1)
    log = world.jobs.files(ended).log(0, "stdout")
    with open(log, encoding="utf-8") as file:
        printed = file.read()
    assert f"{vision}/bin/python\n" in printed
    assert f"CUDA_HOME={vision}/cuda\n" in printed


async def test_programs_have_it_too(world, vision):
    ended = await world.run(
        kind=CommandKind.PROGRAM,
        target="python",
        args=("show.py",),
        env=EnvironmentChoice(name="vision"),
    )
    printed = (await world.jobs.printed(ended, is_endless=False)).stdout.decode()
    assert printed.startswith(f"{vision}/bin/python\n")
    assert (ended.interpreter, ended.env) == ("", "conda env vision")


async def test_leaving_what_the_login_has_activated(tmp_path, world, vision):
    base = conda_env(tmp_path / "home" / "miniforge3")
    script(base, "z.sh", "export LEFT=$CONDA_PREFIX; unset BASE_ONLY\n", folder="deactivate.d")
    path = f"{base}/bin:{login_path(tmp_path)}"
    active = {"CONDA_PREFIX": str(base), "CONDA_SHLVL": "1", "BASE_ONLY": "1"}
    async with at(tmp_path, path=path, **active) as host:
        _, _, variables = await host.seen(env=EnvironmentChoice(name="vision"))
        job, interpreter, untouched = await host.seen()
    assert f"{base}/bin:" not in variables["PATH"]
    assert "BASE_ONLY" not in variables
    assert variables["CONDA_PREFIX"] == str(vision)
    # Without a choice the login's own is used as the login has it.
    assert (job.env, interpreter) == ("conda env base", f"{base}/bin/python3")
    assert untouched["PATH"] == path
    assert untouched["BASE_ONLY"] == "1"


async def test_an_environment_by_its_folder_and_one_that_is_not_there(world, vision, tmp_path):
    virtual(world.workspace / "envs" / "mine")
    job, _, _ = await world.seen(env=EnvironmentChoice(name="envs/mine"))
    assert job.env == "venv mine"
    job, _, _ = await world.seen(env=EnvironmentChoice(name="~/miniforge3/envs/vision"))
    assert job.env == "conda env vision"
    before = world.live()
    with pytest.raises(EnvironmentNotFound, match="it has vision"):
        await world.start(env=EnvironmentChoice(name="vison"))
    with pytest.raises(EnvironmentNotFound, match="no conda or virtual environment"):
        await world.start(env=EnvironmentChoice(name="./no"))
    conda_env(world.home / "miniforge3" / "envs" / "rlang", python=False)
    with pytest.raises(EnvironmentNotFound, match="has no interpreter"):
        await world.start(env=EnvironmentChoice(name="rlang"))
    assert world.live() == before


async def test_a_prelude_runs_in_a_login_shell_and_its_changes_are_in_the_job(world):
    (world.home / ".bash_profile").write_text(
        "echo noise\nmodule() { export LOADED=$2; PATH=/opt/cuda/bin:$PATH; cat; }\n"
    )
    choice = EnvironmentChoice(prelude="module load cuda/12.4\ncd /tmp")
    _, _, variables = await world.seen(env=choice)
    assert variables["LOADED"] == "cuda/12.4"
    assert variables["PATH"] == f"/opt/cuda/bin:{world.login['PATH']}"


async def test_a_prelude_may_bring_the_python_that_the_job_runs_by(world):
    prefix = virtual(world.home / "modules" / "python")
    choice = EnvironmentChoice(prelude=f"PATH={prefix}/bin:$PATH")
    _, interpreter, _ = await world.seen(env=choice)
    assert interpreter == f"{prefix}/bin/python3"


@pytest.mark.parametrize(
    ("prelude", "cause"),
    [
        ("echo 'no such module: cuda' >&2; false; true", "no such module: cuda"),
        ("exit 0", "it ended the shell with status 0"),
        ("no-such-command", "no-such-command: command not found"),
    ],
)
async def test_a_prelude_that_fails_says_why_and_nothing_is_started(world, prelude, cause):
    with pytest.raises(EnvironmentFailed) as failed:
        await world.start(env=EnvironmentChoice(prelude=prelude))
    assert cause in failed.value.cause
    assert world.live() == []


async def test_a_prelude_that_hangs_is_given_up(tmp_path, world):
    async with at(tmp_path, patience=0.5) as host:
        begun = time.monotonic()
        with pytest.raises(EnvironmentFailed, match="did not end within"):
            await host.start(env=EnvironmentChoice(prelude="sleep 60"))
        assert time.monotonic() - begun < 10


async def test_a_daemon_that_a_prelude_starts_keeps_nobody_waiting(world):
    choice = EnvironmentChoice(prelude="sleep 20 & export DAEMON=$!")
    begun = time.monotonic()
    _, _, variables = await world.seen(env=choice)
    assert time.monotonic() - begun < 15
    os.kill(int(variables["DAEMON"]), 9)


async def test_shells_are_run_once_until_a_file_changes(world, vision):
    count = world.home / "count"
    counting = script(vision, "c.sh", f"echo x >> {count}\nexport VERSION=1\n")
    choice = EnvironmentChoice(name="vision", prelude="echo x >> $HOME/count")
    for _ in range(2):
        _, _, variables = await world.seen(env=choice)
    assert (count.read_text(), variables["VERSION"]) == ("x\nx\n", "1")
    counting.write_text(f"echo x >> {count}\nexport VERSION=2\n")
    os.utime(counting, ns=(1, 1))
    _, _, variables = await world.seen(env=choice)
    assert (count.read_text(), variables["VERSION"]) == ("x\nx\nx\n", "2")
    await world.environments.sync("ws", "", choice, tell=print, refresh=True)
    assert count.read_text() == "x\n" * 5


async def test_an_environment_whose_python_went_away_is_passed_over_and_that_is_said(world):
    base = world.home / "python3"
    base.symlink_to(sys.executable)
    own = virtual(world.workspace / ".venv")
    for name in ("python", "python3"):
        (own / "bin" / name).unlink(missing_ok=True)
        (own / "bin" / name).symlink_to(base)
    assert (await world.seen())[1].startswith(str(own))
    base.unlink()  # as a new release of the system does; nothing in the environment changes
    assert not (await world.seen())[1].startswith(str(own))
    prepared, _ = await world.environments.show("ws", "", EnvironmentChoice())
    assert prepared.why.endswith("the workspace's .venv has no Python that can be run")


async def test_another_login_environment_is_activated_anew(tmp_path, world, vision):
    choice = EnvironmentChoice(prelude="export DOUBLED=$ONE$ONE")
    for value in ("a", "b"):
        async with at(tmp_path, ONE=value) as host:
            _, _, variables = await host.seen(env=choice)
            assert variables["DOUBLED"] == value * 2


async def test_an_agents_own_python_runs_nobodys_script(tmp_path, world):
    ours = virtual(tmp_path / "state" / "dist" / "1.0")
    async with at(tmp_path, path=f"{ours}/bin:{login_path(tmp_path)}") as host:
        _, interpreter, _ = await host.seen()
        assert not interpreter.startswith(str(ours))
        found = await host.environments.find("ws")
        assert not [each for each in found if each.prefix.startswith(str(ours))]
        for choice in ({"python": f"{ours}/bin/python"}, {"env": EnvironmentChoice(str(ours))}):
            with pytest.raises(EnvironmentNotFound, match="rdev's own"):
                await host.start(**choice)


async def test_a_named_python_brings_the_environment_around_it(world, vision):
    job, interpreter, variables = await world.seen(
        python=str(vision / "bin" / "python"), env=EnvironmentChoice(active="other")
    )
    assert interpreter == f"{vision}/bin/python"
    assert variables["CUDA_HOME"] == f"{vision}/cuda"
    assert job.env == "conda env vision"


async def test_a_python_by_its_version(world):
    (world.home.parent / "login" / "bin" / "python3.77").symlink_to(sys.executable)
    job = await world.run(python="3.77")
    assert job.interpreter == str(world.home.parent / "login" / "bin" / "python3.77")


async def test_a_python_that_is_not_there_fails_as_a_command_does(world):
    for python in ("/no/such/python", "python3.99"):
        ended = await world.run(python=python)
        assert (ended.state, ended.exit_code) == (JobState.FAILED, 127)


async def test_what_has_a_module_is_found_without_importing_it(world, vision):
    package(vision, "torch", "2.13.0")
    virtual(world.workspace / ".venv")
    found = await world.environments.find("ws", module="torch")
    assert [each.name for each in found if each.prefix.startswith(str(world.home))] == ["vision"]
    everything = await world.environments.find("ws")
    assert everything[0].name == ".venv"
    assert next(each for each in everything if each.name == "vision").torch == "2.13.0"


async def test_show_says_what_and_why_and_which_variables(world, vision):
    shown, difference = await world.environments.show("ws", "", EnvironmentChoice(name="vision"))
    assert shown.environment is not None
    assert (shown.environment.name, shown.why) == ("vision", "the environment was named")
    assert {"CUDA_HOME", "MANY"} <= difference.values.keys()
    assert difference.added["PATH"] == (f"{vision}/bin:", "")
    shown, difference = await world.environments.show("ws", "", EnvironmentChoice())
    assert "login's PATH" in shown.why
    assert not difference.values


async def test_hundreds_of_environments_are_listed_at_once(world):
    for number in range(100):
        sites = world.home / f"miniforge3/envs/e{number}/lib/python3.11/site-packages"
        sites.mkdir(parents=True)
        prefix = sites.parent.parent.parent
        (prefix / "conda-meta").mkdir()
        (prefix / "bin").mkdir()
        (prefix / "bin" / "python").symlink_to(sys.executable)
    await world.environments.find("")
    begun = time.monotonic()
    assert len(await world.environments.find("")) >= 100
    assert time.monotonic() - begun < 1.0
