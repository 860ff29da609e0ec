"""What activating an environment changes: told from its files, and from what its scripts do.

login --prelude--> --variables and PATH--> --scripts of activate.d--> the job's environment
        bash -l         told from files          sh, nothing else read

A shell is run once for each prelude and each set of scripts; what it changed is kept until one of
its files, or the environment that it begins with, changes. It gets no input, a time limit, and a
descriptor of its own to report by, so that it may print what it likes.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import select
import shlex
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import IO

from rdev.agent.environment.contents import mtime
from rdev.agent.environment.difference import Difference, between, parse
from rdev.agent.environment.found import Environment, Kind
from rdev.agent.environment.places import on_path
from rdev.protocol.errors import EnvironmentFailed

# `module load` on a cold network file system takes ten seconds and more; nothing sane takes this.
_PATIENCE = 60.0

# Of module files nothing is known, so that what they changed is found out again some time.
_LASTS = 86400.0

# More are kept than anybody uses in turns; each is a few kilobytes.
_MOST_KEPT = 100

# conda's own way to say that a variable is taken away.
_UNSET = "***unset***"

_HINT_PRELUDE = "mend `[env] prelude`; it runs in a login bash, in the workspace's folder"
_HINT_SCRIPTS = "see what the scripts in its etc/conda/activate.d do, or name another with --env"

# An empty entry, which no variable makes, after the last one.
_END_OF_LOOK = b"\0\0"

# What differs from login to login and has no influence.
_PASSING = frozenset({"SHLVL", "PWD", "OLDPWD", "_", "TERM", "XDG_SESSION_ID", "INVOCATION_ID"})

_OF_CONDA = re.compile(r"CONDA_(?:PREFIX|SHLVL|DEFAULT_ENV)(?:_\d+)?")
_PATH_IN_PRELUDE = re.compile(r"[\w./~$-]+")


def variables(environment: Environment, base: Mapping[str, str]) -> dict[str, str]:
    """An environment in which `environment` is the active one, as far as files tell.

    What was active before is not any more.

    Args:
        environment: A conda or virtual environment.
        base: What it is activated in.
    """
    is_conda = environment.kind is Kind.CONDA
    former = [base.get("VIRTUAL_ENV", ""), base.get("CONDA_PREFIX", "") if is_conda else ""]
    gone = {os.path.join(prefix, "bin") for prefix in former if prefix}
    dropped = {"VIRTUAL_ENV", "VIRTUAL_ENV_PROMPT", "PYTHONHOME"}
    made = {name: value for name, value in base.items() if name not in dropped}
    own = os.path.join(environment.prefix, "bin")
    folders = [part for part in base.get("PATH", os.defpath).split(os.pathsep) if part not in gone]
    made["PATH"] = os.pathsep.join([own, *(part for part in folders if part != own)])
    if not is_conda:
        return made | {"VIRTUAL_ENV": environment.prefix}
    made = {name: value for name, value in made.items() if not _OF_CONDA.fullmatch(name)}
    made |= {
        "CONDA_PREFIX": environment.prefix,
        "CONDA_DEFAULT_ENV": environment.name,
        "CONDA_SHLVL": "1",
    }
    for name, value in _conda_variables(environment.prefix).items():
        if value == _UNSET:
            made.pop(name, None)
        else:
            made[name] = value
    return made


def is_active(environment: Environment, base: Mapping[str, str]) -> bool:
    """True if the login has activated it by itself."""
    name = "CONDA_PREFIX" if environment.kind is Kind.CONDA else "VIRTUAL_ENV"
    active = base.get(name, "")
    return bool(active) and os.path.realpath(active) == os.path.realpath(environment.prefix)


def scripts(environment: Environment, base: Mapping[str, str]) -> tuple[str, ...]:
    """What activation sources, in this order: the former one's clean-up, then its own."""
    former = base.get("CONDA_PREFIX", "")
    leaving = _scripts(former, "deactivate.d")[::-1] if former else []
    return (*leaving, *_scripts(environment.prefix, "activate.d"))


@dataclass(frozen=True, slots=True)
class _Run:
    """One run of a shell.

    Attributes:
        action: What it does, for a person.
        shell: Its command line, to which the script is added.
        script: What it does between the two looks at its environment.
        folder: Where it runs.
        hint: What to do if it fails.
        files: What it depends on.
    """

    action: str
    shell: tuple[str, ...]
    script: str
    folder: str
    hint: str
    files: tuple[str, ...] = ()

    def failed(self, cause: str) -> EnvironmentFailed:
        """The error to raise."""
        return EnvironmentFailed(self.action, cause, hint=self.hint)


class Activations:
    """Finds out what preludes and scripts change, and remembers it. Its methods block.

    Args:
        folder: Keeps what was found out; it may hold what the scripts export.
        patience: Seconds that a shell may take.
    """

    def __init__(self, folder: str, *, patience: float = _PATIENCE) -> None:
        self._folder = folder
        self._patience = patience

    def prelude(
        self, text: str, base: Mapping[str, str], *, folder: str, refresh: bool = False
    ) -> Difference:
        """What shell commands change that come before everything else.

        Args:
            text: The commands; they run in a login shell, so that `module` is known.
            base: What they are run in.
            folder: Where they are run.
            refresh: Find out again.

        Raises:
            EnvironmentFailed: One of them failed, or they took too long.
        """
        bash = on_path(["bash"], base.get("PATH", os.defpath))
        shell = (bash, "-l") if bash else ("/bin/sh", "-l")
        script = f"set -e\n{text}\nset +e"
        files = _mentioned(text, folder)
        return self._changed(
            _Run("run the prelude of the environment", shell, script, folder, _HINT_PRELUDE, files),
            base,
            refresh=refresh,
        )

    def sourced(
        self, files: Iterable[str], base: Mapping[str, str], *, words: str, refresh: bool = False
    ) -> Difference:
        """What sourcing these scripts changes.

        As with conda, it is no failure if the last command of one fails.

        Args:
            files: The scripts.
            base: What they are run in.
            words: What is activated, for a person.
            refresh: Find out again.

        Raises:
            EnvironmentFailed: One ended the shell, or they took too long.
        """
        bash = on_path(["bash"], base.get("PATH", os.defpath))
        shell = (bash, "--noprofile", "--norc") if bash else ("/bin/sh",)
        read = tuple(files)
        script = "\n".join(f". {shlex.quote(file)}" for file in read)
        run = _Run(f"activate the {words}", shell, script, "/", _HINT_SCRIPTS, read)
        return self._changed(run, base, refresh=refresh)

    def _changed(self, run: _Run, base: Mapping[str, str], *, refresh: bool) -> Difference:
        path = os.path.join(self._folder, f"{_key(run, base)}.json")
        if not refresh:
            known = _read(path)
            if known is not None:
                return known
        found = _observed(run, base, self._patience)
        self._keep(path, found)
        return found

    def _keep(self, path: str, found: Difference) -> None:
        """Remembers; a full disk is no reason to refuse a job that can be started."""
        with contextlib.suppress(OSError):
            os.makedirs(self._folder, mode=0o700, exist_ok=True)
            descriptor, new = tempfile.mkstemp(dir=self._folder)
            with open(descriptor, "w", encoding="utf-8") as file:
                json.dump(found.to_json(), file)
            os.replace(new, path)
            entries = [os.path.join(self._folder, name) for name in os.listdir(self._folder)]
            for old in sorted(entries, key=mtime)[:-_MOST_KEPT]:
                os.unlink(old)


def _key(run: _Run, base: Mapping[str, str]) -> str:
    files = [(file, mtime(file)) for file in run.files]
    begun = sorted(item for item in base.items() if item[0] not in _PASSING)
    body = repr((run.shell, run.script, run.folder, files, begun))
    return hashlib.sha256(body.encode(errors="surrogateescape")).hexdigest()[:32]


def _read(path: str) -> Difference | None:
    try:
        if time.time() - os.stat(path).st_mtime > _LASTS:
            return None
        with open(path, encoding="utf-8") as file:
            return Difference.from_json(json.load(file))
    except (OSError, ValueError, LookupError, AttributeError):
        return None


def _observed(run: _Run, base: Mapping[str, str], patience: float) -> Difference:
    """Runs the shell and compares its environment before and after."""
    with tempfile.TemporaryFile() as errors, _in_memory("script") as script:
        reader, writer = os.pipe()
        with open(reader, "rb") as reports:
            try:
                os.pwrite(script, _framed(run.script, writer, base), 0)
                process = _started(run, base, script=script, writer=writer, errors=errors)
            finally:
                os.close(writer)
            dump, is_late = _collected(process, reports.fileno(), patience)
        looks = dump.split(_END_OF_LOOK)
        if len(looks) != 3:
            late = patience if is_late else None
            raise EnvironmentFailed(
                run.action, _cause(errors.fileno(), process, late=late), hint=run.hint
            )
    return between(parse(looks[0]), parse(looks[1]))


def _framed(script: str, writer: int, base: Mapping[str, str]) -> bytes:
    """The script between two looks at the environment."""
    env = on_path(["env"], base.get("PATH", os.defpath)) or "/usr/bin/env"
    look = f"{shlex.quote(env)} -0 >&{writer}; printf '\\0' >&{writer}"
    return os.fsencode(f"{look}\n{script}\n{look}\nexit 0\n")


def _started(
    run: _Run, base: Mapping[str, str], *, script: int, writer: int, errors: IO[bytes]
) -> subprocess.Popen[bytes]:
    try:
        return subprocess.Popen(
            # Commands may hold a secret, and everybody can read a command line.
            (*run.shell, "-c", f". /proc/self/fd/{script}"),
            env=dict(base),
            cwd=run.folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=errors,
            pass_fds=[script, writer],
            start_new_session=True,
        )
    except OSError as error:
        raise EnvironmentFailed(
            run.action, f"{run.shell[0]}: {error.strerror}", hint=run.hint
        ) from error


def _collected(
    process: subprocess.Popen[bytes], reports: int, patience: float
) -> tuple[bytes, bool]:
    """What the shell reported, and whether it was ended because it took too long."""
    dump = bytearray()
    deadline = time.monotonic() + patience
    # Not until the end of the file: a daemon that the prelude starts may hold it open for ever.
    while dump.count(_END_OF_LOOK) < 2:
        left = max(0.0, deadline - time.monotonic())
        if not select.select([reports], [], [], left)[0]:
            break
        part = os.read(reports, 1 << 16)
        if not part:
            break
        dump += part
    try:
        process.wait(max(0.0, deadline - time.monotonic()))
    except subprocess.TimeoutExpired:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        return bytes(dump), True
    return bytes(dump), False


def _cause(errors: int, process: subprocess.Popen[bytes], *, late: float | None) -> str:
    if late is not None:
        return f"it did not end within {late:.0f} s"
    size = os.fstat(errors).st_size
    tail = os.pread(errors, 4096, max(0, size - 4096)).decode(errors="replace")
    lines = [line.strip() for line in tail.splitlines() if line.strip()]
    return lines[-1] if lines else f"it ended the shell with status {process.returncode}"


@contextlib.contextmanager
def _in_memory(name: str) -> Iterator[int]:
    descriptor = os.memfd_create(name)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _mentioned(text: str, folder: str) -> tuple[str, ...]:
    """Files that commands name: when one changes, so may what they do."""
    words = (
        os.path.expanduser(word)
        for word in _PATH_IN_PRELUDE.findall(text)
        if {".", "/"} & set(word)
    )
    paths = (os.path.join(folder, word) for word in words)
    return tuple(path for path in paths if os.path.isfile(path))


def _scripts(prefix: str, folder: str) -> list[str]:
    within = os.path.join(prefix, "etc", "conda", folder)
    with contextlib.suppress(OSError):
        return [os.path.join(within, n) for n in sorted(os.listdir(within)) if n.endswith(".sh")]
    return []


def _conda_variables(prefix: str) -> dict[str, str]:
    """Variables that packages, and then the environment's owner, have set."""
    folder = os.path.join(prefix, "etc", "conda", "env_vars.d")
    names: list[str] = []
    with contextlib.suppress(OSError):
        names = sorted(os.listdir(folder))
    found: dict[str, str] = {}
    for body in (_json(os.path.join(folder, name)) for name in names):
        found |= _strings(body)
    return found | _strings(_json(os.path.join(prefix, "conda-meta", "state")).get("env_vars"))


def _strings(body: object) -> dict[str, str]:
    return {k: str(v) for k, v in body.items()} if isinstance(body, dict) else {}


def _json(path: str) -> dict[str, object]:
    try:
        with open(path, encoding="utf-8") as file:
            body = json.load(file)
    except (OSError, ValueError):
        return {}
    return body if isinstance(body, dict) else {}
