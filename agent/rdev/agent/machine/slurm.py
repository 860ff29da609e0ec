"""Whether this machine is the login node of a Slurm cluster: jobs belong on its other nodes."""

from __future__ import annotations

import asyncio
import glob
import logging
import os
import shutil
import subprocess
from collections.abc import Mapping

from rdev.agent.jobs.gpus import GpusUnknownError, Nvml
from rdev.agent.threads import in_daemon

_log = logging.getLogger(__name__)

# A driver that is not there says so at once; one that hangs is there.
_PATIENCE = 10.0

# Where the kernel shows GPUs of NVIDIA's, and AMD's that compute.
_DEVICES = ("/dev/nvidia[0-9]*", "/dev/kfd")


async def is_login_node(environment: Mapping[str, str]) -> bool:
    """True if the login can submit Slurm jobs here and the machine has no GPU.

    Args:
        environment: The login's.
    """
    path = environment.get("PATH", os.defpath)
    # Within an allocation of its own the login is where it wants to be.
    if "SLURM_JOB_ID" in environment or shutil.which("sbatch", path=path) is None:
        return False
    try:
        async with asyncio.timeout(_PATIENCE):
            return not await in_daemon(lambda: _has_gpu(path))
    except TimeoutError:
        _log.warning("the GPU driver does not answer")
        return False


def _has_gpu(path: str) -> bool:
    if any(glob.glob(pattern) for pattern in _DEVICES):
        return True
    nvml = Nvml()
    try:
        return bool(nvml.look())
    except GpusUnknownError:
        return _is_listed(path)
    finally:
        nvml.close()


def _is_listed(path: str) -> bool:
    """What `nvidia-smi` says, where the agent cannot ask the library itself."""
    program = shutil.which("nvidia-smi", path=path)
    if program is None:
        return False
    try:
        listed = subprocess.run(
            [program, "-L"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_PATIENCE,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return listed.returncode == 0 and b"GPU 0" in listed.stdout
