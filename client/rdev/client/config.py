"""Configuration: flags beat RDEV_* variables beat the workspace's file beat the user's file.

None is needed. The workspace's file is `rdev.toml` at its root, or `[tool.rdev]` in its
pyproject.toml; the user's is `$XDG_CONFIG_HOME/rdev/config.toml`.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from rdev.client.hosts import LOCAL
from rdev.protocol.errors import ConfigError
from rdev.wire.job import DEFAULT_GRACE, EnvironmentChoice, LogFull


@dataclass(frozen=True, slots=True)
class Config:
    """What is configured, everything resolved.

    Attributes:
        host: Host that verbs use without -H.
        python: Interpreter for scripts and modules; empty lets the host choose.
        env: The environment of the host that jobs run in.
        environment: Variables for every job.
        timeout: Seconds after which jobs are stopped; None means never.
        grace: Seconds between TERM and KILL when a job is stopped.
        retries: How often a failed job is started again.
        keep_children: Spare what a job leaves behind when it ends by itself.
        log_full: What happens when a job's output cannot be kept: drop, block or stop.
        owner: Whose jobs are started, where `user@laptop` would not tell; only in the user's file.
    """

    host: str = LOCAL
    python: str = ""
    env: EnvironmentChoice = field(default_factory=EnvironmentChoice)
    environment: Mapping[str, str] = field(default_factory=dict)
    timeout: float | None = None
    grace: float = DEFAULT_GRACE
    retries: int = 0
    keep_children: bool = False
    log_full: str = LogFull.DROP.value
    owner: str = ""

    def with_environment(self, *, python: str | None, env: str | None) -> Config:
        """With what flags say of interpreter and environment, which beats all that files say.

        Args:
            python: Of `--python`; None if it was not given.
            env: Of `--env`; None if it was not given.
        """
        if env is not None:
            chosen = replace(self.env, name=env, managed=False, python="")
            return replace(self, python=python or "", env=chosen)
        return self if python is None else replace(self, python=python)


# Each takes a little of the job's record; whoever wants more has another problem.
MAX_RETRIES = 100

# `[workspace]` is read by rdev.client.sync.root; only its keys are checked here.
_WORKSPACE_KEYS = frozenset({"id", "path", "links"})

# Of `[env]`: the attribute of the choice that each key sets, and what may stand there.
_ENV_KEYS: dict[str, tuple[str, type]] = {
    "name": ("name", str),
    "python": ("python", str),
    "prelude": ("prelude", str),
    "manage": ("managed", bool),
}

# An owner is shown in tables.
MAX_OWNER = 128

_TYPES: dict[str, tuple[type, ...]] = {
    "host": (str,),
    "python": (str,),
    "environment": (dict,),
    "timeout": (int, float),
    "grace": (int, float),
    "retries": (int,),
    "keep_children": (bool,),
    "log_full": (str,),
}
_LOG_FULL = frozenset(choice.value for choice in LogFull)


def load(root: str | None) -> Config:
    """The configuration that holds in the workspace at `root`, or outside of any.

    Raises:
        ConfigError: A file cannot be read, a key is unknown, or a value has the wrong type.
    """
    config = Config()
    for path, table in _sources(root):
        config = _merged(config, _read(path, table), path)
    return _with_variables(config)


def user_file() -> str:
    """Path of the user's own configuration file."""
    base = os.environ.get("XDG_CONFIG_HOME") or os.path.join(os.path.expanduser("~"), ".config")
    return os.path.join(base, "rdev", "config.toml")


def _sources(root: str | None) -> list[tuple[str, tuple[str, ...]]]:
    sources: list[tuple[str, tuple[str, ...]]] = [(user_file(), ())]
    if root is not None:
        sources.append((os.path.join(root, "pyproject.toml"), ("tool", "rdev")))
        sources.append((os.path.join(root, "rdev.toml"), ()))
    return sources


def _read(path: str, table: tuple[str, ...]) -> dict[str, Any]:
    try:
        with open(path, "rb") as file:
            found: Any = tomllib.load(file)
    except FileNotFoundError:
        return {}
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"read {path}", str(error)) from error
    for key in table:
        found = found.get(key, {})
    return dict(found)


def _merged(config: Config, values: Mapping[str, Any], path: str) -> Config:
    for key, value in values.items():
        if key == "workspace":
            _require_known(value, _WORKSPACE_KEYS, path)
            continue
        if key == "hosts" and path == user_file():  # rdev.client.entries reads it
            continue
        if key == "user":
            config = replace(config, owner=_owner(value, path))
            continue
        if key == "env":
            chosen = _env(config.env, value, path)
            is_said = chosen.name or chosen.python or chosen.managed
            # It is about the same thing as a weaker file's `python`, and beats it.
            python = "" if is_said and "python" not in values else config.python
            config = replace(config, env=chosen, python=python)
            continue
        _require_known({key: value}, _TYPES.keys() | {"workspace", "user", "env"}, path)
        if not _is_sound(key, value):
            raise ConfigError(f"use {path}", f"{key} may not be {value!r}")
        config = replace(config, **{key: _added(config, key, value)})
    return config


def _env(choice: EnvironmentChoice, values: object, path: str) -> EnvironmentChoice:
    """Which environment, from `[env]`."""
    if not isinstance(values, dict):
        raise ConfigError(f"use {path}", f"env may not be {values!r}; it is a table")
    _require_known(values, _ENV_KEYS, path)
    if values.get("name") and values.get("manage"):
        cause = "[env] has a name and manage = true; only one of them can be meant"
        raise ConfigError(f"use {path}", cause)
    # Where a file says which one is meant, what a weaker file says of that counts no more.
    if values.keys() & {"name", "python", "manage"}:
        choice = replace(choice, name="", python="", managed=False)
    for key, value in values.items():
        attribute, kind = _ENV_KEYS[key]
        if not isinstance(value, kind):
            raise ConfigError(f"use {path}", f"[env] {key} may not be {value!r}")
        changes: dict[str, Any] = {attribute: value}
        choice = replace(choice, **changes)
    return choice


def _owner(values: object, path: str) -> str:
    """Who the person is, from `[user]`; a workspace is shared, so it cannot say that."""
    if path != user_file():
        raise ConfigError(f"use {path}", f"[user] belongs into {user_file()}")
    _require_known(values, ("owner",), path)
    owner = values.get("owner", "") if isinstance(values, dict) else None
    if not isinstance(owner, str) or not owner.isprintable() or len(owner) > MAX_OWNER:
        raise ConfigError(f"use {path}", f"[user] owner may not be {owner!r}")
    return owner


def _require_known(values: object, known: Collection[str], path: str) -> None:
    for key in values if isinstance(values, dict) else ():
        if key not in known:
            names = ", ".join(sorted(known))
            raise ConfigError(f"use {path}", f"{key!r} is no key of rdev; it knows {names}")


def _is_sound(key: str, value: object) -> bool:
    if not isinstance(value, _TYPES[key]) or isinstance(value, bool) != (bool in _TYPES[key]):
        return False
    if key == "retries":
        return isinstance(value, int) and 0 <= value <= MAX_RETRIES
    if key == "log_full":
        return value in _LOG_FULL
    return not isinstance(value, (int, float)) or 0 <= value < float("inf")


def _added(config: Config, key: str, value: Any) -> Any:  # noqa: ANN401  # as TOML has it
    if key != "environment":
        return value
    return {**config.environment, **{name: str(word) for name, word in value.items()}}


def _with_variables(config: Config) -> Config:
    return replace(
        config,
        host=os.environ.get("RDEV_HOST") or config.host,
        python=os.environ.get("RDEV_PYTHON") or config.python,
    )
