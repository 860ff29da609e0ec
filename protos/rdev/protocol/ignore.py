"""Which paths of a workspace do not travel, and by which rule.

    .rdevignore, deepest folder first     may re-include anything but `.rdev` with `!`
    secrets                               only .rdevignore re-includes them
    .gitignore, deepest folder first      as git reads it
    built-ins                             version control, environments, caches, weights

Within a file the last matching line wins, and what lies in an ignored folder cannot be re-included
without the folder, as in git. The rules are values: whoever walks a tree enters its folders from
the root down and hands in the lines of the ignore files found there.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeAlias

from rdev.protocol.paths import RESERVED
from rdev.protocol.patterns import Pattern, parse

GITIGNORE = ".gitignore"
RDEVIGNORE = ".rdevignore"

Lines: TypeAlias = "list[str] | None"

# What a process on the host has no business reading: keys, tokens, passwords.
# A dot after `id_` is a source file such as id_map.py, unless it begins as OpenSSH's keys do.
SECRET_FILES = (
    *(".env*", "*.pem", ".netrc", "id_*", "!id_*.*"),
    *("id_rsa*", "id_dsa*", "id_ecdsa*", "id_ed25519*"),
)
SECRET_FOLDERS = (".aws/", ".ssh/", ".gnupg/")

BUILT_INS = (
    # Version control: the snapshot is the version.
    *(".git", ".hg/", ".svn/", ".jj/"),
    # Environments and packages: made for the laptop's machine.
    *(".venv/", "venv/", "node_modules/", "*.egg-info/", ".tox/", ".nox/", ".direnv/"),
    # Caches.
    *("__pycache__/", "*.py[co]", ".mypy_cache/", ".pytest_cache/", ".ruff_cache/", ".cache/"),
    *(".ipynb_checkpoints/", ".hypothesis/", ".DS_Store"),
    # What editors write beside a file for a moment.
    *("*~", "*.sw[op]", ".#*", r"\#*#", "4913", "*___jb_tmp___", "*___jb_old___"),
    # Outputs of trainings: they are made on the host, and are large.
    *("wandb/", "runs/", "mlruns/", "lightning_logs/", "checkpoints/"),
    *("*.pt", "*.pth", "*.ckpt", "*.safetensors", "*.onnx", "*.gguf", "*.h5"),
)


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a path travels.

    Attributes:
        ignored: It does not.
        rule: The deciding rule as `SOURCE:LINE: PATTERN`; empty if none matched.
        secret: It is ignored because it may hold a secret.
    """

    ignored: bool
    rule: str = ""
    secret: bool = False


TRAVELS = Verdict(ignored=False)


class RuleFile:
    """The patterns of one ignore file, relative to the folder it lies in."""

    __slots__ = ("_above", "_base", "_names", "_paths", "_patterns", "source")

    def __init__(self, base: str, source: str, lines: Iterable[str], *, above: str = "") -> None:
        """Reads the lines.

        Args:
            base: Folder whose paths the patterns mean; "" is the root.
            source: Name for people.
            lines: The lines of the file.
            above: Of a file above the root: the root's path from its folder, with a closing "/".
        """
        self._base = base
        self._above = above
        self.source = source
        self._patterns = parse(lines)
        self._names = _any(each for each in self._patterns if not each.anchored)
        self._paths = _any(each for each in self._patterns if each.anchored)

    def match(self, path: str, name: str, *, is_directory: bool) -> Pattern | None:
        """The last pattern that matches the path, or None."""
        relative = path[len(self._base) + 1 :] if self._base else self._above + path
        by_name = self._names is not None and self._names.fullmatch(name)
        by_path = self._paths is not None and self._paths.fullmatch(relative)
        if not by_name and not by_path:
            return None
        for pattern in reversed(self._patterns):
            subject = relative if pattern.anchored else name
            if (is_directory or not pattern.directory_only) and pattern.regex.fullmatch(subject):
                return pattern
        return None


@dataclass(frozen=True, slots=True)
class Rules:
    """The rules that hold in one folder; `entering` gives those of a folder in it."""

    git: tuple[RuleFile, ...] = ()
    rdev: tuple[RuleFile, ...] = ()

    def entering(self, folder: str, gitignore: Lines, rdevignore: Lines) -> Rules:
        """The rules within `folder`, given the lines of its ignore files, if it has them."""
        git, own = self.git, self.rdev
        at = f"{folder}/" if folder else ""
        if gitignore is not None:
            git = (*git, RuleFile(folder, at + GITIGNORE, gitignore))
        if rdevignore is not None:
            own = (*own, RuleFile(folder, at + RDEVIGNORE, rdevignore))
        return Rules(git, own)

    def verdict(self, path: str, *, is_directory: bool) -> Verdict:
        """Whether the path travels, provided that its folder does."""
        name = path.rpartition("/")[2]
        if path.casefold() == RESERVED:
            return Verdict(ignored=True, rule="rdev's own folder")
        if found := _last(self.rdev, path, name, is_directory=is_directory):
            return found
        secrets = _SECRET_FOLDERS if is_directory else _SECRET_FILES
        if (found := _last((secrets,), path, name, is_directory=is_directory)) and found.ignored:
            return Verdict(ignored=True, rule=found.rule, secret=True)
        found = _last(self.git, path, name, is_directory=is_directory)
        found = found or _last((_BUILT_INS,), path, name, is_directory=is_directory)
        return found or TRAVELS


def _last(
    files: tuple[RuleFile, ...], path: str, name: str, *, is_directory: bool
) -> Verdict | None:
    for file in reversed(files):
        pattern = file.match(path, name, is_directory=is_directory)
        if pattern is not None:
            line = "" if file in _FIXED else f":{pattern.line}"
            return Verdict(not pattern.negated, f"{file.source}{line}: {pattern.text}")
    return None


def _fixed(source: str, lines: Iterable[str]) -> RuleFile:
    return RuleFile("", source, lines)


def _any(patterns: Iterable[Pattern]) -> re.Pattern[str] | None:
    sources = [f"(?:{pattern.regex.pattern})" for pattern in patterns]
    return re.compile("|".join(sources), re.DOTALL) if sources else None


_SECRET_FILES = _fixed("secret", SECRET_FILES)
_SECRET_FOLDERS = _fixed("secret", SECRET_FOLDERS)
_BUILT_INS = _fixed("built-in", BUILT_INS)
_FIXED = (_SECRET_FILES, _SECRET_FOLDERS, _BUILT_INS)
