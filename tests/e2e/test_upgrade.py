"""A new agent takes the place of one that serves, and nobody's job or stream notices."""

import json
import os

import pytest
from tests.support.command import DEADLINE

from rdev.wire.guard import read_agent
from rdev.wire.home import Home, machine_id

PRINTS = """
import itertools, os, time

for number in itertools.count():
    print("line", number)
    time.sleep(0.001)
    if os.path.exists("enough"):
        break
print("end", number)
raise SystemExit(7)
"""


@pytest.mark.slow
def test_a_live_run_is_exact_across_upgrades(rdev):
    rdev.write("prints.py", PRINTS)
    with rdev.started("run", "prints.py") as run:
        first = run.stdout.readline()
        agents = [rdev.agent_pid]
        for _ in range(2):
            done = rdev.command("rdev-agent", "upgrade")
            assert done.returncode == 0, done.stderr
            agents.append(rdev.agent_pid)
        assert run.poll() is None, run.stderr.read()
        (folder,) = (rdev.home / ".rdev" / "workspaces").iterdir()
        (folder / "enough").touch()
        said = first + run.stdout.read()
        assert run.wait(DEADLINE) == 7
    *lines, end = said.splitlines()
    assert lines == [b"line %d" % number for number in range(len(lines))]
    assert end == b"end %d" % (len(lines) - 1)
    assert len(set(agents)) == 3
    home = Home(str(rdev.home / ".rdev"), machine_id())
    assert read_agent(home.live).pid == agents[-1]
    (job,) = json.loads(rdev.run("ps", "-a", "--json").stdout)
    assert (job["state"], job["exit_code"]) == ("failed", 7)


def test_an_upgrade_without_an_agent_starts_one(rdev):
    done = rdev.command("rdev-agent", "upgrade")
    assert (done.returncode, done.stderr) == (0, "")
    assert rdev.agent_pid


def test_a_new_agent_that_cannot_start_leaves_the_old_one_in_its_place(rdev):
    rdev.run("ps")
    before = rdev.agent_pid
    run = os.path.join(Home(str(rdev.home / ".rdev"), machine_id()).run)
    os.chmod(run, 0o755)
    done = rdev.command("rdev-agent", "upgrade")
    assert (done.returncode, "mode 0755" in done.stderr) == (77, True)
    os.chmod(run, 0o700)
    assert rdev.agent_pid == before
    assert rdev.run("ps").returncode == 0
