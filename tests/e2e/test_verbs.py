"""The small verbs: init, doctor, version, events, help."""

import json

import pytest

from rdev.client.cli.main import VERBS

pytestmark = pytest.mark.shared_agent


def test_init_makes_a_workspace_once(rdev):
    folder = rdev.home / "new"
    folder.mkdir()
    assert rdev.run("init", cwd=folder).returncode == 0
    assert (folder / "rdev.toml").exists()
    (folder / "train.py").write_text("print('ran')")
    assert rdev.run("run", "train.py", cwd=folder).stdout == "ran\n"
    again = rdev.run("init", cwd=folder)
    assert (again.returncode, "exists" in again.stderr) == (2, True)


def test_init_refuses_the_home_folder(rdev):
    done = rdev.run("init", cwd=rdev.home)
    assert (done.returncode, "home folder" in done.stderr) == (2, True)
    assert not (rdev.home / "rdev.toml").exists()


def test_doctor_is_content_with_a_healthy_machine(rdev):
    findings = rdev.json("doctor")
    assert all(item["ok"] for item in findings)
    assert {"client", "kernel", "agent's home", "agent of local"} <= {f["what"] for f in findings}


@pytest.mark.own_agent
def test_doctor_names_the_remedy(rdev):
    (rdev.home / ".rdev").mkdir(mode=0o755)
    done = rdev.run("doctor")
    assert done.returncode == 1
    assert "remedy: chmod 700" in done.stdout


def test_version_as_json(rdev):
    assert set(rdev.json("version")) == {"rdev", "python", "platform"}
    assert rdev.run("--version").stdout.startswith("rdev ")


def test_events_are_json_lines_and_can_be_narrowed(rdev):
    rdev.write("train.py", "from rdev.loop import log; log(loss=1.5)")
    rdev.run("run", "train.py")
    events = [json.loads(line) for line in rdev.run("events").stdout.splitlines()]
    assert "metric" in {event["kind"] for event in events}
    (metric,) = map(json.loads, rdev.run("events", "--kind", "metric").stdout.splitlines())
    assert metric["values"] == {"loss": 1.5}


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_explains_itself(rdev, verb):
    done = rdev.run(verb, "--help")
    assert done.returncode == 0
    assert f"usage: rdev {verb}" in done.stdout
    assert len(done.stdout.splitlines()) > 4


def test_no_verb_shows_the_overview(rdev):
    done = rdev.run()
    assert done.returncode == 2
    assert all(f"  {verb} " in done.stdout for verb in VERBS)
