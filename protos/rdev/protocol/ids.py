"""Identifiers: how they are made and what they may look like on the wire."""

from __future__ import annotations

import re
import secrets

from rdev.protocol.errors import InvalidRequest

# Names are typed by people and become folder names; ids are made and only ever compared.
JOB_NAME = re.compile(r"[a-z][a-z0-9-]{0,62}")
JOB_ID = re.compile(r"[0-9a-f]{12}")
WORKSPACE_ID = re.compile(r"[0-9a-z][0-9a-z_-]{0,63}")
REQUEST_ID = re.compile(r"[0-9a-zA-Z_-]{1,64}")
WRITER_ID = re.compile(r"[0-9a-f]{32}")


def new_job_id() -> str:
    """A fresh job id: 12 lower-case hexadecimal digits."""
    return secrets.token_hex(6)


def new_request_id() -> str:
    """A fresh request id, which makes a creation idempotent."""
    return secrets.token_hex(16)


def require(pattern: re.Pattern[str], value: str, what: str) -> str:
    """Returns `value` if all of it matches.

    Raises:
        InvalidRequest: It does not, so it may not become part of a path.
    """
    if pattern.fullmatch(value) is None:
        raise InvalidRequest(f"accept the {what} {value!r}", f"it does not match {pattern.pattern}")
    return value


def job_name_from(word: str) -> str:
    """A job name made from a script's or program's name: `Train_GPT.py` becomes `train-gpt`."""
    stem = word.rsplit("/", 1)[-1].rsplit("\\", 1)[-1]
    stem = stem.removesuffix(".py")
    name = re.sub(r"[^a-z0-9]+", "-", stem.lower()).strip("-")
    return name[:40] if JOB_NAME.fullmatch(name[:40]) else f"job-{name[:36]}".rstrip("-")
