"""Which debugpy the agent has, if any."""

from __future__ import annotations

import os
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec

from rdev.protocol.errors import FeatureMissing

# The remedies of `rdev.hook.patch` lean on internals that were read in these releases.
OLDEST = (1, 8, 22)
BELOW = (1, 9)

_ACTION = "start a debugger"


def debugpy_folder() -> str:
    """The folder that holds the agent's own package debugpy.

    Raises:
        FeatureMissing: There is none, or it is of another release than rdev was made for.
    """
    spec = find_spec("debugpy")
    if spec is None or spec.origin is None:
        raise FeatureMissing(_ACTION, "debugpy is not installed beside the agent")
    try:
        found = version("debugpy")
    except PackageNotFoundError:
        found = "0"
    numbers = tuple(int(part) for part in found.split(".")[:3] if part.isdigit())
    if not OLDEST <= numbers < BELOW:
        needed = ".".join(map(str, OLDEST)), ".".join(map(str, BELOW))
        raise FeatureMissing(
            _ACTION, f"debugpy {found} is installed; rdev needs >={needed[0]},<{needed[1]}"
        )
    return os.path.dirname(os.path.dirname(os.path.abspath(spec.origin)))
