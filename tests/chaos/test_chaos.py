"""Whatever is killed while jobs print, every byte reaches the clients, once and in order."""

from tests.chaos.cast import Stage
from tests.chaos.storm import Storm
from tests.support.relay import relayed

MODES = ("pipes", "tty", "stdin")


def test_sixty_kills_harm_no_job_and_lose_no_byte(rdev, tmp_path):
    report = weather(rdev, tmp_path, seed=1, jobs=5, kills=60, pause=0.35)
    assert report.faults == []
    assert sum(report.kills.values()) >= 60


def weather(person, folder, *, seed, jobs, kills, pause):
    """Lets a storm pass over jobs of their own; returns its report."""
    assert person.command("rdev-agent", "serve", "--detach").returncode == 0
    parts = folder / "parts"
    parts.mkdir()
    # A strike kills some 1.7 processes.
    stage = Stage(person, parts, seed=seed, fed_seconds=0.5 * kills * pause)
    with relayed(folder / "relay.sock", stage.home.socket) as relay:
        storm = Storm(stage, relay, seed=seed, goal=kills, pause=pause)
        return storm.run(jobs=jobs, modes=MODES)
