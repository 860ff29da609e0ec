"""Fuses again the pairs of instructions that CPython 3.12 takes apart where it monitors.

When 3.12 makes a code object it fuses neighbours such as two LOAD_FAST into one superinstruction
(`_PyCode_Quicken`). Whenever it changes what is monitored in a code object it takes all of them
apart (`_Py_Instrument`), and nothing fuses them again, so whatever ran while a debugger was there
stays some percent slower. Before 3.12 nothing is monitored, and from 3.13 on the compiler itself
writes the fused instructions.
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False  # not from `typing`, see rdev.hook
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from types import CodeType
    from typing import Any

# What `_PyCode_Quicken` of 3.12 fuses.
PAIRS = (
    ("LOAD_CONST", "LOAD_FAST"),
    ("LOAD_FAST", "LOAD_CONST"),
    ("LOAD_FAST", "LOAD_FAST"),
    ("STORE_FAST", "LOAD_FAST"),
    ("STORE_FAST", "STORE_FAST"),
)

_UNIT = 2  # bytes of an instruction: its code and its argument


def fuse(codes: Iterable[CodeType], tool: int) -> None:
    """Fuses what can be fused in code objects that a tool of monitoring has left.

    A running frame may be anywhere in them: the second of two fused instructions stays as it is,
    so it makes no difference whether a frame comes to it or skips it.

    Args:
        codes: The code objects.
        tool: The tool's id, still taken, with all its events turned off.
    """
    if sys.implementation.name != "cpython" or sys.version_info[:2] != (3, 12):
        return
    import ctypes  # 5 ms that only a process with a debugger pays
    import dis

    numbers: dict[str, int] = getattr(dis, "_all_opmap")  # noqa: B009 - only 3.12 has it
    table = {
        (numbers[first], numbers[second]): numbers[f"{first}__{second}"] for first, second in PAIRS
    }
    for code in codes:
        _take_apart(code, tool)
        # The instructions are the variable part of the object, at its end.
        address = id(code) + type(code).__basicsize__
        running: bytes = getattr(code, "_co_code_adaptive")  # noqa: B009 - not in every version
        if ctypes.string_at(address, len(running)) != running:
            continue  # not the layout that this was written for, or a thread runs it just now
        for place, fused in _found(code.co_code, running, table):
            ctypes.c_ubyte.from_address(address + place).value = fused


def _take_apart(code: CodeType, tool: int) -> None:
    # The interpreter does it at the next call of a code object whose events were changed, and at
    # once when they change: left to itself, it would undo what is fused here.
    monitoring: Any = getattr(sys, "monitoring")  # noqa: B009 - not there before 3.12
    monitoring.set_local_events(tool, code, monitoring.events.STOP_ITERATION)
    monitoring.set_local_events(tool, code, monitoring.events.NO_EVENTS)


def _found(
    plain: bytes, running: bytes, table: dict[tuple[int, int], int]
) -> Iterator[tuple[int, int]]:
    # An instruction that somebody else monitors is in neither set, and stays alone.
    lone = {first for first, _ in table}
    seconds = {second for _, second in table} | set(table.values())
    for place in range(0, len(plain) - _UNIT, _UNIT):
        after = place + _UNIT
        fused = table.get((plain[place], plain[after]))
        if fused is not None and running[place] in lone and running[after] in seconds:
            yield place, fused
