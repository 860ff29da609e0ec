"""A real VS Code: its server, and a window of it in a browser that nobody sees."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.command import DEADLINE, Rdev
from tests.support.foreign import installed

FOREIGN = Path(__file__).resolve().parents[1] / "foreign" / "vscode"

# The folder of the npm package code-server, whose dependencies are there.
CODE_SERVER = "RDEV_TEST_CODE_SERVER"

_SETTINGS = {
    "security.workspace.trust.enabled": False,
    "telemetry.telemetryLevel": "off",
    "update.mode": "none",
    "workbench.startupEditor": "none",
    "workbench.colorTheme": "Default Light Modern",
}


class Window:
    """A person's window; see window.js for what can be done in it."""

    def __init__(self, process: subprocess.Popen) -> None:
        self._process = process

    def do(self, verb: str, *words: object):
        """Does it, as a person would, and waits as long as they might; what is there to see."""
        self._process.stdin.write(json.dumps([verb, *words]) + "\n")
        self._process.stdin.flush()
        answer = json.loads(self._process.stdout.readline())
        assert "error" not in answer, (verb, words, answer, self.console())
        return answer["value"]

    def console(self) -> list[str]:
        """What the debug console shows."""
        self._process.stdin.write(json.dumps(["texts", ".repl .monaco-list-row"]) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline()).get("value") or []

    def stack(self, place: str) -> str:
        """Waits for a frame at `LINE:COLUMN`."""
        return self.do("see", ".debug-call-stack .monaco-list-row", place)

    def variable(self, name: str) -> str:
        """A variable of the frame, as it is listed."""
        return self.do("see", ".debug-variables .monaco-list-row", f"{name} =")

    def said(self, text: str) -> str:
        """Waits for a line of the debug console."""
        return self.do("see", ".repl .monaco-list-row", text)


@contextlib.contextmanager
def window_of(person: Rdev, folder: Path) -> Iterator[Window]:
    """A window on the person's folder; skips where there is no VS Code."""
    program = Path(os.environ.get(CODE_SERVER, "")) / "lib" / "vscode" / "out" / "server-main.js"
    if CODE_SERVER not in os.environ:
        pytest.skip(f"there is no VS Code here: {CODE_SERVER} names no folder of code-server's")
    if (browser := shutil.which("chromium")) is None:
        pytest.skip("there is no chromium here")
    modules = installed(FOREIGN / "package.json")
    with _served(person, program, folder) as port:
        address = f"http://127.0.0.1:{port}/?folder={person.cwd.resolve()}"
        words = ["node", FOREIGN / "window.js", modules, browser, address]
        with _started(words, person.environment) as process:
            assert json.loads(process.stdout.readline() or "null") == "open"
            yield Window(process)
            process.stdin.close()
            process.wait(DEADLINE)


@contextlib.contextmanager
def _served(person: Rdev, program: Path, folder: Path) -> Iterator[int]:
    for name in ("User", "Machine"):
        (folder / "data" / name).mkdir(parents=True)
        (folder / "data" / name / "settings.json").write_text(json.dumps(_SETTINGS))
    shutil.copytree(FOREIGN / "extension", folder / "extensions" / "rdev-tests.attach-1.0.0")
    words = ["node", program, "--host", "127.0.0.1", "--port", "0", "--without-connection-token"]
    words += ["--accept-server-license-terms", "--server-data-dir", folder]
    words += ["--extensions-dir", folder / "extensions", "--telemetry-level", "off"]
    # Else it would ask a login shell for the environment, which is the machine's own.
    words += ["--force-disable-user-env"]
    with _started(words, person.environment) as process:
        for line in process.stdout:
            if line.startswith("Extension host agent listening on "):
                yield int(line.split()[-1])
                return
        pytest.fail("the server did not start")


@contextlib.contextmanager
def _started(words: list, environment: dict[str, str]) -> Iterator[subprocess.Popen]:
    process = subprocess.Popen(
        words,
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.stdin.close()
        process.stdout.close()
        process.wait()
