"""Where environments lie on a machine, found by looking at folders and small files only."""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Iterable, Iterator, Mapping

from rdev.agent.environment.contents import interpreter, kind_of
from rdev.agent.environment.found import Kind, Place

# Where the installers of conda and its kin put themselves unless told otherwise.
_DISTRIBUTIONS = ("miniconda3", "anaconda3", "miniforge3", "mambaforge", "mambaforge3", "conda")
_MICROMAMBA = ("micromamba", ".local/share/mamba", ".mamba")
_SHARED = ("/opt", "/usr/local")

# Folders in which people and tools keep virtual environments, below the home.
_COLLECTIONS = (
    *(".virtualenvs", "venvs", ".venvs", "envs", ".envs"),
    *(".local/share/virtualenvs", ".cache/pypoetry/virtualenvs"),
)

# Of a home's own folders; nobody's environments are behind so many others, and a file server is
# asked about each.
_MOST_FOLDERS = 500

# What a workspace's own environment is usually called; the first that there is comes first.
_USUAL = (".venv", "venv", "env")


def home_of(login: Mapping[str, str]) -> str:
    """The login's home folder."""
    return login.get("HOME") or os.path.expanduser("~")


def places(login: Mapping[str, str], *, workspace: str = "", managed: str = "") -> list[Place]:
    """All environments that can be seen, each once, those nearest to a job first.

    Args:
        login: The login environment.
        workspace: A workspace's folder; empty for none.
        managed: Holds the environments that the agent made.
    """
    found = [
        *_in_workspace(workspace),
        *conda_places(login),
        *_virtual(login),
        *_managed(managed),
        *_interpreters(login),
    ]
    # One that is listed in two ways, or reached through a link, is one.
    unique = {os.path.realpath(place.prefix): place for place in reversed(found)}
    return [place for place in found if unique[os.path.realpath(place.prefix)] is place]


def conda_places(login: Mapping[str, str]) -> Iterator[Place]:
    """Environments of conda, mamba and micromamba; the roots are called `base`, as they do."""
    home = home_of(login)
    roots = [root for root in _roots(login, home) if _is_conda(root)]
    for prefix in roots:
        if interpreter(prefix):
            yield Place("base", Kind.CONDA, prefix)
    for folder in _environment_folders(login, home):
        for prefix in _folders_in(folder):
            if _is_conda(prefix):
                yield Place(os.path.basename(prefix), Kind.CONDA, prefix)
    for prefix in _lines(os.path.join(home, ".conda", "environments.txt")):
        if _is_conda(prefix):
            yield Place(_name(prefix, Kind.CONDA), Kind.CONDA, prefix)


def at_path(prefix: str) -> Place | None:
    """The environment in a folder, or that an interpreter belongs to; None if there is none."""
    prefix = os.path.normpath(prefix)
    if os.path.isfile(prefix) and os.path.basename(os.path.dirname(prefix)) == "bin":
        outer = os.path.dirname(os.path.dirname(prefix))
        kind = kind_of(outer)
        return kind and Place(_name(outer, kind), kind, outer, prefix)
    kind = kind_of(prefix)
    return kind and Place(_name(prefix, kind), kind, prefix)


def _name(prefix: str, kind: Kind) -> str:
    """What people call an environment in that folder: conda's own is `base` wherever it lies."""
    holds = (os.path.isdir(os.path.join(prefix, name)) for name in ("condabin", "envs"))
    return "base" if kind is Kind.CONDA and any(holds) else os.path.basename(prefix)


def of_interpreter(python: str) -> Place:
    """The environment that an interpreter belongs to; itself where it belongs to none."""
    place = at_path(python)
    if place is not None and place.kind is not Kind.SYSTEM:
        return place
    prefix = os.path.dirname(os.path.dirname(os.path.realpath(python)))
    if os.path.basename(os.path.dirname(python)) == "shims":
        prefix = _behind_shim(os.path.dirname(os.path.dirname(python))) or prefix
    return Place(os.path.basename(python), Kind.SYSTEM, prefix, python)


def _behind_shim(root: str) -> str:
    """The Python that pyenv's shims run where no folder says otherwise; empty if it says none."""
    words = " ".join(_lines(os.path.join(root, "version"))).split()
    prefix = os.path.join(root, "versions", words[0]) if words else ""
    return prefix if os.path.isdir(prefix) else ""


def on_path(names: Iterable[str], path: str, *, without: Iterable[str] = ()) -> str:
    """The first of these programs on a PATH; empty if there is none.

    Args:
        names: In order of preference.
        path: The PATH.
        without: Folders of ours; what lies below them is passed over.
    """
    ours = tuple(without)
    for name in names:
        for folder in path.split(os.pathsep):
            if not os.path.isabs(folder) or any(is_below(folder, each) for each in ours):
                continue
            candidate = os.path.join(folder, name)
            if os.path.isfile(candidate) and os.access(candidate, os.X_OK):
                return candidate
    return ""


def is_below(path: str, folder: str) -> bool:
    """True if the path is that folder or in it."""
    return path == folder or path.startswith(folder.rstrip("/") + "/")


def listed(text: str, key: str) -> list[str]:
    """The items of one list in a .condarc, which is YAML of the simplest kind."""
    found: list[str] = []
    is_inside = False
    for line in text.splitlines():
        bare = line.split(" #", 1)[0].rstrip()
        if bare.startswith(f"{key}:"):
            inline = bare.partition(":")[2].strip().strip("[]")
            found += [item.strip() for item in inline.split(",") if item.strip()]
            is_inside = True
        elif is_inside and bare.lstrip().startswith("- "):
            found.append(bare.lstrip()[2:].strip())
        elif bare and not bare.startswith((" ", "#")):
            is_inside = False
    return [item.strip("\"'") for item in found]


def _roots(login: Mapping[str, str], home: str) -> Iterator[str]:
    for name in ("CONDA_ROOT", "MAMBA_ROOT_PREFIX"):
        if login.get(name):
            yield login[name]
    for name in ("CONDA_EXE", "MAMBA_EXE"):
        if login.get(name):
            yield os.path.dirname(os.path.dirname(login[name]))
    for above in (home, *_SHARED):
        yield from (os.path.join(above, name) for name in _DISTRIBUTIONS)
    yield from (os.path.join(home, name) for name in _MICROMAMBA)


def _environment_folders(login: Mapping[str, str], home: str) -> Iterator[str]:
    for name in ("CONDA_ENVS_PATH", "CONDA_ENVS_DIRS"):
        yield from filter(None, login.get(name, "").split(os.pathsep))
    for file in (os.path.join(home, ".condarc"), os.path.join(home, ".mambarc")):
        for item in listed("\n".join(_lines(file)), "envs_dirs"):
            yield os.path.join(home, item.replace("~", home, 1).replace("$HOME", home, 1))
    yield from (os.path.join(root, "envs") for root in _roots(login, home))
    yield os.path.join(home, ".conda", "envs")


def _in_workspace(workspace: str) -> Iterator[Place]:
    if not workspace:
        return
    found = {os.path.basename(prefix): prefix for prefix in _folders_in(workspace)}
    for name in sorted(found, key=lambda name: (name not in _USUAL, name)):
        kind = kind_of(found[name])
        if kind in (Kind.VENV, Kind.CONDA):
            yield Place(name, kind, found[name])


def _virtual(login: Mapping[str, str]) -> Iterator[Place]:
    home = home_of(login)
    collections = [os.path.join(home, name) for name in _COLLECTIONS]
    if login.get("WORKON_HOME"):
        collections.insert(0, login["WORKON_HOME"])
    within = (prefix for folder in collections for prefix in _folders_in(folder))
    # `python3 -m venv torchenv`, typed after a login, makes it in the home itself. Of each folder
    # there one question is asked, for most are something else.
    of_home = itertools.islice(_folders_in(home), _MOST_FOLDERS)
    bare = (prefix for prefix in of_home if os.path.isfile(os.path.join(prefix, "pyvenv.cfg")))
    for prefix in (*within, *bare):
        if kind_of(prefix) is Kind.VENV:
            yield Place(os.path.basename(prefix), Kind.VENV, prefix)


def _managed(folder: str) -> Iterator[Place]:
    for prefix in _folders_in(folder):
        if kind_of(prefix) is Kind.VENV:
            yield Place(os.path.basename(prefix), Kind.MANAGED, prefix)


def _interpreters(login: Mapping[str, str]) -> Iterator[Place]:
    """Pythons that pyenv and uv installed, pyenv's virtual environments, and the system's."""
    home = home_of(login)
    pyenv = os.path.join(login.get("PYENV_ROOT") or os.path.join(home, ".pyenv"), "versions")
    default = os.path.join(home, ".local", "share", "uv", "python")
    for folder in (pyenv, login.get("UV_PYTHON_INSTALL_DIR") or default):
        for prefix in _folders_in(folder):
            kind = kind_of(prefix)
            if kind is not None:
                yield Place(os.path.basename(prefix), kind, prefix)
    found = on_path(["python3"], os.defpath)
    if found:
        yield of_interpreter(found)


def _is_conda(prefix: str) -> bool:
    return os.path.isdir(os.path.join(prefix, "conda-meta"))


def _folders_in(folder: str) -> Iterator[str]:
    """Those in a folder, by name; none if it cannot be read. Names of ours begin with a dot."""
    if not folder:
        return
    with contextlib.suppress(OSError):
        for name in sorted(os.listdir(folder)):
            path = os.path.join(folder, name)
            if (not name.startswith(".") or name == ".venv") and os.path.isdir(path):
                yield path


def _lines(path: str) -> list[str]:
    try:
        with open(path, encoding="utf-8") as file:
            return [line.rstrip("\n") for line in file]
    except (OSError, UnicodeDecodeError):
        return []
