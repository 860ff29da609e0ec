"""GPUs of a test's own: a stand-in for the driver's library, which the real pynvml loads."""

from __future__ import annotations

import functools
import os
import subprocess
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from tests.support.command import Rdev

LIBRARY = "libnvidia-ml.so.1"
STATE_VARIABLE = "STANDIN_GPUS"


@functools.cache
def library() -> Path:
    """The stand-in, compiled once; a machine's own library is not touched."""
    folder = Path(tempfile.mkdtemp(prefix="rdev-nvml-"))
    source = Path(__file__).with_name("nvml") / "nvml.c"
    target = folder / LIBRARY
    command = ["cc", "-shared", "-fPIC", "-Wall", "-Werror", f"-Wl,-soname,{LIBRARY}", "-o"]
    subprocess.run([*command, target, source], check=True)
    return target


@dataclass
class Machine:
    """The GPUs that the stand-in shows."""

    path: Path
    count: int
    holders: list[tuple[int, int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.hold()

    def uuid(self, index: int) -> str:
        return f"GPU-{index:08x}-1111-2222-3333-444444444444"

    def hold(self, *holders: tuple[int, int]) -> None:
        """Processes that compute: (index, pid) each; nobody else does."""
        lines = [f"gpu {self.uuid(index)} Test GPU {index}" for index in range(self.count)]
        lines += [f"process {index} {pid} {1 << 30}" for index, pid in holders]
        scratch = self.path.with_suffix(".new")
        scratch.write_text("".join(f"{line}\n" for line in lines))
        scratch.rename(self.path)

    @property
    def environment(self) -> dict[str, str]:
        return {STATE_VARIABLE: str(self.path), "LD_LIBRARY_PATH": str(library().parent)}


@dataclass
class RdevWithGpus(Rdev):
    """A person whose GPU machine has GPUs."""

    machine: Machine = field(kw_only=True)

    @property
    def environment(self) -> dict[str, str]:
        clean = {k: v for k, v in super().environment.items() if k != "CUDA_VISIBLE_DEVICES"}
        return clean | self.machine.environment


def login(**more: str) -> dict[str, str]:
    """This process's environment as a login on a machine without restrictions."""
    return {k: v for k, v in os.environ.items() if k != "CUDA_VISIBLE_DEVICES"} | more
