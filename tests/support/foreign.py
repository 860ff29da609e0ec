"""Programs from the npm registry that tests drive, installed once for each version asked for."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path


def installed(package: Path) -> Path:
    """The folder of the modules that a package.json asks for."""
    digest = hashlib.sha256(package.read_bytes()).hexdigest()[:16]
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "rdev-tests"
    cache.mkdir(parents=True, exist_ok=True)
    folder = cache / f"npm-{digest}"
    with (cache / f"{folder.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # several test processes ask at a time
        if not folder.exists():
            _install(package, folder)
    return folder / "node_modules"


def _install(package: Path, folder: Path) -> None:
    made = Path(tempfile.mkdtemp(dir=folder.parent))
    shutil.copy(package, made)
    quiet = ("--no-package-lock", "--no-audit", "--no-fund", "--silent")
    subprocess.run(["npm", "install", *quiet], cwd=made, check=True, timeout=300)
    made.rename(folder)
