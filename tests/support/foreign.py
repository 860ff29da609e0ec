"""What tests drive and nobody here wrote, from package indexes, made once on a machine."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path


def installed(package: Path) -> Path:
    """The folder of the modules that a package.json asks for."""
    digest = hashlib.sha256(package.read_bytes()).hexdigest()[:16]
    return made_once(f"npm-{digest}", lambda folder: _install(package, folder)) / "node_modules"


def python_with_numpy(version: str, python: str) -> str:
    """An environment of an interpreter of this machine that has numpy."""
    folder = made_once(f"numpy-{version}", lambda folder: _make_numpy(python, folder))
    return str(folder / "bin" / "python")


def made_once(name: str, make: Callable[[Path], None]) -> Path:
    """A folder of that name, which `make` fills the first time on this machine."""
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "rdev-tests"
    cache.mkdir(parents=True, exist_ok=True)
    folder, done = cache / name, cache / f"{name}.done"
    with (cache / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # several test processes ask at a time
        if not done.exists():
            shutil.rmtree(folder, ignore_errors=True)
            make(folder)
            done.touch()
    return folder


def _install(package: Path, folder: Path) -> None:
    folder.mkdir()
    shutil.copy(package, folder)
    quiet = ("--no-package-lock", "--no-audit", "--no-fund", "--silent")
    subprocess.run(["npm", "install", *quiet], cwd=folder, check=True, timeout=300)


def _make_numpy(python: str, folder: Path) -> None:
    subprocess.run([python, "-m", "venv", folder], check=True)
    pip = [folder / "bin" / "python", "-m", "pip", "install", "-q", "--disable-pip-version-check"]
    subprocess.run([*pip, "numpy"], check=True, timeout=300)
