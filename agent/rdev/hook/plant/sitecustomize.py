"""Starts the debug hook in a Python process of a job, then the user's own sitecustomize.

The agent puts this file's folder first on the job's PYTHONPATH. Any Python may meet it, so the
syntax is that of Python 2.7, and a Python that the hook does not support sees nothing at all.
"""

# ruff: noqa: BLE001, UP031, UP036 - it meets any Python and must never raise in one
import os
import sys

_plant = os.path.dirname(os.path.abspath(__file__))

# Whatever the job prints as sys.path is what it would print without us; children find the plant
# through PYTHONPATH again.
_elsewhere = [entry for entry in sys.path if not entry or os.path.abspath(entry) != _plant]
sys.path[:] = _elsewhere

# What `importlib` is made of is always there; `importlib.util` costs a millisecond.
if sys.version_info >= (3, 5):
    from _frozen_importlib import module_from_spec as _module_from_spec
    from _frozen_importlib_external import PathFinder as _PathFinder
    from _frozen_importlib_external import spec_from_file_location as _spec_from_file

if sys.version_info >= (3, 10):
    try:
        _hook = os.path.dirname(_plant)
        _reach = os.path.join(_hook, "reach.py")
        _spec = _spec_from_file("rdev.hook.reach", _reach)
        if _spec is not None and _spec.loader is not None:
            _module = _module_from_spec(_spec)
            sys.modules["rdev.hook.reach"] = _module
            _spec.loader.exec_module(_module)
            _module.start(os.path.dirname(_hook))
    except Exception as _error:
        # The user's program must run whatever is wrong with us; only whoever asks is told.
        if os.environ.get("RDEV_HOOK_DEBUG"):
            sys.stderr.write("rdev: the debug hook did not start: %r\n" % (_error,))

if sys.version_info >= (3, 5):
    _spec = _PathFinder.find_spec("sitecustomize", _elsewhere)
    if _spec is not None and _spec.loader is not None:
        _module = _module_from_spec(_spec)
        sys.modules["sitecustomize"] = _module
        _spec.loader.exec_module(_module)
