"""Renews client/rdev/client/bootstrap/host.lock: the wheels that an agent needs on a host.

It downloads each through pip, for every Python, architecture and age of glibc that is served, and
writes down names, digests and sizes. Where they came from is not written down: a laptop asks the
index that it is configured for.
"""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys
import tempfile
import tomllib
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parent
LOCK = ROOT / "client" / "rdev" / "client" / "bootstrap" / "host.lock"

# What the agent imports; the other requirements are the laptop's.
AGENT = ("blake3", "debugpy", "grpcio", "nvidia-ml-py", "protobuf", "zstandard")

PYTHONS = ("3.11", "3.12", "3.13", "3.14")
ARCHITECTURES = ("x86_64", "aarch64")

# Each a set of tags that a host of that age can load; debugpy has its fast parts for the last only.
AGES = (("manylinux2014", "manylinux_2_17"), ("manylinux_2_28",), ("manylinux_2_34",))


def main() -> None:
    """Writes the lock."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        pins = _resolve(folder / "first")
        targets = [
            (python, architecture, ages)
            for python in PYTHONS
            for architecture in ARCHITECTURES
            for ages in (sum(AGES[: count + 1], ()) for count in range(len(AGES)))
        ]
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(lambda target: _download(folder / "all", pins, *target), targets))
        wheels = [_entry(path) for path in sorted((folder / "all").iterdir())]
    lines = ",\n".join(f"  {json.dumps(wheel)}" for wheel in wheels)
    LOCK.write_text(f'{{"wheels": [\n{lines}\n]}}\n')
    print(f"{len(wheels)} wheels of {len(pins)} packages")


def _resolve(folder: Path) -> list[str]:
    """The versions to lock: what pip chooses within the project's bounds and constraints."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"], *project["optional-dependencies"]["agent"]]
    wanted = [line for line in wanted if re.split(r"[^\w.-]", line)[0] in AGENT]
    assert len(wanted) == len(AGENT), wanted
    tags = _tags("x86_64", sum(AGES, ()))
    options = ["-c", str(ROOT / "constraints.txt"), "--python-version", PYTHONS[0], *tags]
    _pip(folder, *options, *wanted)
    return ["==".join(path.name.split("-")[:2]) for path in sorted(folder.iterdir())]


def _download(
    folder: Path, pins: list[str], python: str, architecture: str, ages: tuple[str, ...]
) -> None:
    tags = _tags(architecture, ages)
    _pip(folder, "--no-deps", "--python-version", python, *tags, *pins)


def _tags(architecture: str, ages: tuple[str, ...]) -> list[str]:
    return [f"--platform={age}_{architecture}" for age in ages] + ["--implementation=cp"]


def _pip(folder: Path, *options: str) -> None:
    command = [sys.executable, "-m", "pip", "download", "-q", "--disable-pip-version-check"]
    subprocess.run([*command, "--only-binary=:all:", "-d", str(folder), *options], check=True)


def _entry(path: Path) -> dict[str, str | int]:
    name, version = path.name.split("-")[:2]
    with zipfile.ZipFile(path) as wheel:
        unpacked = sum(entry.file_size for entry in wheel.infolist())
    return {
        "name": name.replace("_", "-"),
        "version": version,
        "file": path.name,
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "size": path.stat().st_size,
        "unpacked": unpacked,
    }


if __name__ == "__main__":
    main()
