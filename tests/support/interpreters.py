"""The Python interpreters of this machine that the stdlib-only parts must run on."""

import functools
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SERVED = ("3.10", "3.11", "3.12", "3.13", "3.14")


@functools.cache
def interpreters():
    """Paths by version: pyenv's, those on PATH, and the one that runs the tests."""
    found = {".".join(map(str, sys.version_info[:2])): sys.executable}
    versions = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    for version in SERVED:
        candidates = sorted(versions.glob(f"{version}.*/bin/python"))
        path = str(candidates[-1]) if candidates else shutil.which(f"python{version}")
        if path is not None and _runs(path):
            found.setdefault(version, path)
    return found


def _runs(path):
    # pyenv's shims exist for versions that are not chosen, and then do not run.
    command = [path, "-c", ""]
    try:
        return subprocess.run(command, check=False, capture_output=True).returncode == 0
    except OSError:
        return False
