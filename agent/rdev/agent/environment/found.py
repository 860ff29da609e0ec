"""An environment as it was found on this machine."""

from __future__ import annotations

import enum
from dataclasses import dataclass


class Kind(enum.Enum):
    """What made an environment."""

    SYSTEM = "python"
    """An interpreter outside of environments: the login's own, pyenv's, uv's."""
    VENV = "venv"
    """A virtual environment."""
    CONDA = "conda env"
    """A conda or mamba environment."""
    MANAGED = "managed env"
    """One that this agent made from a workspace's lock file."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where an environment lies; nothing inside was looked at.

    Attributes:
        name: Its name: conda's, or that of the folder.
        kind: What made it.
        prefix: Its folder.
        python: Its interpreter, where that is known to lie elsewhere than in `prefix`/bin.
    """

    name: str
    kind: Kind
    prefix: str
    python: str = ""


@dataclass(frozen=True, slots=True)
class Environment:
    """One environment.

    Attributes:
        name: Its name: conda's, or that of the folder.
        kind: What made it.
        prefix: Its folder.
        python: Its interpreter; empty if it has none that can be executed.
        version: Of the interpreter; empty if that cannot be told.
        torch: Version of torch in it; empty if it has none.
    """

    name: str
    kind: Kind
    prefix: str
    python: str
    version: str = ""
    torch: str = ""

    @property
    def words(self) -> str:
        """As a person calls it: `conda env vision`, `venv .venv`."""
        return f"{self.kind.value} {self.name}"
