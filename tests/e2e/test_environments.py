"""The environment of a run, as a person meets it at the command line."""

import json
import os

import pytest
from tests.support.prefixes import conda_env, package, script, virtual
from tests.support.wheels import wheel

pytestmark = pytest.mark.shared_agent

PRINT = "import os, sys; print(sys.executable, os.environ.get('CUDA_HOME'), os.environ.get('K'))"


@pytest.fixture
def vision(rdev):
    prefix = conda_env(rdev.home / "miniforge3" / "envs" / "vision")
    script(prefix, "cuda.sh", "export CUDA_HOME=$CONDA_PREFIX/cuda\n")
    package(prefix, "onlythere")
    rdev.write("train.py", PRINT)
    return prefix


def test_an_environment_is_named_and_ps_shows_it(rdev, vision):
    done = rdev.run("run", "--env", "vision", "-e", "K=1", "train.py")
    assert done.stdout == f"{vision}/bin/python {vision}/cuda 1\n", done.stderr
    job = rdev.jobs(ended=True)[0]
    assert (job["interpreter"], job["env"]) == (f"{vision}/bin/python", "conda env vision")


def test_the_configuration_names_it_and_flags_beat_that(rdev, vision):
    rdev.write("rdev.toml", "[env]\nname = 'vision'\nprelude = 'export K=prelude'\n")
    assert rdev.run("run", "train.py").stdout == f"{vision}/bin/python {vision}/cuda prelude\n"
    other = virtual(rdev.cwd / "other")
    done = rdev.run("run", "--env", "./other", "--set", "K=2", "train.py")
    assert done.stdout == f"{other}/bin/python None 2\n", done.stderr
    done = rdev.run("run", "--python", f"{other}/bin/python", "train.py")
    assert done.stdout == f"{other}/bin/python None prelude\n", done.stderr


def test_the_namesake_of_the_environment_that_is_active_here(rdev, vision):
    active = {"CONDA_DEFAULT_ENV": "vision"}
    assert rdev.run("run", "train.py", env=active).stdout.startswith(f"{vision}/bin/python")
    assert "miniforge3" not in rdev.run("run", "train.py").stdout
    shown = rdev.run("env", "show", env=active).stdout
    assert "the laptop's active environment has the same name" in shown
    assert f"sets    CUDA_HOME={vision}/cuda" in shown


def test_what_misses_a_module_says_who_has_it_in_its_last_line(rdev, vision):
    rdev.write("train.py", "print('begun')\nimport onlythere\n")
    done = rdev.run("run", "train.py")
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    interpreter = rdev.jobs(ended=True)[0]["interpreter"]
    assert last.startswith(f"rdev: {interpreter}")
    assert last.endswith("has no onlythere; onlythere is in: conda env vision (--env vision)")
    for verb in ("logs", "attach"):  # of those who were not there
        assert rdev.run(verb).stderr.splitlines()[-1] == last
    assert last not in rdev.run("logs", "--json").stderr
    assert rdev.run("run", "--env", "vision", "train.py").returncode == 0


def test_a_module_that_nobody_has_and_a_failure_that_is_none_of_that(rdev):
    rdev.write("train.py", "import nobody_has_this")
    done = rdev.run("run", "train.py")
    assert "neither has any environment of `rdev env ls`" in done.stderr.splitlines()[-1]
    rdev.write("train.py", "import sys; print('No module named x', file=sys.stderr); sys.exit(3)")
    done = rdev.run("run", "train.py")
    assert (done.returncode, "env ls" in done.stderr) == (3, False)
    quiet = rdev.run("run", "-q", "train.py")
    assert quiet.stderr == "No module named x\n"


def test_a_prelude_that_fails_is_one_line_and_nothing_starts(rdev, vision):
    rdev.write("rdev.toml", "[env]\nprelude = 'echo no module cuda/99 >&2; false'\n")
    done = rdev.run("run", "train.py")
    assert done.returncode == 125
    error, hint = done.stderr.splitlines()[-2:]
    assert error == "error: unable to run the prelude of the environment: no module cuda/99"
    assert hint.startswith("hint: ")
    assert rdev.jobs(ended=True) == []


def test_an_environment_that_is_not_there(rdev, vision):
    done = rdev.run("run", "--env", "vison", "train.py")
    assert done.returncode == 125
    assert "unable to use the environment 'vison'" in done.stderr
    assert "it has vision" in done.stderr
    assert rdev.run("env", "show", "--env", "vison").returncode == 1


def test_a_shell_and_commands_beside_a_job_are_where_the_job_is(rdev, vision):
    rdev.write("wait.py", "import time; print(1, flush=True); time.sleep(60)")
    rdev.run("run", "-d", "--name", "waits", "--env", "vision", "wait.py")
    done = rdev.run("exec", "waits", "--", "python", "-c", PRINT)
    assert done.stdout == f"{vision}/bin/python {vision}/cuda None\n", done.stderr
    rdev.run("stop", "waits", "--now")


def test_the_environments_of_a_host_are_listed(rdev, vision):
    package(vision, "torch", "2.13.0+cpu")
    odd = os.path.join(os.fsencode(rdev.home), b"envs", b"\xff")  # nobody's name is text by law
    os.makedirs(odd)
    with open(os.path.join(odd, b"pyvenv.cfg"), "wb"):
        pass
    found = {each["name"]: each for each in rdev.json("env", "ls")}
    assert found["vision"]["kind"] == "conda"
    assert found["vision"]["torch"] == "2.13.0+cpu"
    assert found["vision"]["prefix"] == str(vision)
    rows = rdev.run("env", "ls").stdout.splitlines()
    assert rows[0].split() == ["NAME", "KIND", "PYTHON", "TORCH", "PREFIX"]
    assert ["vision", "conda", "3.11.8", "2.13.0+cpu", str(vision)] in [r.split() for r in rows]
    shown = rdev.json("env", "show", "--env", "vision")
    assert shown["environment"] == found["vision"]
    assert shown["variables"]["CUDA_HOME"] == f"{vision}/cuda"


@pytest.fixture
def index(rdev):
    wheels = rdev.home / "wheels"
    for version in ("1.0", "2.0"):
        wheel(wheels, "tiny", version)
    return {"UV_FIND_LINKS": str(wheels), "UV_NO_INDEX": "1", "UV_OFFLINE": "1"}


@pytest.mark.own_agent
def test_a_managed_environment_is_made_told_of_and_used_again(rdev, index):
    rdev.write("rdev.toml", "[env]\nmanage = true\n")
    rdev.write("requirements.txt", "tiny==1.0\n")
    rdev.write("train.py", "import sys, tiny; print(tiny.__version__, sys.prefix)")
    early = rdev.run("env", "show", env=index)
    assert (early.returncode, "the host does not have it yet" in early.stderr) == (1, True)
    done = rdev.run("run", "train.py", env=index)
    version, prefix = done.stdout.split()
    assert version == "1.0", done.stderr
    assert prefix.startswith(str(rdev.home / ".rdev" / "envs"))
    assert "rdev: making the environment of requirements.txt" in done.stderr
    again = rdev.run("run", "train.py", env=index)
    assert (again.stdout, "making" in again.stderr) == (done.stdout, False)
    assert rdev.jobs(ended=True)[0]["env"] == f"managed env {os.path.basename(prefix)}"

    rdev.write("requirements.txt", "tiny==2.0\n")
    synced = json.loads(rdev.run("env", "sync", "--json", env=index).stdout)
    assert synced["kind"] == "managed"
    assert synced["prefix"] != prefix
    links = list((rdev.home / ".rdev" / "envs" / "by-workspace").iterdir())
    assert [str(link.resolve()) for link in links] == [synced["prefix"]]


@pytest.mark.slow
@pytest.mark.own_agent
def test_beside_a_job_its_own_environment_is_used_though_the_lock_has_changed(rdev, index):
    rdev.write("rdev.toml", "[env]\nmanage = true\n")
    rdev.write("requirements.txt", "tiny==1.0\n")
    rdev.write("wait.py", "import time; print(1, flush=True); time.sleep(60)")
    assert rdev.run("run", "-d", "--name", "waits", "wait.py", env=index).returncode == 0
    rdev.write("requirements.txt", "tiny==2.0\n")
    rdev.run("env", "sync")
    command = ("python", "-c", "import tiny; print(tiny.__version__)")
    assert rdev.run("exec", "waits", "--", *command).stdout == "1.0\n"
    rdev.run("stop", "waits", "--now")
    assert rdev.run("run", "--", *command).stdout == "2.0\n"


@pytest.mark.slow
def test_a_prelude_may_take_longer_than_other_calls(rdev):
    rdev.write("rdev.toml", "[env]\nprelude = 'sleep 33; export K=late'\n")
    rdev.write("train.py", PRINT)
    done = rdev.run("run", "train.py", timeout=100)
    assert done.stdout.endswith(" None late\n"), done.stderr


@pytest.mark.own_agent
def test_a_lock_that_cannot_be_met_is_said_in_ones_own_words(rdev, index):
    rdev.write("rdev.toml", "[env]\nmanage = true\n")
    rdev.write("requirements.txt", "absent==1.0\n")
    rdev.write("train.py", "")
    done = rdev.run("run", "train.py", env=index)
    assert done.returncode == 125
    assert "error: unable to make the environment: No solution found" in done.stderr
    assert "absent" in done.stderr
    assert "Traceback" not in done.stderr
