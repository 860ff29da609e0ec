"""Finding uv on this machine, or getting it, and running it."""

from __future__ import annotations

import asyncio
import configparser
import contextlib
import os
import re
import shutil
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Mapping, Sequence

from rdev.agent.environment.places import home_of, on_path
from rdev.protocol.errors import EnvironmentFailed

Tell = Callable[[str], None]

# Where its own installers put it.
_USUAL = (".local/bin", ".cargo/bin", ".pixi/bin")

# Our own copy, and the folders that uv fills: beside the environments, so that one removal removes
# all of it and one file system holds what is linked.
_OWN, CACHE, _PYTHONS, _CREDENTIALS = ".uv", ".cache", ".pythons", ".credentials"
_NEW = ".new-uv-"

# What pip is told about indexes, in uv's words. Who has a mirror has told pip of it.
_INDEXES = {
    "index-url": "UV_DEFAULT_INDEX",
    "extra-index-url": "UV_INDEX",
    "find-links": "UV_FIND_LINKS",
    "cert": "SSL_CERT_FILE",
}

_COLOURS = re.compile(r"\x1b\[[0-9;]*m")

# As its releases spell them.
_ERROR = re.compile(r"^(?:error: *|\u00d7 *)", re.IGNORECASE)
_CAUSE = re.compile(r"^(?:cause: *|Caused by: *|╰─▶ *)", re.IGNORECASE)

_NO_UV = (
    "install uv on the host (`pip install --user uv`), make the environment yourself and name it "
    "with --env, or leave out `manage`"
)


async def find_uv(envs: str, login: Mapping[str, str], *, tell: Tell) -> str:
    """Path of a uv: the login's, the one beside this agent, or one that is fetched by pip.

    Args:
        envs: Holds the environments that the agent makes.
        login: The login environment.
        tell: Told what is done.

    Raises:
        EnvironmentFailed: There is none and none can be fetched.
    """
    usual = [os.path.join(home_of(login), folder) for folder in _USUAL]
    folders = [login.get("PATH", os.defpath), *usual, os.path.dirname(sys.executable)]
    own = os.path.join(envs, _OWN, "bin")
    found = on_path(["uv"], os.pathsep.join([*folders, own]))
    if found:
        return found
    tell("uv is not here; it is fetched by pip")
    await _fetch(envs, login)
    return os.path.join(own, "uv")


async def _fetch(envs: str, login: Mapping[str, str]) -> None:
    await asyncio.to_thread(os.makedirs, envs, mode=0o700, exist_ok=True)
    made = await asyncio.to_thread(tempfile.mkdtemp, dir=envs, prefix=_NEW)
    action = "get uv to make the environment"
    python = on_path(["python3"], login.get("PATH", os.defpath)) or sys.executable
    run = _Runner(action, login, tell=lambda _line: None, hint=_NO_UV)
    options = (
        "install",
        "--quiet",
        "--disable-pip-version-check",
        "--no-input",
        "--no-cache-dir",
        "uv",
    )
    try:
        if await _has_pip(python):
            await run(python, "-m", "pip", *options, "--target", made)
        else:
            await run(python, "-m", "venv", made)
            await run(os.path.join(made, "bin", "python"), "-m", "pip", *options)
        # The binary refers to nothing around it, so the folder may be renamed.
        with contextlib.suppress(OSError):  # somebody was faster
            os.rename(made, os.path.join(envs, _OWN))
    finally:
        await asyncio.to_thread(shutil.rmtree, made, ignore_errors=True)


async def _has_pip(python: str) -> bool:
    code = "import importlib.util as u, sys; sys.exit(u.find_spec('pip') is None)"
    process = await asyncio.create_subprocess_exec(
        *(python, "-c", code),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    return await process.wait() == 0


async def run_uv(
    command: Sequence[str], envs: str, login: Mapping[str, str], *, folder: str, tell: Tell
) -> None:
    """Runs uv and tells its lines as they come.

    Args:
        command: uv and its arguments; a `NAME=VALUE` before uv sets a variable for it.
        envs: Holds the environments that the agent makes.
        login: The login environment.
        folder: Where it runs.
        tell: Told its lines.

    Raises:
        EnvironmentFailed: It failed; the cause is what it said.
    """
    words = list(command)
    extra: dict[str, str] = {}
    while "=" in words[0] and "/" not in words[0].partition("=")[0]:
        name, _, value = words.pop(0).partition("=")
        extra[name] = value
    run = _Runner(
        "make the environment",
        uv_environment(envs, login) | extra,
        tell=tell,
        hint="mend the lock file, or see that the host reaches its index",
        folder=folder,
    )
    await run(*words)


def uv_environment(envs: str, login: Mapping[str, str]) -> dict[str, str]:
    """The login environment as uv shall see it."""
    # It must not meet an environment that the login has activated: that one is the user's own.
    active = {"VIRTUAL_ENV", "CONDA_PREFIX", "CONDA_DEFAULT_ENV", "PYTHONHOME", "PYTHONPATH"}
    base = {name: value for name, value in login.items() if name not in active}
    defaults = {
        "UV_CACHE_DIR": os.path.join(envs, CACHE),
        "UV_PYTHON_INSTALL_DIR": os.path.join(envs, _PYTHONS),
        "UV_PYTHON_PREFERENCE": "system",
        "UV_NO_PROGRESS": "1",
        "NO_COLOR": "1",
    }
    data = login.get("XDG_DATA_HOME") or os.path.join(home_of(login), ".local", "share")
    if not os.path.isdir(os.path.join(data, "uv", "credentials")):
        # Who has none would find a lock there, in their home, after a purge.
        defaults["UV_CREDENTIALS_DIR"] = os.path.join(envs, _CREDENTIALS)
    return defaults | _indexes(login) | base


def _indexes(login: Mapping[str, str]) -> dict[str, str]:
    home = home_of(login)
    config = login.get("XDG_CONFIG_HOME") or os.path.join(home, ".config")
    files = ["/etc/pip.conf", f"{home}/.pip/pip.conf", f"{config}/pip/pip.conf"]
    parser = configparser.RawConfigParser()
    with contextlib.suppress(configparser.Error, OSError, UnicodeDecodeError):
        parser.read(files)
    found: dict[str, str] = {}
    for key, name in _INDEXES.items():
        variable = login.get(f"PIP_{key.upper().replace('-', '_')}")
        value = variable or parser.get("global", key, fallback=None) or ""
        words = [word for word in value.split() if not _is_missing(word)]
        if words:
            separator = "," if key == "find-links" else " "
            found[name] = separator.join(words)
    return found


def _is_missing(word: str) -> bool:
    """A folder that is not there is passed over by pip, and is an error to uv."""
    path = word.removeprefix("file://")
    return path.startswith("/") and not os.path.exists(path)


class _Runner:
    """Runs programs for one purpose."""

    def __init__(
        self,
        action: str,
        environment: Mapping[str, str],
        *,
        tell: Tell,
        hint: str,
        folder: str = "/",
    ) -> None:
        self._action = action
        self._environment = environment
        self._tell = tell
        self._hint = hint
        self._folder = folder

    async def __call__(self, *command: str) -> None:
        try:
            process = await asyncio.create_subprocess_exec(
                *command,
                env=dict(self._environment),
                cwd=self._folder,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
                start_new_session=True,
            )
        except OSError as error:
            cause = f"{command[0]}: {error.strerror}"
            raise EnvironmentFailed(self._action, cause, hint=self._hint) from error
        lines: list[str] = []
        try:
            lines = [line async for line in self._lines(process)]
            status = await process.wait()
        finally:
            if process.returncode is None:  # whoever waited has gone away
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)  # with what it builds packages by
                await process.wait()
        if status:
            raise EnvironmentFailed(self._action, failure(lines, status), hint=self._hint)

    async def _lines(self, process: asyncio.subprocess.Process) -> AsyncIterator[str]:
        # It has one: it was asked for.
        stream = process.stdout or asyncio.StreamReader()
        async for raw in stream:
            line = _COLOURS.sub("", raw.decode(errors="replace")).strip()
            if line:
                self._tell(line)
                yield line


def failure(lines: Sequence[str], status: int) -> str:
    """What a program that failed has to say about it, in one line: the error and its causes."""
    errors = [n for n, line in enumerate(lines) if _ERROR.match(line)]
    if not errors:
        return lines[-1] if lines else f"it ended with status {status}"
    causes = [_CAUSE.sub("", line) for line in lines[errors[-1] :] if _CAUSE.match(line)]
    told = [_ERROR.sub("", lines[errors[-1]]), *causes[:1], *causes[1:][-1:]]
    return ": ".join(part.rstrip(".:") for part in told)
