"""docs/privacy.md names every file of a used home, on the host and on the laptop, with its mode."""

import os
import re
import stat
import tempfile
from pathlib import Path

import pytest
from tests.support.guest import guest
from tests.support.laptops import Laptop, installed_rdev
from tests.support.sshd import HOST, sshd

PAGE = Path(__file__).parents[2] / "docs" / "privacy.md"

TRAIN = """
import sys
from rdev.loop import log
log(loss=1.5)
print('out', sys.stdin.read())
print('err', file=sys.stderr)
open('result.txt', 'w').write('42')
"""


def table(name: str) -> list[tuple[re.Pattern, str]]:
    """Pattern and mode of each file in one of the page's tables, the first that fits counts."""
    text = PAGE.read_text()
    inside = text[text.index(f"<!-- {name}: begin -->") : text.index(f"<!-- {name}: end -->")]
    rows = re.findall(r"^\| `([^`]+)` \| ([^|]+) \|", inside, re.MULTILINE)
    assert len(rows) > 5
    return [(pattern(path), mode.strip()) for path, mode in rows]


def pattern(path: str) -> re.Pattern:
    words = re.split(r"(<[a-z]+>|\*\*|\*)", path)
    meant = {"**": ".+", "*": "[^/]+"}
    return re.compile(
        "".join(meant.get(w, "[^/]+" if w[:1] == "<" else re.escape(w)) for w in words)
    )


def undocumented(root: Path, prefix: str, rows: list[tuple[re.Pattern, str]]) -> list[str]:
    """Files that no row names, and those whose mode lets in more than their row says."""
    found = []
    for path in root.rglob("*"):
        status = path.lstat()
        if stat.S_ISDIR(status.st_mode):
            continue
        name = prefix + str(path.relative_to(root))
        modes = [mode for row, mode in rows if row.fullmatch(name)]
        mode = stat.S_IMODE(status.st_mode)
        is_link = stat.S_ISLNK(status.st_mode)
        if not modes:
            found.append(name)
        elif modes[0].isdigit() and not is_link and mode & ~int(modes[0], 8):
            found.append(f"{name} has mode {mode:04o}")
    return found


@pytest.fixture(scope="session")
def wheels(tmp_path_factory):
    """A cache that all tests of first contacts share: an index is asked once."""
    root = tmp_path_factory.getbasetemp()
    folder = (root.parent if os.environ.get("PYTEST_XDIST_WORKER") else root) / "wheels"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a second user")
def test_every_file_of_a_used_home_is_named(rdev, wheels, tmp_path_factory):
    os.umask(0o022)
    with (
        tempfile.TemporaryDirectory(prefix="rdev-run-") as runtime,
        guest() as user,
        sshd(user.name) as server,
    ):
        command = installed_rdev(tmp_path_factory.mktemp("installed"))
        variables = {"XDG_RUNTIME_DIR": runtime}
        laptop = Laptop(rdev, server, wheels, command, variables)
        rdev.write("train.py", TRAIN)
        assert laptop.job("-e", "KEY=1", "train.py").returncode == 0
        assert laptop.job("-d", "-t", "--", "sleep", "300").returncode == 0
        rdev.write("result.txt", "another")  # and so the host's is kept beside it
        assert laptop.job("-d", "--name", "fed", "-i", "--", "sleep", "300").returncode == 0

        on_host = undocumented(user.home / ".rdev", "", table("host"))
        rows = table("laptop")
        here = [
            *undocumented(wheels, "$XDG_CACHE_HOME/", rows),
            *undocumented(rdev.home / "state", "$XDG_STATE_HOME/", rows),
            *undocumented(Path(runtime), "$XDG_RUNTIME_DIR/", rows),
        ]
        laptop.run("stop", "-H", HOST, "--all", "--now", "--yes")
        laptop.run("down", HOST, "--purge", "--discard-outputs")
    assert not on_host + here, "\n".join(on_host + here)
    for folder in (wheels / "rdev", rdev.home / "state" / "rdev"):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_a_file_that_nobody_named_is_found(tmp_path):
    (tmp_path / "hosts" / "m").mkdir(parents=True)
    (tmp_path / "hosts" / "m" / "diary.txt").write_text("dear diary")
    (tmp_path / "hosts" / "m" / "login.json").write_text("{}")
    (tmp_path / "hosts" / "m" / "login.json").chmod(0o644)
    found = sorted(undocumented(tmp_path, "", table("host")))
    assert found == ["hosts/m/diary.txt", "hosts/m/login.json has mode 0644"]
