"""Another user's environments, on a host that is reached by a real ssh and has no network."""

import os

import pytest
from tests.support.guest import guest, torch_site
from tests.support.laptops import Laptop, installed_rdev, wheel_cache
from tests.support.sshd import NO_NETWORK, sshd

if os.geteuid() != 0:
    pytest.skip("only root can make a second user", allow_module_level=True)

# Each begins with a first contact; what they see of environments is seen without ssh, too.
pytestmark = pytest.mark.slow

TRAIN = (
    "import os, sys\n"
    "words = (sys.executable, *map(os.environ.get, ('CUDA_HOME', 'LOADED', 'LD_LIBRARY_PATH')))\n"
    "print(*words, os.environ.get('RANK', ''))\n"
)


@pytest.fixture(scope="session")
def wheels(tmp_path_factory):
    return wheel_cache(tmp_path_factory)


@pytest.fixture(scope="module")
def command(tmp_path_factory):
    return installed_rdev(tmp_path_factory.mktemp("installed"))


@pytest.fixture
def user():
    with guest() as person:
        yield person


@pytest.fixture
def laptop(rdev, user, wheels, command):
    with sshd(user.name, inside=NO_NETWORK) as server:
        rdev.write("train.py", TRAIN)
        yield Laptop(rdev, server, wheels, command)


def conda(user, *, site=None):
    """A conda environment of that user, as conda leaves it, around the system's Python."""
    prefix = user.venv("miniforge3/envs/vision", site=site)
    (prefix / "pyvenv.cfg").rename(prefix / "bin" / "pyvenv.cfg")
    inside = "miniforge3/envs/vision"
    user.write(f"{inside}/conda-meta/history", "")
    user.write(f"{inside}/conda-meta/python-3.11.2-h_0.json", "{}")
    user.write(f"{inside}/etc/conda/activate.d/a.sh", "export CUDA_HOME=$CONDA_PREFIX/cuda\n")
    libraries = 'export LD_LIBRARY_PATH="$CUDA_HOME/lib"\n'
    user.write(f"{inside}/etc/conda/activate.d/b.sh", f"echo noise\n{libraries}")
    return prefix


def test_a_conda_environment_by_name_by_its_namesake_and_after_a_prelude(laptop, user):
    vision = conda(user)
    user.write("miniforge3/envs/vision/lib/python3.11/site-packages/onlythere.py", "")
    user.write(".bash_profile", "echo welcome\nmodule() { export LOADED=$2; }\n")
    expected = f"{vision}/bin/python {vision}/cuda None {vision}/cuda/lib \n"
    done = laptop.job("--env", "vision", "train.py")
    assert done.stdout == expected, done.stderr

    laptop.variables["CONDA_DEFAULT_ENV"] = "vision"
    laptop.rdev.write("rdev.toml", "[env]\nprelude = 'module load cuda/12.4'\n")
    assert laptop.job("train.py").stdout == expected.replace("None", "cuda/12.4")

    del laptop.variables["CONDA_DEFAULT_ENV"]
    laptop.rdev.write("train.py", "import onlythere\n")
    for missing in (["train.py"], ["-m", "onlythere"]):
        last = laptop.job(*missing).stderr.splitlines()[-1]
        assert "/python3 has no onlythere; onlythere is in: conda env vision" in last
        assert last.endswith("(--env vision)")

    laptop.rdev.write("rdev.toml", "[env]\nprelude = 'echo no such module >&2; false'\n")
    done = laptop.job("train.py")
    assert (done.returncode, "error: unable to run the prelude" in done.stderr) == (125, True)


def test_ranks_of_a_real_torch_have_what_activation_sets(laptop, user):
    with torch_site(user) as site:
        vision = conda(user, site=site)
        done = laptop.job("--env", "vision", "--nproc", "2", "train.py")
        user.end_processes()
    line = f"{vision}/bin/python {vision}/cuda None {vision}/cuda/lib"
    assert sorted(done.stdout.splitlines()) == [f"{line} 0", f"{line} 1"], done.stderr
