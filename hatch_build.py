"""Build hook: generates the wire's Python modules from protos/rdev/v1/*.proto.

The generated files are build artifacts: git ignores them, wheels and editable installs carry them.
"""

from __future__ import annotations

import importlib.resources
import os
import shutil
import sysconfig
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


def generate(root: Path) -> None:
    """Writes `*_pb2.py`, `*_pb2_grpc.py` and their typed stubs beside the protos.

    Args:
        root: The checkout's root, which holds `protos/`.

    Raises:
        RuntimeError: protoc refused a file; its own message is on stderr.
    """
    from grpc_tools import protoc

    protos = root / "protos"
    well_known = importlib.resources.files("grpc_tools") / "_proto"
    outputs = [f"--{kind}_out={protos}" for kind in ("python", "grpc_python", "mypy", "mypy_grpc")]
    plugins = [
        f"--plugin={name}={_find(name)}" for name in ("protoc-gen-mypy", "protoc-gen-mypy_grpc")
    ]
    sources = sorted(str(path) for path in (protos / "rdev" / "v1").glob("*.proto"))
    if protoc.main(["protoc", f"-I{protos}", f"-I{well_known}", *plugins, *outputs, *sources]):
        raise RuntimeError("unable to generate the wire modules: protoc refused a file")


def _find(program: str) -> str:
    # An environment used without being activated does not have its scripts on PATH.
    path = os.pathsep.join([sysconfig.get_path("scripts"), os.environ.get("PATH", "")])
    found = shutil.which(program, path=path)
    if found is None:
        raise RuntimeError(f"unable to generate the wire modules: {program} is not installed")
    return found


class WireBuildHook(BuildHookInterface):  # type: ignore[type-arg]  # hatchling is untyped here
    """Runs the generation before any wheel, sdist or editable install."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:  # noqa: ARG002  # hatchling's signature
        """Generates; see `generate`."""
        generate(Path(self.root))
