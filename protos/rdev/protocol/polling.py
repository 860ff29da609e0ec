"""Has gRPC read in the thread that waits, where the latency of single messages counts.

Since 1.81 gRPC reads in threads of its "event engine" in Python, too; these hand what came to the
thread that waits for completions, which hands it to the event loop. Without the engine, as in every
earlier release, the waiting thread reads by itself: a message passes two threads instead of four.
"""

from __future__ import annotations

import importlib.util
import os
import re
import sys
from pathlib import Path

_VARIABLE = "GRPC_EXPERIMENTS"
_WITHOUT_ENGINE = "-event_engine_client,-event_engine_listener"

# Releases that know these names; another would complain on stderr. Later ones are to be measured.
_KNOWN = re.compile(r"1\.8[1-5]\.")


def poll_directly() -> None:
    """Imports gRPC such that it reads without its event engine.

    For programs, not for libraries: it holds for the whole process. It does nothing where gRPC is
    imported already, where somebody has wishes of his own, and with a release that it does not
    know. Processes that we start are not affected.
    """
    if "grpc" in sys.modules or _VARIABLE in os.environ or not _KNOWN.match(release()):
        return
    os.environ[_VARIABLE] = _WITHOUT_ENGINE
    try:
        import grpc  # noqa: F401  # it reads the variable now, and never again
    finally:
        del os.environ[_VARIABLE]


def release() -> str:
    """The release of gRPC, without importing it; empty if it cannot be told."""
    found = importlib.util.find_spec("grpc")
    if found is None or found.origin is None:
        return ""
    try:
        content = Path(found.origin).with_name("_grpcio_metadata.py").read_text(encoding="utf-8")
    except OSError:
        return ""
    return "".join(content.split('"""')[1:2])
