"""Which interpreter and environment a run from this laptop asks its host for."""

import pytest

from rdev.client.config import Config
from rdev.client.environments import HostEnvironment, module_in, wanted
from rdev.client.logs import Chunk, Gap
from rdev.wire.job import EnvironmentChoice


@pytest.fixture(autouse=True)
def laptop(monkeypatch):
    for name in ("VIRTUAL_ENV", "CONDA_PREFIX", "CONDA_DEFAULT_ENV"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def active(tmp_path, monkeypatch):
    python = tmp_path / "active" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.touch(0o755)
    monkeypatch.setenv("VIRTUAL_ENV", str(tmp_path / "active"))
    return str(python)


def test_a_path_of_the_laptop_says_nothing_elsewhere(tmp_path, active):
    assert wanted("gpu1", str(tmp_path), Config()) == ("", EnvironmentChoice())
    assert wanted("gpu1", str(tmp_path), Config(python="./p"))[0] == "./p"


@pytest.mark.parametrize(
    ("name", "told"), [("vision", "vision"), ("base", ""), ("/home/me/envs/x", ""), ("", "")]
)
def test_the_name_of_the_active_environment_travels_unless_it_is_nobodys(
    tmp_path, monkeypatch, name, told
):
    monkeypatch.setenv("CONDA_DEFAULT_ENV", name)
    assert wanted("gpu1", str(tmp_path), Config())[1].active == told


def test_on_this_machine_what_is_active_is_meant_unless_something_is_named(tmp_path, active):
    root = str(tmp_path)
    assert wanted("local", root, Config())[0] == active
    for env in (EnvironmentChoice("vision"), EnvironmentChoice(managed=True)):
        assert wanted("local", root, Config(env=env)) == ("", env)
    assert wanted("local", root, Config(python="python3.12"))[0] == "python3.12"


def test_on_this_machine_a_path_is_where_the_person_stands(tmp_path, monkeypatch):
    (tmp_path / "sub" / "mine").mkdir(parents=True)
    (tmp_path / "named").mkdir()
    (tmp_path / "named" / "pyvenv.cfg").touch()
    monkeypatch.chdir(tmp_path / "sub")

    def named(name):
        return wanted("local", str(tmp_path), Config(env=EnvironmentChoice(name)))[1].name

    assert named("./mine") == str(tmp_path / "sub" / "mine")
    assert named("named") == str(tmp_path / "named")
    assert named("vision") == "vision"


def test_environments_are_called_as_people_call_them():
    words = [HostEnvironment("x", kind, "/x", "").words for kind in ("conda", "venv", "managed")]
    assert words == ["conda env x", "venv x", "managed env x"]


async def printed(*items):
    for item in items:
        yield item


@pytest.mark.parametrize(
    ("items", "module"),
    [
        ([b"Traceback\n  x\nModuleNotFoundError: No module named 'torch'\n"], "torch"),
        ([b"ModuleNotFoundError: No mod", b"ule named 'torch'"], "torch"),
        ([b"ModuleNotFoundError: No module named 'torch.missing'\n"], ""),
        ([b"/usr/bin/python3: No module named torch\n"], "torch"),
        ([b"x (ModuleNotFoundError: No module named 'torch')\n"], "torch"),
        ([b"/usr/bin/python3: No module named torch.x\n"], ""),
        ([b"caught: No module named 'torch'\n"], ""),
        ([b"\xff\xfe ValueError\n"], ""),
        ([], ""),
    ],
)
async def test_the_module_that_a_job_misses_is_read_from_its_last_lines(items, module):
    chunks = [Chunk(0, "stderr", 0, data, 0.0) for data in items]
    assert await module_in(printed(*chunks)) == module


async def test_any_rank_may_miss_it():
    first = Chunk(0, "stderr", 0, b"Terminated\n", 0.0)
    second = Chunk(1, "stderr", 0, b"ModuleNotFoundError: No module named 'yaml'\n", 0.0)
    assert await module_in(printed(first, Gap(1, "stderr", 0, 3, "full"), second)) == "yaml"
