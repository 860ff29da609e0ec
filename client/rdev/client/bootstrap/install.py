"""Puts a release on a host: run there by the host's own Python, from its stdin, stdlib only.

    header (one line of JSON), then the bytes of the wheels one after another
      -> verified, unpacked into <dist>/<release>.new-<random>, tried, fsynced
      -> renamed to <dist>/<release>

Whoever looks at <dist>/<release> finds all of it or nothing, and two that do this at once do not
harm each other. Whatever fails, what was begun is removed; what a killed installer left is removed
by the next one. It is one file, because it is sent as it lies here. The last line that is printed
says how it went:

    rdev-install done {"dist": ..., "bytes": ..., ...}
    rdev-install failed {"cause": ..., "hint": ...}
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import io
import json
import os
import secrets
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator
from typing import IO, Any

DONE = "rdev-install done "
FAILED = "rdev-install failed "

# An installer that was killed leaves a folder that nobody has locked. One that has just begun has
# not locked its own yet, and where locks do not work only age tells.
_YOUNG, _OLD = 60.0, 86400.0

# Where jobs of other machines that share the home may run by an older release, which nobody here
# can see, it is kept for this long.
_UNSEEN = 30 * 86400.0

# Longer ones are cut off by some kernels, and a space ends the path.
_SHEBANG_LIMIT = 120

# A bridge is what a person waits for at each command, and needs little of the agent.
_ENTRY = """\
import sys
if sys.argv[1:2] == ["bridge"]:
    from rdev.agent.bridge import main
    sys.exit(main(sys.argv[2:]))
from rdev.agent.main import main
sys.exit(main())
"""

# Runs what it is given if the folder of releases is still ours; 127 is what a shell says of a
# command that is not there, and leads to a new first contact.
_START = """\
import os, stat, sys
program = sys.argv[1]
try:
    found = os.lstat(os.path.dirname(os.path.dirname(os.path.dirname(program))))
except OSError:
    sys.exit(127)
if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o077:
    sys.exit(127)
try:
    os.execv(program, sys.argv[1:])
except OSError:
    sys.exit(127)
"""

# What an agent needs before it serves: whatever a host cannot load shows now, and its bytecode is
# written once.
_TRIAL = "import rdev.agent.main, rdev.agent.server, rdev.supervisor, grpc, blake3, zstandard"

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT)


class InstallError(Exception):
    """A release cannot be put here.

    Attributes:
        cause: Why.
        hint: What to do.
    """

    def __init__(self, cause: str, hint: str = "") -> None:
        super().__init__(cause)
        self.cause = cause
        self.hint = hint


def main(stream: IO[bytes]) -> int:
    """Reads a payload and puts it in its place; returns the exit code."""
    os.umask(0o077)
    for number in (signal.SIGHUP, signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _end)
    try:
        header = json.loads(stream.readline())
        result = install(header, stream)
    except InstallError as error:
        return _fail(error)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        return _fail(InstallError(f"{where}{error.strerror or error}"))
    except ValueError as error:
        return _fail(InstallError(f"what arrived cannot be read: {error}"))
    _say(DONE, result)
    return 0


def _fail(error: InstallError) -> int:
    _say(FAILED, {"cause": error.cause, "hint": error.hint})
    return 1


def _say(marker: str, body: dict[str, Any]) -> None:
    sys.stdout.write(f"\n{marker}{json.dumps(body)}\n")  # a line of its own in any case
    sys.stdout.flush()


def _end(number: int, _frame: object) -> None:
    raise InstallError(f"it was ended by {signal.Signals(number).name}")


def install(header: dict[str, Any], stream: IO[bytes]) -> dict[str, Any]:
    """Puts the release of the header where it says.

    Args:
        header: `release`, `home`, `dist` or `spare`, `needed`, `wheels` (what follows in the
            stream), `fetch` (what this host's pip shall bring), `again`.
        stream: The wheels' bytes.

    Returns:
        `dist` (the release's folder), `bytes`, `new` (whether it was put there just now), `swept`
        (releases that were removed), `home_id` (see `rdev.client.known.KnownHost`).

    Raises:
        InstallError: It cannot be put there; nothing is left of it.
        OSError: The same.
    """
    with _folders(header) as parent:
        final = os.path.join(parent, header["release"])
        sweep_leftovers(parent)
        is_new = header.get("again") or not runs(final)
        if is_new:
            _make(header, stream, parent, final)
        else:
            _drain(stream)
        swept = sweep_releases(parent, header["home"], keep=header["release"])
        found = {"dist": final, "new": bool(is_new), "swept": swept, "home_id": _home_id(parent)}
    return {**found, "bytes": size_of(final)}


def _home_id(parent: str) -> str:
    """The id of a folder of releases, made by the first installer there."""
    path = os.path.join(parent, "home-id")
    if not os.path.exists(path):
        descriptor, temporary = tempfile.mkstemp(prefix="home-id.", dir=parent)
        with open(descriptor, "w", encoding="ascii") as file:
            file.write(secrets.token_hex(16))
        # Unlike a rename, a link leaves what another installer put there meanwhile.
        with contextlib.suppress(FileExistsError):
            os.link(temporary, path)
        os.unlink(temporary)
    with open(path, encoding="ascii") as file:
        return file.read()


@contextlib.contextmanager
def _folders(header: dict[str, Any]) -> Iterator[str]:
    """The folder of releases, made where there is none; on failure what was made is removed."""
    made: list[str] = []
    try:
        home = header["home"]
        _make_private(home, made)
        dist = header["dist"]
        if not dist:
            dist = tempfile.mkdtemp(prefix=f"rdev-{os.geteuid()}-", dir=header["spare"])
            made.append(dist)
        _make_private(dist, made)
        yield dist
        if dist != os.path.join(home, "dist"):
            _guard(home, dist)
    except BaseException:
        for folder in reversed(made):
            with contextlib.suppress(OSError):
                os.rmdir(folder)
        raise


def _make_private(folder: str, made: list[str]) -> None:
    missing = folder
    pending = []
    while not os.path.lexists(missing):
        pending.append(missing)
        missing = os.path.dirname(missing)
    for path in reversed(pending):
        made.append(path)  # before it is: a signal may come between the two
        try:
            os.mkdir(path, 0o700)
        except FileExistsError:  # another installer was faster
            made.remove(path)
    found = os.lstat(folder)
    if stat.S_ISLNK(found.st_mode):
        raise InstallError(
            f"{folder} is a symbolic link",
            f"name what it leads to, as in `rdev up HOST --home {os.path.realpath(folder)}`",
        )
    if not stat.S_ISDIR(found.st_mode):
        raise InstallError(f"{folder} is no folder")
    if found.st_uid != os.geteuid() or stat.S_IMODE(found.st_mode) & 0o077:
        raise InstallError(
            f"{folder} is not its user's alone", f"see to its owner, and `chmod 700 {folder}`"
        )


def _guard(home: str, dist: str) -> None:
    """Writes into the home where releases lie outside it, and what looks at that place first.

    Where everybody may make folders, such as /var/tmp, one that was not used for a month may be
    removed, and somebody else may make one of its name.
    """
    _make_private(os.path.join(home, "dist"), [])
    _note(os.path.join(home, "dist", "start.py"), _START)
    _note(os.path.join(home, "dist-folder"), dist)


def _note(path: str, text: str) -> None:
    temporary = f"{path}.{os.getpid()}"
    with open(temporary, "w", encoding="utf-8") as file:
        file.write(text + "\n")
    os.replace(temporary, path)


def _make(header: dict[str, Any], stream: IO[bytes], parent: str, final: str) -> None:
    _require_room(parent, header["needed"])
    new = os.path.join(parent, f"{header['release']}.new-{secrets.token_hex(8)}")
    try:  # from here on a signal may come at any moment, and what was made goes
        os.mkdir(new, 0o700)
        lock = os.open(new, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            with contextlib.suppress(OSError):  # not every network file system has locks
                fcntl.flock(lock, fcntl.LOCK_EX)
            _fill(header, stream, new, final)
            _settle(new, final, is_again=bool(header.get("again")))
        finally:
            os.close(lock)
    except OSError as error:
        if error.errno in _NO_ROOM:
            raise _no_room(parent, header["needed"]) from error
        raise
    finally:
        shutil.rmtree(new, ignore_errors=True)


def _fill(header: dict[str, Any], stream: IO[bytes], new: str, final: str) -> None:
    site = make_environment(new, final)
    _write_header(header, new)
    for wheel in header["wheels"]:
        unpack(_received(stream, wheel), site)
    for content in _fetched(header.get("fetch", []), new):
        unpack(content, site)
    _try(new)


def _require_room(parent: str, needed: int) -> None:
    found = os.statvfs(parent)
    if found.f_bavail * found.f_frsize < needed:
        raise _no_room(parent, needed)


def _no_room(parent: str, needed: int) -> InstallError:
    found = os.statvfs(parent)
    free = found.f_bavail * found.f_frsize
    return InstallError(
        f"{parent} has {free / 1e6:.0f} MB free, or less by a quota, and rdev takes "
        f"{needed / 1e6:.0f} MB",
        "free space there, or put it elsewhere with `rdev up HOST --home DIR`",
    )


def _received(stream: IO[bytes], wheel: dict[str, Any]) -> bytes:
    content = stream.read(wheel["size"])
    if len(content) != wheel["size"]:
        raise InstallError("the connection ended before all had arrived")
    _verify(content, wheel)
    return content


def _verify(content: bytes, wheel: dict[str, Any]) -> None:
    if hashlib.sha256(content).hexdigest() != wheel["sha256"]:
        raise InstallError(f"{wheel['file']} is not what was sent: its digest differs")


def _fetched(wheels: list[dict[str, Any]], new: str) -> Iterator[bytes]:
    """What this host's own pip brings, by the same digests."""
    if not wheels:
        return
    folder = os.path.join(new, "fetched")
    os.mkdir(folder)
    lines = [f"{w['name']}=={w['version']} --hash=sha256:{w['sha256']}\n" for w in wheels]
    listed = os.path.join(folder, "requirements.txt")
    with open(listed, "w", encoding="ascii") as file:
        file.writelines(lines)
    # Isolated as this process is: it stands in the home, where a `logging.py` may lie.
    command = [sys.executable, "-I", "-m", "pip", "download", "-q", "--disable-pip-version-check"]
    # A cache would stay in the home after a purge.
    command += ["--no-cache-dir", "--no-deps", "--require-hashes", "--only-binary=:all:"]
    command += ["-d", folder, "-r", listed]
    told = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    if told.returncode:
        lines = told.stderr.decode(errors="replace").strip().splitlines() or ["pip failed"]
        raise InstallError(f"its pip brings no {wheels[0]['name']}: {lines[-1]}")
    for wheel in wheels:
        with open(os.path.join(folder, wheel["file"]), "rb") as file:
            content = file.read()
        _verify(content, wheel)
        yield content
    shutil.rmtree(folder)


def make_environment(new: str, final: str) -> str:
    """Makes a virtual environment of this Python, without pip; returns its site-packages.

    It is what the module venv makes without its activation scripts; that module is missing where a
    distribution splits Python in parts.

    Args:
        new: Folder to make it in.
        final: What that folder will be renamed to.
    """
    base = os.path.realpath(getattr(sys, "_base_executable", None) or sys.executable)
    major, minor, micro = sys.version_info[:3]
    site = os.path.join(new, "lib", f"python{major}.{minor}", "site-packages")
    os.makedirs(site)
    os.mkdir(os.path.join(new, "bin"))
    os.symlink(base, os.path.join(new, "bin", "python"))
    with open(os.path.join(new, "pyvenv.cfg"), "w", encoding="utf-8") as file:
        file.write(f"home = {os.path.dirname(base)}\ninclude-system-site-packages = false\n")
        file.write(f"version = {major}.{minor}.{micro}\n")
    entry = os.path.join(new, "bin", "rdev-agent")
    with open(entry, "w", encoding="utf-8") as file:
        file.write(_shebang(os.path.join(final, "bin", "python")) + _ENTRY)
    os.chmod(entry, 0o700)
    return site


def _shebang(python: str) -> str:
    if len(python) <= _SHEBANG_LIMIT and " " not in python:
        return f"#!{python} -I\n"
    # To sh a command, to Python a string that nobody reads.
    quoted = "'" + python.replace("'", "'\"'\"'") + "'" if " " in python else python
    return f"#!/bin/sh\n'''exec' {quoted} -I \"$0\" \"$@\"\n' '''\n"


def _write_header(header: dict[str, Any], new: str) -> None:
    wheels = {w["file"]: w["sha256"] for w in [*header["wheels"], *header.get("fetch", [])]}
    with open(os.path.join(new, "release.json"), "w", encoding="utf-8") as file:
        json.dump({"release": header["release"], "wheels": wheels}, file, indent=1)


def unpack(content: bytes, site: str) -> None:
    """Unpacks a wheel; only what belongs into site-packages is taken.

    Raises:
        InstallError: An entry leads out of the folder, or is no file.
    """
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        for entry in archive.infolist():
            path = _safe(entry)
            if path is None:
                continue
            target = os.path.join(site, path)
            os.makedirs(os.path.dirname(target), exist_ok=True)
            is_program = (entry.external_attr >> 16) & 0o100
            flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
            descriptor = os.open(target, flags, 0o700 if is_program else 0o600)
            with open(descriptor, "wb") as file, archive.open(entry) as source:
                shutil.copyfileobj(source, file)


def _safe(entry: zipfile.ZipInfo) -> str | None:
    """Where an entry goes within site-packages; None if it goes nowhere."""
    parts = entry.filename.split("/")
    kind = stat.S_IFMT(entry.external_attr >> 16)
    is_odd = entry.filename.startswith("/") or "\\" in entry.filename or ".." in parts
    if is_odd or kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise InstallError(f"a wheel has an entry that leads elsewhere: {entry.filename!r}")
    if entry.is_dir():
        return None
    if parts[0].endswith(".data"):
        return "/".join(parts[2:]) if parts[1:2] in (["purelib"], ["platlib"]) else None
    return entry.filename


def _try(new: str) -> None:
    command = [os.path.join(new, "bin", "python"), "-I", "-c", _TRIAL]
    told = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    if told.returncode:
        lines = told.stderr.decode(errors="replace").strip().splitlines()
        raise InstallError(f"it does not run there: {lines[-1] if lines else told.returncode}")


def _settle(new: str, final: str, *, is_again: bool) -> None:
    """Gives the finished folder its name; whoever was faster has made the same."""
    _sync(new)
    try:
        os.rename(new, final)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
        if runs(final) and not is_again:
            return
        stale = tempfile.mkdtemp(prefix=f"{os.path.basename(final)}.old-", dir=os.path.dirname(new))
        os.rename(final, stale)
        os.rename(new, final)
        shutil.rmtree(stale, ignore_errors=True)
    _sync_folder(os.path.dirname(final))


def _sync(folder: str) -> None:
    for path, _, names in os.walk(folder):
        for name in names:
            descriptor = os.open(os.path.join(path, name), os.O_RDONLY | os.O_CLOEXEC)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        _sync_folder(path)


def _sync_folder(path: str) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with contextlib.suppress(OSError):  # some network file systems sync no folders
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _drain(stream: IO[bytes]) -> None:
    # A sender whose pipe breaks would not read what we say.
    while stream.read(1 << 20):
        pass


def runs(release: str) -> bool:
    """Whether a release is there, and its Python too."""
    python = os.path.join(release, "bin", "python")
    if not os.access(os.path.join(release, "bin", "rdev-agent"), os.X_OK):
        return False
    try:
        command = [python, "-I", "-c", ""]
        return subprocess.run(command, stdin=subprocess.DEVNULL, check=False).returncode == 0
    except OSError:
        return False


def size_of(folder: str) -> int:
    """Bytes that a folder takes on its disk."""
    total = 0
    for path, _, names in os.walk(folder):
        for name in names:
            total += os.lstat(os.path.join(path, name)).st_blocks * 512
    return total


def sweep_leftovers(parent: str) -> None:
    """Removes what installers that were killed left behind."""
    for name in os.listdir(parent):
        path = os.path.join(parent, name)
        if (".new-" in name or ".old-" in name) and _is_left(path):
            shutil.rmtree(path, ignore_errors=True)


def _is_left(path: str) -> bool:
    try:
        age = time.time() - os.lstat(path).st_mtime
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return age > _OLD
    else:
        return age > _YOUNG
    finally:
        os.close(descriptor)


def sweep_releases(parent: str, home: str, *, keep: str) -> list[str]:
    """Removes releases that no agent and no job uses; returns their names.

    Args:
        parent: Folder of releases.
        home: The agent's state folder, which other machines may share.
        keep: The release that stays in any case.
    """
    swept = []
    for name in sorted(os.listdir(parent)):
        path = os.path.join(parent, name)
        if name == keep or ".new-" in name or ".old-" in name or not _is_release(path):
            continue
        if not (_is_used_here(path) or _may_be_used_elsewhere(path, home)):
            shutil.rmtree(path, ignore_errors=True)
            swept.append(name)
    return swept


def _is_release(path: str) -> bool:
    return os.path.isfile(os.path.join(path, "release.json"))


def _is_used_here(
    path: str, *, processes: Callable[[], list[str]] = lambda: os.listdir("/proc")
) -> bool:
    """Whether a process of ours was started from it, has loaded a part of it, or will."""
    # A memory map names files without the symbolic links on the way to them.
    needles = {os.fsencode(name) + b"/" for name in (path, os.path.realpath(path))}
    for pid in processes():
        if not pid.isdigit() or int(pid) == os.getpid():
            continue
        for kind in ("cmdline", "environ", "maps"):
            with contextlib.suppress(OSError), open(f"/proc/{pid}/{kind}", "rb") as file:
                content = file.read()
                if any(needle in content for needle in needles):
                    return True
    return False


def _may_be_used_elsewhere(path: str, home: str) -> bool:
    """Whether machines that share the home may use it; one machine's processes we have seen."""
    try:
        machines = os.listdir(os.path.join(home, "hosts"))
    except OSError:
        return False
    if len(machines) <= 1:
        return False
    return time.time() - os.lstat(path).st_mtime < _UNSEEN


if __name__ == "__main__":
    sys.exit(main(sys.stdin.buffer))
