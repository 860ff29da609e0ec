"""A newcomer types what README says: install, train on an ssh host, leave, come back, purge."""

import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from tests.support.command import DEADLINE
from tests.support.guest import guest, torch_site
from tests.support.peers import require_peer
from tests.support.sshd import HOST, sshd

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()

TRAIN = """
import sys, time
import torch
weights = torch.zeros(3, requires_grad=True)
for step in range(60):
    ((weights - 1) ** 2).sum().backward()
    with torch.no_grad():
        weights -= 0.1 * weights.grad
        weights.grad.zero_()
    print('step', step, flush=True)
    time.sleep(0.1)
print('trained by', sys.executable, [round(w, 1) for w in weights.tolist()])
"""


def typed(text: str) -> list[list[str]]:
    """The commands of a block in README, as a shell would take them."""
    return [shlex.split(line, comments=True) for line in text.splitlines() if line.strip()]


def block(after: str) -> str:
    found = re.search(re.escape(after) + r".*?```\n(.*?)```", README, re.DOTALL)
    assert found is not None
    return found[1]


@pytest.fixture
def clone(tmp_path):
    """The files that a clone has."""
    folder = tmp_path / "rdev"
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).exists():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, folder / name)
    return folder


@pytest.fixture
def environment(tmp_path):
    """A laptop's, and a session's short folder for sockets."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("RDEV_", "VIRTUAL_ENV"))}
    with tempfile.TemporaryDirectory(prefix="rdev-run-") as runtime:
        yield kept | {
            "XDG_CONFIG_HOME": str(tmp_path / "config"),
            "XDG_STATE_HOME": str(tmp_path / "state"),
            "XDG_CACHE_HOME": str(tmp_path / "cache"),
            "XDG_RUNTIME_DIR": runtime,
            "PATH": f"{tmp_path}/venv/bin:{os.environ['PATH']}",
        }


@pytest.fixture
def install(clone, environment, tmp_path):
    """Installs rdev as README says, in a fresh environment."""
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True)
    ((*pip, target),) = typed(block("## Install and use"))
    assert pip == ["pip", "install"]
    done = subprocess.run(
        [*pip, "--quiet", target],
        cwd=clone,
        # The index that this machine's pip is set up for, and the cache of its user.
        env={k: v for k, v in environment.items() if not k.startswith("XDG_CACHE")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    yield
    # The session that its commands were run by.
    subprocess.run([f"{tmp_path}/venv/bin/rdev", "down", "local"], env=environment, check=True)


def run(words: list[str], project: Path, environment: dict[str, str]):
    """Types a command, which must succeed."""
    done = subprocess.run(
        words,
        cwd=project,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=2 * DEADLINE,
        check=False,
    )
    assert (done.returncode, "Traceback" in done.stderr) == (0, False), (words, done.stderr)
    return done


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a second user")
def test_what_readme_says_of_a_gpu_machine_works(install, environment, tmp_path):
    require_peer("sshd")
    project = tmp_path / "project"
    project.mkdir()
    (project / "rdev.toml").touch()
    (project / "train.py").write_text(TRAIN)
    with guest() as user, torch_site(user) as site, sshd(user.name) as server:
        user.write(".bashrc", "# of somebody who has been here before\n")
        prefix = user.venv("venvs/vision", site=site)
        before = sorted(user.home.rglob("*"))
        said = {}
        for words in typed(block("<!-- newcomer: begin -->")):
            done = run(words, project, environment | server.environment)
            # "hours later": by then it has printed something
            deadline = time.monotonic() + DEADLINE
            while words[1] == "logs" and "step 0\n" not in done.stdout:
                assert time.monotonic() < deadline
                done = run(words, project, environment | server.environment)
            said[words[1] + ("-d" if "-d" in words else "")] = done
        assert f"trained by {prefix}/bin/python" in said["run"].stdout
        assert re.search(rf"rdev: {HOST}: wrote .*/\.rdev/dist/\S+ \(\d+ MB\)", said["run"].stderr)
        assert "vision" in said["env"].stdout
        assert "night" in said["ps"].stdout
        assert f"trained by {prefix}/bin/python" in said["attach"].stdout
        assert "FAIL" not in said["doctor"].stdout
        assert "freed" in said["down"].stdout
        assert sorted(user.home.rglob("*")) == before
