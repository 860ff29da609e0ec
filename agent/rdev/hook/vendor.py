"""Loads debugpy into the job from a directory of the agent's, and leaves no trace of the loading.

Only the package itself is taken from that directory: nothing is added to `sys.path`, so the job
cannot pick up anything else by accident. debugpy puts its vendored pydevd on the path while it
imports it, and takes it away again (`debugpy/_vendored/__init__.py`).
"""

from __future__ import annotations

import contextlib
import os
import re
import sys
import warnings
from importlib.util import module_from_spec, spec_from_file_location

TYPE_CHECKING = False  # not from `typing`, see rdev.hook
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

_DEBUGGER = "debugpy|_?pydev"


class VendorError(RuntimeError):
    """debugpy cannot be loaded; the message is for a person."""


def load(directory: str) -> Any:  # noqa: ANN401 - pydevd has no type information
    """The module `pydevd` of the debugpy in `directory`, loaded at the first call.

    Raises:
        VendorError: There is none, it does not load on this Python, or the program has loaded
            another pydevd of its own.
    """
    package = os.path.join(directory, "debugpy")
    loaded = sys.modules.get("pydevd")
    if loaded is not None:
        if not _lies_in(loaded, package):
            raise VendorError(f"the job has loaded a debugger of its own: {loaded.__file__}")
        return loaded
    if not os.path.isfile(os.path.join(package, "__init__.py")):
        raise VendorError(f"there is no debugpy in {directory}")
    hook, environment = sys.breakpointhook, dict(os.environ)
    # Otherwise pydevd writes four lines about frozen modules into the job's stderr.
    os.environ.setdefault("PYDEVD_DISABLE_FILE_VALIDATION", "1")
    try:
        with quiet():
            _import(package)
    except Exception as error:
        raise VendorError(f"debugpy does not load: {type(error).__name__}: {error}") from error
    finally:
        # pydevd takes over `breakpoint()` and sets PYDEVD_* for children, which are not ours.
        sys.breakpointhook = hook
        for name in os.environ.keys() - environment.keys():
            if name.startswith("PYDEVD_"):
                del os.environ[name]
    _silence()
    return sys.modules["pydevd"]


def _silence() -> None:
    """Keeps pydevd's own log out of the job's stderr, where it would stand in its output."""
    if os.environ.get("RDEV_HOOK_DEBUG"):
        return
    log = sys.modules["_pydev_bundle.pydev_log"]
    # Before anything was logged the stream is one that drops all; so it stays.
    log._LoggingGlobals._debug_stream_initialized = True  # noqa: SLF001 - a contract test guards it


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Within it debugpy's modules warn of nothing, and every other one as before.

    Not `catch_warnings`: that puts back all filters of the moment it began, and those of a block
    of the same kind in which the program's own thread was then would stay for good.
    """
    warnings.filterwarnings("ignore", module=_DEBUGGER)
    added = ("ignore", None, Warning, re.compile(_DEBUGGER), 0)
    try:
        yield
    finally:
        # Where the program's thread is in such a block now, or has left one, it is not there.
        with contextlib.suppress(ValueError):
            warnings.filters.remove(added)  # type: ignore[attr-defined]  # it is a list


def _lies_in(module: Any, folder: str) -> bool:  # noqa: ANN401 - any module
    path = os.path.realpath(getattr(module, "__file__", None) or "")
    return path.startswith(os.path.realpath(folder) + os.sep)


def _import(package: str) -> None:
    if "debugpy" not in sys.modules:
        spec = spec_from_file_location(
            "debugpy",
            os.path.join(package, "__init__.py"),
            submodule_search_locations=[package],
        )
        if spec is None or spec.loader is None:
            raise VendorError(f"there is no debugpy in {package}")
        module = module_from_spec(spec)
        sys.modules["debugpy"] = module
        try:
            spec.loader.exec_module(module)
        except BaseException:
            del sys.modules["debugpy"]
            raise
    # Its import is what prepares the vendored pydevd for the Debug Adapter Protocol.
    __import__("debugpy.server")
