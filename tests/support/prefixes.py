"""Environments as they lie on disk: faithful folders around a real interpreter."""

from __future__ import annotations

import json
import os
import sys
import venv
from pathlib import Path


def conda_env(prefix: Path, *, python: bool = True, version: str = "3.11.8") -> Path:
    """A folder as conda leaves it: conda-meta, activate.d, and a Python with its packages."""
    if python:
        venv.create(prefix, symlinks=True)
        (prefix / "pyvenv.cfg").rename(prefix / "bin" / "pyvenv.cfg")
    (prefix / "conda-meta").mkdir(parents=True, exist_ok=True)
    (prefix / "conda-meta" / "history").touch()
    if python:
        (prefix / "conda-meta" / f"python-{version}-hab00c5b_0_cpython.json").write_text("{}")
    return prefix


def script(prefix: Path, name: str, text: str, *, folder: str = "activate.d") -> Path:
    """Adds what conda sources when it activates or leaves the environment."""
    path = prefix / "etc" / "conda" / folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def own_variables(prefix: Path, **variables: str) -> None:
    """What `conda env config vars set` writes."""
    (prefix / "conda-meta" / "state").write_text(json.dumps({"env_vars": variables}))


def package(prefix: Path, name: str, version: str = "1.0") -> None:
    """Installs a module of that name, as files."""
    running = f"python{sys.version_info.major}.{sys.version_info.minor}"
    existing = sorted(prefix.glob("lib/python3*/site-packages"))
    sites = existing[0] if existing else prefix / "lib" / running / "site-packages"
    sites.mkdir(parents=True, exist_ok=True)
    (sites / f"{name}.py").write_text(f"__version__ = {version!r}\n")
    (sites / f"{name}-{version}.dist-info").mkdir()


def virtual(prefix: Path) -> Path:
    """A virtual environment without pip, which takes a few milliseconds."""
    venv.create(prefix, symlinks=True)
    return prefix


def login_path(folder: Path) -> str:
    """A PATH whose first python3 belongs to no environment."""
    place = folder / "login" / "bin"
    if not place.exists():
        place.mkdir(parents=True)
        (place / "python3").symlink_to(Path(sys.executable).resolve())
    return os.pathsep.join([str(place), "/usr/local/bin", "/usr/bin", "/bin"])
