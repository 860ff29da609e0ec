"""What an environment holds, told from its files: nothing is executed, nothing imported."""

from __future__ import annotations

import contextlib
import glob
import os
import re
import threading
from collections.abc import Iterator

from rdev.agent.environment.found import Environment, Kind, Place

# Written by venv, virtualenv and uv; each spells the key its own way.
_VERSION_KEYS = ("version", "version_info")
_CONDA_PYTHON = re.compile(r"python-(\d+\.\d+[^-]*)-[^-]*\.json")
_IN_FOLDER = re.compile(r"(?:^|[^0-9.])(\d+\.\d+\.\d+)")
_IN_BINARY = re.compile(r"python(\d+\.\d+)$")
_TORCH = re.compile(r"torch-(\d[^-]*)(?:-py[\d.]+)?\.(?:dist|egg)-info")

# Whatever else a module may be: an extension carries its platform in its name.
_EXTENSION = "{module}.*.so"


def look(place: Place) -> Environment:
    """Looks at what lies there."""
    python = place.python or interpreter(place.prefix)
    version = _version(place.prefix, python) if python else ""
    torch = _torch(place.prefix, place.kind, python)
    return Environment(place.name, place.kind, place.prefix, python, version, torch)


class Looks:
    """Remembers what was seen for as long as the folders that it was read from are unchanged."""

    def __init__(self) -> None:
        self._seen: dict[Place, tuple[tuple[int, ...], Environment]] = {}
        self._lock = threading.Lock()

    def at(self, place: Place) -> Environment:
        """What lies there now."""
        stamp = _stamp(place)
        with self._lock:
            seen = self._seen.get(place)
        if seen is not None and seen[0] == stamp:
            return seen[1]
        found = look(place)
        with self._lock:
            self._seen[place] = (stamp, found)
        return found


def interpreter(prefix: str) -> str:
    """The Python in a prefix; empty if there is none that can be executed."""
    for name in ("python", "python3"):
        path = os.path.join(prefix, "bin", name)
        if os.path.isfile(path) and os.access(path, os.X_OK):
            return path
    return ""


def kind_of(prefix: str) -> Kind | None:
    """What made the environment in a folder; None if it is none."""
    if os.path.isdir(os.path.join(prefix, "conda-meta")):
        return Kind.CONDA
    if os.path.isfile(os.path.join(prefix, "pyvenv.cfg")):
        return Kind.VENV
    return Kind.SYSTEM if interpreter(prefix) else None


def has_module(environment: Environment, module: str) -> bool:
    """True if a top-level module or package of that name lies where its interpreter looks."""
    folders = sites(environment.prefix, environment.kind, environment.python)
    for folder in [*folders, *(path for each in folders for path in _added_by(each))]:
        if os.path.isdir(os.path.join(folder, module)):
            return True
        if os.path.isfile(os.path.join(folder, f"{module}.py")):
            return True
        if glob.glob(os.path.join(glob.escape(folder), _EXTENSION.format(module=module))):
            return True
    return False


def sites(prefix: str, kind: Kind, python: str = "") -> list[str]:
    """The folders that hold the packages of a prefix, those beside it that it sees included."""
    found = _own_sites(prefix)
    settings = _settings(prefix)
    if settings:
        if settings.get("include-system-site-packages") == "true" and "home" in settings:
            found += sites(os.path.dirname(settings["home"]), Kind.SYSTEM)
        return found
    version = _IN_BINARY.search(os.path.realpath(python)) if python else None
    if version is not None and kind in (Kind.SYSTEM, Kind.CONDA):
        below = f"lib/python{version.group(1)}"
        found.append(os.path.expanduser(f"~/.local/{below}/site-packages"))
        if prefix == "/usr":  # Debian's
            found += ["/usr/lib/python3/dist-packages", f"/usr/local/{below}/dist-packages"]
    return [folder for folder in found if os.path.isdir(folder)]


def _added_by(folder: str) -> Iterator[str]:
    """Folders that the .pth files of a folder of packages add, as `pip install -e` writes them."""
    for file in sorted(glob.glob(f"{glob.escape(folder)}/*.pth")):
        with (
            contextlib.suppress(OSError, UnicodeDecodeError),
            open(file, encoding="utf-8") as lines,
        ):
            # A line may hold code instead, which is not run for this.
            paths = [os.path.join(folder, line.strip()) for line in lines if line.strip()]
            yield from filter(os.path.isdir, paths)


def _own_sites(prefix: str) -> list[str]:
    escaped = glob.escape(prefix)
    return sorted(glob.glob(f"{escaped}/lib*/python3*/site-packages"))


def _settings(prefix: str) -> dict[str, str]:
    """What pyvenv.cfg says; empty where there is none."""
    try:
        with open(os.path.join(prefix, "pyvenv.cfg"), encoding="utf-8") as file:
            lines = [line.partition("=") for line in file]
    except (OSError, UnicodeDecodeError):
        return {}
    return {key.strip().lower(): value.strip() for key, equals, value in lines if equals}


def _version(prefix: str, python: str) -> str:
    settings = _settings(prefix)
    for key in _VERSION_KEYS:
        if settings.get(key):
            return ".".join(settings[key].split(".")[:3])
    for name in _listed(os.path.join(prefix, "conda-meta")):
        if match := _CONDA_PYTHON.fullmatch(name):
            return match.group(1)
    whole = os.path.realpath(python)
    short = _IN_BINARY.search(whole)
    for part in reversed(whole.split("/")[:-2]):
        match = _IN_FOLDER.search(part)
        if match and (short is None or match.group(1).startswith(short.group(1))):
            return match.group(1)
    return short.group(1) if short else ""


def _torch(prefix: str, kind: Kind, python: str) -> str:
    for folder in sites(prefix, kind, python):
        for name in _listed(folder):
            if match := _TORCH.fullmatch(name):
                return match.group(1)
    return ""


def _listed(folder: str) -> Iterator[str]:
    with contextlib.suppress(OSError):
        yield from sorted(os.listdir(folder))


def _stamp(place: Place) -> tuple[int, ...]:
    """Changes whenever a package or an interpreter comes or goes."""
    prefix = place.prefix
    looked_at = [prefix, *(os.path.join(prefix, n) for n in ("bin", "conda-meta", "pyvenv.cfg"))]
    # A system's Python that is replaced leaves links to it behind, in folders that do not change.
    python = place.python or interpreter(prefix)
    looked_at += [python, *sites(prefix, place.kind, python)]
    return tuple(map(mtime, looked_at))


def mtime(path: str) -> int:
    """When a file or folder was last changed, in nanoseconds; 0 if it is not there."""
    try:
        return os.stat(path).st_mtime_ns
    except OSError:
        return 0
