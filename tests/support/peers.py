"""Foreign programs that tests drive: required in CI, elsewhere their absence skips the test."""

import os
import shutil

import pytest

# Debian keeps servers out of an ordinary user's PATH.
_PATH = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"])


def require_peer(program: str) -> str:
    """Path of a foreign program; without it the test fails in CI and is skipped elsewhere."""
    found = shutil.which(program, path=_PATH)
    if found is not None:
        return found
    reason = f"{program} is not installed"
    if os.environ.get("CI"):
        pytest.fail(f"{reason}, and CI must have it")
    pytest.skip(reason)
