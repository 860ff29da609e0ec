"""Makes a process that rdev did not start run a line of Python, by ptrace; a program of its own.

Run by path as `python -I tracer.py`. Stdin is its order, one JSON object {pid, ticks, vector,
source, places}; it writes one JSON object to stdout, {"stopped": SECONDS} or {"error": CAUSE,
"errno": N}.

    seized --interrupted--> stopped --calls mmap, then Py_AddPendingCall--> restored --> let go
                                '--a call that crashes or takes too long--^

Only the main thread is stopped, for as long as two short calls of C take; all others run on. What
is asked of Python waits in its own queue until the main thread next looks, between two bytecodes
and with the interpreter's lock: whatever that thread was in the middle of, a lock of malloc's or
the interpreter's own, is never entered a second time. The thread's registers, vectors included,
and its signal mask are put back whatever happens, and a system call that it was in is begun again
by the kernel, as after any signal that has no handler.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

# ptrace(2) and <linux/ptrace.h>.
_CONT, _DETACH = 7, 17
_GETREGSET, _SETREGSET = 0x4204, 0x4205
_SEIZE, _INTERRUPT = 0x4206, 0x4207
_GETSIGMASK, _SETSIGMASK = 0x420A, 0x420B
_WALL = 0x40000000

# <linux/elf.h>: the general registers, and all that `xsave` saves.
_GENERAL, _EXTENDED = 1, 0x202
_EXTENDED_BYTES = 16 << 10  # AMX alone has 8 KiB

# <sys/user.h>: places of 8 bytes in `user_regs_struct`.
_REGISTERS = 27
_R9, _R8, _RAX, _RDX, _RSI, _RDI = 8, 9, 10, 12, 13, 14
_RCX, _ORIG_RAX, _RIP, _RSP = 11, 15, 16, 19

# What lies below the stack pointer is the interrupted function's, see the System V ABI.
_RED_ZONE = 128

# A thread stops within microseconds, unless it is in an uninterruptible sleep.
STOP_SECONDS = 2.0

# Both calls take microseconds; each has to wait at most for another thread to leave a lock.
CALL_SECONDS = 2.0

# Who waits for a lock can be stopped at once; a thread that was not put right would crash.
RESCUE_SECONDS = 60.0

_PAGE = 4096
_MAP_FAILED = (1 << 64) - _PAGE


class TraceError(Exception):
    """The process was left as it was found; the message says why."""


class _Vector(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


@dataclass(frozen=True, slots=True)
class Image:
    """The program that is meant: it may have made way for another since it was looked at.

    Attributes:
        pid: Its process.
        ticks: When that started, in clock ticks since boot.
        vector: Its auxiliary vector in hex, see getauxval(3): every exec makes another one.
    """

    pid: int
    ticks: int
    vector: str


@dataclass(frozen=True, slots=True)
class Places:
    """Addresses of functions in the process."""

    mmap: int
    munmap: int
    add_pending_call: int
    run_simple_string: int


_libc = ctypes.CDLL(None, use_errno=True)
_libc.ptrace.restype = ctypes.c_long
_libc.ptrace.argtypes = (ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p)


def _ptrace(request: int, pid: int, address: int = 0, data: Any = 0) -> None:  # noqa: ANN401 - a number or a pointer
    if _libc.ptrace(request, pid, address, data) == -1:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def run_in(image: Image, source: str, places: Places) -> float:
    """Has the main thread of a process run `source` once it executes Python again.

    Returns:
        For how many seconds that thread was stopped.

    Raises:
        TraceError: It could not be asked to; it goes on as if nobody had tried.
        OSError: It may not be traced, or has ended.
    """
    pid, content = image.pid, source.encode() + b"\0"
    if len(content) > _PAGE:
        raise TraceError("the source is longer than a page")
    began = time.monotonic()
    with _stopped(pid):
        if not _is_still(image):
            raise TraceError("it has become another program meanwhile")
        with _set_aside(pid) as saved:
            page = _call(pid, saved, places.mmap, (0, _PAGE, 3, 0x22, (1 << 64) - 1, 0))
            if page >= _MAP_FAILED:
                raise TraceError("it has no memory left")
            _write(pid, page, content)
            outcome = _call(pid, saved, places.add_pending_call, (places.run_simple_string, page))
            is_full = bool(outcome & 0xFFFFFFFF)
            if is_full:
                _call(pid, saved, places.munmap, (page, _PAGE))
        if is_full:
            raise TraceError("its queue of pending calls is full")
    return time.monotonic() - began


def _is_still(image: Image) -> bool:
    with open(f"/proc/{image.pid}/stat", "rb") as file:
        ticks = int(file.read().rpartition(b")")[2].split()[19])
    with open(f"/proc/{image.pid}/auxv", "rb") as file:
        return (ticks, file.read().hex()) == (image.ticks, image.vector)


@contextmanager
def _stopped(pid: int) -> Iterator[None]:
    _ptrace(_SEIZE, pid)
    # From here on the kernel lets go of it by itself if this process ends.
    _ptrace(_INTERRUPT, pid)
    until = time.monotonic() + STOP_SECONDS
    while (stop := _next_stop(pid, until)) is not None and not stop.is_event:
        _ptrace(_CONT, pid, 0, stop.signal)  # a signal of its own, which it is to have
    if stop is None:
        raise TraceError("its main thread does not stop: it is in an uninterruptible sleep")
    try:
        if stop.signal != signal.SIGTRAP:
            raise TraceError("it was stopped by a signal")
        yield
    finally:
        _ptrace(_DETACH, pid)


@dataclass(frozen=True, slots=True)
class _Stop:
    """Why a traced thread stands.

    Attributes:
        signal: The signal that is about to be delivered, or that has stopped the process.
        is_event: It was asked to, or the whole process was stopped; else a signal is delivered.
    """

    signal: int
    is_event: bool


def _next_stop(pid: int, until: float) -> _Stop | None:
    """The next stop of a thread that runs; None if it does not come in time."""
    while time.monotonic() < until:
        found, status = os.waitpid(pid, os.WNOHANG | _WALL)
        if not found:
            time.sleep(0.0002)
        elif os.WIFSTOPPED(status):
            return _Stop(os.WSTOPSIG(status), bool(status >> 16))
        else:
            raise ProcessLookupError(errno.ESRCH, "it ended meanwhile")
    return None


@contextmanager
def _set_aside(pid: int) -> Iterator[list[int]]:
    """Keeps the thread's registers and signals for the block's end; gives the registers."""
    general = _registers(pid, _GENERAL, _REGISTERS * 8)
    extended = _registers(pid, _EXTENDED, _EXTENDED_BYTES)
    mask = ctypes.c_uint64()
    _ptrace(_GETSIGMASK, pid, 8, ctypes.addressof(mask))
    # Signals wait for the end of our calls. A fault has to come through: it is how a call ends.
    blocked = ctypes.c_uint64(~(1 << (signal.SIGSEGV - 1)) & (1 << 64) - 1)
    _ptrace(_SETSIGMASK, pid, 8, ctypes.addressof(blocked))
    try:
        yield [int.from_bytes(general[i : i + 8], "little") for i in range(0, len(general), 8)]
    finally:
        _set_registers(pid, _EXTENDED, extended)
        _set_registers(pid, _GENERAL, general)
        _ptrace(_SETSIGMASK, pid, 8, ctypes.addressof(mask))


def _registers(pid: int, kind: int, size: int) -> bytes:
    buffer = ctypes.create_string_buffer(size)
    vector = _Vector(ctypes.addressof(buffer), size)
    _ptrace(_GETREGSET, pid, kind, ctypes.addressof(vector))
    return buffer.raw[: vector.length]


def _set_registers(pid: int, kind: int, content: bytes) -> None:
    buffer = ctypes.create_string_buffer(content, len(content))
    vector = _Vector(ctypes.addressof(buffer), len(content))
    _ptrace(_SETREGSET, pid, kind, ctypes.addressof(vector))


def _call(pid: int, saved: list[int], function: int, arguments: tuple[int, ...]) -> int:
    """Calls a function of C in the stopped thread; returns what it returned."""
    registers = list(saved)
    for place, value in zip((_RDI, _RSI, _RDX, _RCX, _R8, _R9), arguments, strict=False):
        registers[place] = value
    stack = (saved[_RSP] - _RED_ZONE & ~15) - 8
    # It returns to address 0, where nothing is: the fault says that it has.
    _write(pid, stack, bytes(8))
    registers[_RSP], registers[_RIP], registers[_RAX] = stack, function, 0
    registers[_ORIG_RAX] = (1 << 64) - 1  # no system call to be begun again meanwhile
    _set_registers(pid, _GENERAL, b"".join(value.to_bytes(8, "little") for value in registers))
    has_returned = _went_on_to_a_fault(pid, CALL_SECONDS)
    if not has_returned:
        _ptrace(_INTERRUPT, pid)
        if _next_stop(pid, time.monotonic() + RESCUE_SECONDS) is None:
            raise TraceError("the call does not return, nor does it let itself be stopped")
    after = _registers(pid, _GENERAL, _REGISTERS * 8)
    if int.from_bytes(after[_RIP * 8 : _RIP * 8 + 8], "little"):
        cause = "failed" if has_returned else "does not return: another thread keeps a lock"
        raise TraceError(f"the call {cause}")
    return int.from_bytes(after[_RAX * 8 : _RAX * 8 + 8], "little")


def _went_on_to_a_fault(pid: int, seconds: float) -> bool:
    """Lets the thread run until it faults; False if it has not in time.

    Whatever else stops it, such as a SIGSTOP to the process, has to wait: half a call may keep a
    lock for ever.
    """
    until = time.monotonic() + seconds
    passed_on = 0
    while True:
        _ptrace(_CONT, pid, 0, passed_on)
        stop = _next_stop(pid, until)
        if stop is None:
            return False
        if not stop.is_event and stop.signal == signal.SIGSEGV:
            return True
        passed_on = 0 if stop.is_event else stop.signal


def _write(pid: int, address: int, content: bytes) -> None:
    with open(f"/proc/{pid}/mem", "r+b", buffering=0) as memory:
        memory.seek(address)
        memory.write(content)


def main() -> None:
    """Executes the order."""
    order = json.loads(sys.stdin.readline())
    # Whoever ends the agent does not end this in the middle: a thread would be left astray.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE):
        signal.signal(number, signal.SIG_IGN)
    answer: dict[str, object] = {}
    try:
        image = Image(int(order["pid"]), int(order["ticks"]), str(order["vector"]))
        places = Places(**order["places"])
        answer["stopped"] = run_in(image, str(order["source"]), places)
    except TraceError as error:
        answer = {"error": str(error)}
    except OSError as error:
        answer = {"error": error.strerror or str(error), "errno": error.errno}
    sys.stdout.write(json.dumps(answer) + "\n")


if __name__ == "__main__":
    main()
