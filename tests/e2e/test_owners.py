"""Several people share a login: whose a job is, and what is asked before another's is touched."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.support.command import Rdev
from tests.support.session import Sessioned
from tests.support.terminal import in_terminal

pytestmark = pytest.mark.shared_agent


@dataclass
class Colleague(Sessioned):
    """Somebody else with a laptop of their own and the same login on the host."""

    @property
    def environment(self) -> dict[str, str]:
        return super().environment | {"XDG_CONFIG_HOME": str(self.home / "bens")}


def call(home: Path, name: str) -> None:
    """Writes into a configuration who the person is."""
    (home / "rdev").mkdir(parents=True)
    (home / "rdev" / "config.toml").write_text(f'[user]\nowner = "{name}"\n')


@pytest.fixture
def ana(rdev: Rdev) -> Rdev:
    call(rdev.home / "config", "ana@mbp")
    return rdev


@pytest.fixture
def ben(ana: Rdev) -> Colleague:
    call(ana.home / "bens", "ben@tower")
    return Colleague(ana.home, ana.cwd)


def test_without_a_word_the_owner_is_user_at_laptop(rdev: Rdev):
    assert rdev.run("run", "--", "true").returncode == 0
    (job,) = rdev.json("ps", "-a")
    assert re.fullmatch(r"[^@\s]+@[^@.\s]+", job["owner"])


def test_owners_are_shown_once_there_are_two(ana: Rdev, ben: Rdev):
    assert ana.run("run", "--name", "one", "--", "true").returncode == 0
    assert "OWNER" not in ana.run("ps", "-a").stdout
    assert ben.run("run", "--name", "two", "--", "true").returncode == 0
    heading, *rows = ana.run("ps", "-a").stdout.splitlines()
    assert heading.split()[:3] == ["ID", "NAME", "OWNER"]
    assert [row.split()[1:3] for row in rows] == [["two", "ben@tower"], ["one", "ana@mbp"]]
    assert [job["owner"] for job in ana.json("ps", "-a")] == ["ben@tower", "ana@mbp"]


def test_anothers_job_is_stopped_and_run_beside_only_with_a_yes(ana: Rdev, ben: Rdev):
    sleeper = ("run", "-d", "--name", "anas", "--", "sh", "-c", "echo begun; sleep 600")
    assert ana.run(*sleeper).returncode == 0
    refused = ben.run("stop", "anas")
    assert (refused.returncode, refused.stdout) == (1, "")
    assert "unable to stop anas: it is a job of ana@mbp" in refused.stderr
    assert "hint: say --yes if you mean it" in refused.stderr
    assert ben.run("exec", "anas", "--", "true").returncode == 125
    assert ben.run("exec", "--yes", "anas", "--", "true").returncode == 0
    # Who only looks is not asked.
    assert "begun" in ben.run("logs", "anas").stdout
    assert [job["name"] for job in ben.json("ps")] == ["anas"]
    assert ben.run("stop", "--now", "--yes", "anas").returncode == 0
    assert "was stopped" in ben.run("wait", "anas").stdout


def test_anothers_job_is_held_by_a_debugger_only_with_a_yes(ana: Rdev, ben: Rdev):
    ana.write("train.py", "import time\nwhile True:\n    time.sleep(0.01)\n")
    assert ana.run("run", "-d", "--name", "anas", "train.py").returncode == 0
    look = ("debug", "anas", "train.py:3", "--command", "p 6 * 7", "--timeout", "20")
    refused = ben.run(*look)
    assert (refused.returncode, refused.stdout) == (125, "")
    assert "unable to debug anas: it is a job of ana@mbp" in refused.stderr
    allowed = ben.run(*look, "--yes")
    assert (allowed.returncode, "42" in allowed.stdout) == (0, True), allowed.stderr
    assert ana.run("stop", "anas", "--now").returncode == 0


def test_ones_own_job_is_stopped_without_a_word(ana: Rdev):
    assert ana.run("run", "-d", "--name", "mine", "--", "sleep", "600").returncode == 0
    assert ana.run("stop", "--now", "mine").returncode == 0


def test_input_goes_to_anothers_job_only_with_a_yes(ana: Rdev, ben: Rdev):
    assert ana.run("run", "-d", "-i", "--name", "reads", "--", "cat").returncode == 0
    refused = ben.run("attach", "-i", "reads")
    assert refused.returncode == 125
    assert "it is a job of ana@mbp" in refused.stderr
    assert "--no-stdin" in refused.stderr
    with open(ben.write("words", "from ben\n")) as words:
        done = ben.run("attach", "-i", "--yes", "reads", stdin=words)
    assert (done.returncode, done.stdout) == (0, "from ben\n")


def test_a_terminal_of_anothers_job_is_watched_freely_and_typed_into_with_a_yes(
    ana: Rdev, ben: Rdev
):
    shell = ("run", "-d", "-t", "--name", "sh", "--", "sh", "-c", "echo begun; read x; echo got $x")
    assert ana.run(*shell).returncode == 0
    with in_terminal(ben, "attach", "sh") as shown:
        shown.expect(b"sh is a job of ana@mbp; type into it all the same? [y/N]")
        shown.type(b"n\n")
        assert shown.wait() == 125
    with in_terminal(ben, "attach", "--no-stdin", "sh") as watching:
        watching.expect(b"begun")
        with in_terminal(ben, "attach", "--yes", "sh") as shown:
            shown.expect(b"begun")
            shown.type(b"it\r")
            shown.expect(b"got it")
            assert shown.wait() == 0
        watching.expect(b"got it")
        assert watching.wait() == 0


@pytest.mark.slow
def test_cleaning_up_leaves_anothers_jobs_and_says_how_many(ana: Rdev, ben: Rdev):
    for name in ("one", "two"):
        assert ana.run("run", "--name", name, "--", "true").returncode == 0
    assert ben.run("run", "--name", "bens", "--", "true").returncode == 0
    cleaned = ben.run("rm", "--ended")
    assert (cleaned.returncode, cleaned.stdout.split()[1]) == (0, "bens")
    assert "left alone: 2 jobs of other people" in cleaned.stderr
    refused = ben.run("rm", "one")
    assert (refused.returncode, "it is a job of ana@mbp" in refused.stderr) == (1, True)
    assert ben.run("rm", "--yes", "one").returncode == 0
    assert "removed two" in ben.run("rm", "--ended", "--yes").stdout
    assert ana.json("ps", "-a") == []


def test_at_a_terminal_it_is_asked(ana: Rdev, ben: Rdev):
    assert ana.run("run", "-d", "--name", "anas", "--", "sleep", "600").returncode == 0
    for answer, code in ((b"n\n", 1), (b"y\n", 0)):
        with in_terminal(ben, "stop", "--now", "anas") as shown:
            shown.expect(b"anas is a job of ana@mbp; stop it all the same? [y/N]")
            shown.type(answer)
            assert shown.wait() == code


def test_a_job_of_an_earlier_release_is_anybodys(ana: Rdev, ben: Rdev):
    assert ana.run("run", "--name", "old", "--", "true").returncode == 0
    assert ana.command("rdev-agent", "stop").returncode == 0
    (path,) = ana.home.glob(".rdev/hosts/*/jobs/*/spec.json")
    record = json.loads(path.read_text())
    del record["spec"]["owner"]
    path.write_text(json.dumps(record))
    assert ben.run("rm", "old").returncode == 0


def test_a_workspace_that_another_synced_last_is_synced_without_a_question(ana: Rdev, ben: Rdev):
    ana.write("a.py", "print(1)\n")
    assert ana.run("sync").returncode == 0
    ben.write("a.py", "print(2)\n")
    done = ben.run("sync", "--json")
    assert done.returncode == 0, done.stderr
    marker = Path(json.loads(done.stdout)["folder"]) / ".rdev" / "workspace.json"
    assert json.loads(marker.read_text())["owner"] == "ben@tower"


def test_a_workspace_cannot_say_who_a_person_is(rdev: Rdev):
    (rdev.cwd / "rdev.toml").write_text('[user]\nowner = "ana@mbp"\n')
    done = rdev.run("ps")
    assert done.returncode == 78
    assert "[user] belongs into" in done.stderr
