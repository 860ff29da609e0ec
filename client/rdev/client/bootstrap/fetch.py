"""The host's wheels, brought by the laptop's pip and kept by their digests.

    $XDG_CACHE_HOME/rdev/wheels/<sha256>.whl

What is kept is verified each time, so a second host costs nothing and no index is asked twice.
"""

from __future__ import annotations

import asyncio
import contextlib
import glob
import hashlib
import importlib.util
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Sequence

from rdev.client.bootstrap.lock import Target, Wheel
from rdev.client.bootstrap.release import cache_folder
from rdev.client.folders import CACHE_VARIABLE, movable

# An index that does not answer must not hold up a contact for which the host may have one.
_CONNECT_PATIENCE = "10"
_PATIENCE = 600.0


class NoIndexError(Exception):
    """No wheels are to be had here: there is no index, or nothing to ask it with."""


async def fetch(
    wheels: Sequence[Wheel], target: Target, *, narrate: Callable[[str], None]
) -> list[bytes]:
    """The wheels' contents, from the cache and, where it lacks some, from an index.

    Args:
        wheels: What is wanted.
        target: The host they are for.
        narrate: Told of a download.

    Raises:
        NoIndexError: Some are not in the cache, and no index has them.
    """
    missing = [wheel for wheel in wheels if await asyncio.to_thread(_kept, wheel) is None]
    if missing:
        size = sum(wheel.size for wheel in missing)
        narrate(f"fetching {size / 1e6:.1f} MB of wheels for {target.words}")
        await _download(missing, target)
    found = []
    for wheel in wheels:
        content = await asyncio.to_thread(_kept, wheel)
        if content is None:
            raise NoIndexError(f"{wheel.file} did not stay in {_folder()}")
        found.append(content)
    return found


def _folder() -> str:
    return os.path.join(cache_folder(), "wheels")


def _path(wheel: Wheel) -> str:
    return os.path.join(_folder(), f"{wheel.sha256}.whl")


def _kept(wheel: Wheel) -> bytes | None:
    try:
        with open(_path(wheel), "rb") as file:
            content = file.read()
    except OSError:
        return None
    return content if hashlib.sha256(content).hexdigest() == wheel.sha256 else None


async def _download(wheels: Sequence[Wheel], target: Target) -> None:
    pip = _pip()
    if pip is None:
        raise NoIndexError("neither pip nor uv is here to ask one")
    with movable(CACHE_VARIABLE):
        for folder in (cache_folder(), _folder()):  # a mode is given to a path's last part only
            os.makedirs(folder, mode=0o700, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=_folder(), prefix="new-") as folder:
        listed = os.path.join(folder, "requirements.txt")
        _write(listed, [requirement(wheel) for wheel in wheels])
        await _run([*pip, *_options(wheels, target), "-d", folder, "-r", listed])
        for wheel in wheels:
            _keep(wheel, os.path.join(folder, wheel.file))


def _write(path: str, lines: Sequence[str]) -> None:
    with open(path, "w", encoding="ascii") as file:
        file.writelines(lines)


def requirement(wheel: Wheel) -> str:
    """The wheel as a line of a requirements file, locked to its digest."""
    return f"{wheel.name}=={wheel.version} --hash=sha256:{wheel.sha256}\n"


def _options(wheels: Sequence[Wheel], target: Target) -> list[str]:
    platforms = sorted({tag for wheel in wheels for tag in wheel.platforms if tag != "any"})
    return [
        "download",
        "--quiet",
        "--disable-pip-version-check",
        "--no-input",
        f"--timeout={_CONNECT_PATIENCE}",
        "--retries=1",
        "--no-deps",
        "--require-hashes",
        "--only-binary=:all:",
        "--implementation=cp",
        f"--python-version={target.python[0]}.{target.python[1]}",
        *(f"--platform={tag}" for tag in platforms),
    ]


def _pip() -> list[str] | None:
    """A command that is pip; an environment made by uv has none of its own."""
    if importlib.util.find_spec("pip") is not None:
        # Without -P a module of the workspace we stand in would be run here, by its name alone.
        return [sys.executable, "-P", "-m", "pip"]
    with contextlib.suppress(ImportError, AttributeError):
        import ensurepip

        own = os.path.join(os.path.dirname(ensurepip.__file__), "_bundled")
        for folder in (own, "/usr/share/python-wheels"):
            found = glob.glob(os.path.join(folder, "pip-*.whl"))
            if found:
                return [sys.executable, os.path.join(max(found), "pip")]
    uv = shutil.which("uv")
    return [uv, "tool", "run", "pip"] if uv else None


async def _run(command: Sequence[str]) -> None:
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        _, told = await asyncio.wait_for(process.communicate(), _PATIENCE)
    except TimeoutError:
        raise NoIndexError(f"pip took more than {_PATIENCE:.0f} s") from None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode:
        raise NoIndexError(_last_error(told.decode(errors="replace")))


def _last_error(told: str) -> str:
    lines = [line for line in told.splitlines() if line.strip()]
    errors = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR: ")]
    return (errors or lines or ["pip failed"])[-1]


def _keep(wheel: Wheel, path: str) -> None:
    # pip has verified it; a cache is read by what was verified when it was written, and again.
    with contextlib.suppress(FileNotFoundError):
        os.replace(path, _path(wheel))
