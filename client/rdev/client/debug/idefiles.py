"""Files of a workspace that tell VS Code and PyCharm how to attach: written, renewed, taken away.

.vscode/launch.json    edited, see `rdev.client.debug.launchjson`
.run/rdev *.run.xml    PyCharm's (2025.3 and later, "Attach to DAP"), each a file of ours alone
"""

from __future__ import annotations

import contextlib
import glob
import os
import re
import tempfile
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from xml.sax.saxutils import quoteattr

from rdev.client.debug import launchjson
from rdev.client.debug.jsonc import JsoncError
from rdev.protocol.errors import ConfigError

_LAUNCH = os.path.join(".vscode", "launch.json")
_PYCHARM = ".run"

# A file is ours by this line; one that a person made of it is theirs. XML allows no `--` in it.
_MARK = "<!-- Made by rdev debug, which takes it away by its options write and remove. -->"

_ACTION = "write an IDE's configuration"


def write(root: str, ports: Mapping[str, int]) -> list[str]:
    """Tells the IDEs of a workspace about ports of this machine, and of no others of ours.

    Args:
        root: The workspace.
        ports: By what is to be attached to, as people name it.

    Returns:
        The files that were written, relative to the workspace.

    Raises:
        ConfigError: A file cannot be understood, or not be written; it is as it was.
    """
    path = os.path.join(root, _LAUNCH)
    stamp = datetime.now(UTC).astimezone().isoformat(timespec="seconds")
    with _explained(path):
        _replace(path, launchjson.merged(_read(path), ports, stamp=stamp))
    _remove_pycharm(root)
    written = [_LAUNCH]
    # Without the folder that PyCharm keeps its own in, nobody opens this one in PyCharm.
    if os.path.isdir(os.path.join(root, ".idea")):
        for name, port in ports.items():
            file = os.path.join(_PYCHARM, f"rdev {re.sub(r'[^A-Za-z0-9 -]', '-', name)}.run.xml")
            with _explained(os.path.join(root, file)):
                _replace(os.path.join(root, file), _run_configuration(name, port))
            written.append(file)
    return written


def remove(root: str) -> list[str]:
    """Takes away what `write` put there; what it made alone, with the folder if that is empty.

    Returns:
        The files that were changed or removed, relative to the workspace.

    Raises:
        ConfigError: A file cannot be understood, or not be written; it is as it was.
    """
    path = os.path.join(root, _LAUNCH)
    changed = _remove_pycharm(root)
    with _explained(path):
        text = _read(path)
        left = launchjson.without(text) if text is not None else None
        if text is None or left == text:
            return changed
        if left is None:
            _unlink(path)
        else:
            _replace(path, left)
    return [_LAUNCH, *changed]


def _remove_pycharm(root: str) -> list[str]:
    removed = []
    for path in sorted(glob.glob(os.path.join(glob.escape(root), _PYCHARM, "rdev *.run.xml"))):
        with _explained(path):
            if _MARK in (_read(path) or ""):
                _unlink(path)
                removed.append(os.path.relpath(path, root))
    return removed


def _run_configuration(name: str, port: int) -> str:
    address = quoteattr(f"127.0.0.1:{port}")
    return f"""\
<component name="ProjectRunConfigurationManager">
  {_MARK}
  <configuration default="false" name={quoteattr(f"rdev: {name}")} \
type="PythonDapAttachConfiguration">
    <option name="remoteAddress" value={address} />
    <method v="2" />
  </configuration>
</component>
"""


@contextlib.contextmanager
def _explained(path: str) -> Iterator[None]:
    try:
        yield
    except JsoncError as error:
        hint = "mend it, or paste what `rdev debug --listen` prints"
        raise ConfigError(_ACTION, f"{path}: {error}; it is left as it is", hint=hint) from error
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(_ACTION, f"{path}: {error}") from error


def _read(path: str) -> str | None:
    try:
        with open(path, encoding="utf-8", newline="") as file:
            return file.read()
    except FileNotFoundError:
        return None


def _replace(path: str, text: str) -> None:
    """Writes a file in one step, through a link to it, with the mode that it had."""
    path = os.path.realpath(path)
    folder = os.path.dirname(path)
    os.makedirs(folder, exist_ok=True)
    mode = os.stat(path).st_mode & 0o7777 if os.path.exists(path) else 0o666 & ~_umask()
    with tempfile.NamedTemporaryFile(
        "w", dir=folder, prefix=".rdev-", delete=False, encoding="utf-8", newline=""
    ) as file:
        try:
            file.write(text)
            file.flush()
            os.fchmod(file.fileno(), mode)
            os.replace(file.name, path)
        except BaseException:
            os.unlink(file.name)
            raise


def _umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def _unlink(path: str) -> None:
    os.unlink(path)
    with contextlib.suppress(OSError):  # it holds something else
        os.rmdir(os.path.dirname(path))
