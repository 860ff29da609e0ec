"""Loading the debugger changes nothing of how the program is warned."""

from __future__ import annotations

import warnings

from rdev.hook.vendor import quiet


def warned_of(module):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with quiet():
            warnings.warn_explicit("old", DeprecationWarning, "file.py", 1, module=module)
        return len(caught)


def test_only_the_debuggers_own_warnings_are_left_out():
    assert warned_of("pydevd") == warned_of("_pydevd_bundle.x") == warned_of("debugpy.server") == 0
    assert warned_of("train") == 1


def test_a_block_of_the_programs_that_ends_meanwhile_leaves_its_filters_as_they_were():
    before = list(warnings.filters)
    block, loading = warnings.catch_warnings(), quiet()
    block.__enter__()
    warnings.simplefilter("error")
    loading.__enter__()
    block.__exit__(None, None, None)
    loading.__exit__(None, None, None)
    assert warnings.filters == before
