"""Puts the hook into a running process: PEP 768 from 3.14 on, else ptrace; the process runs on."""

from __future__ import annotations

import asyncio
import errno
import json
import logging
import os
import subprocess
import sys

import rdev.hook
from rdev.agent.debug.preflight import REMOTE_EXEC, Found, libc_of, not_permitted
from rdev.agent.debug.symbols import addresses
from rdev.protocol.errors import DebuggerUnavailable, NotFound, TimedOut

_log = logging.getLogger(__name__)

# Starting a Python takes 20 ms and the calls less; the tracer's own bounds sum up to 66 s, in which
# it brings back a thread that is held up.
ENTER_SECONDS = 90.0

_TRACER = os.path.join(os.path.dirname(os.path.abspath(__file__)), "tracer.py")
_ENTER = os.path.join(os.path.dirname(os.path.abspath(rdev.hook.__file__)), "enter.py")

_PYTHON = ("Py_AddPendingCall", "PyRun_SimpleString")
_MEMORY = ("mmap", "munmap")

# What the process executes. It must raise nothing, whatever has become of names there, and leave
# none behind. `threading` takes the thread that imports it first for the main one.
_LINE = """\
try:
 try:
  __import__("threading"); __import__("_thread").start_new_thread(__import__("builtins").exec, ({source!r}, {{}}))
 except KeyboardInterrupt:
  __import__("_thread").interrupt_main()
except:
 pass
"""  # noqa: E501 - it is the process's, and one statement

_SOURCE = """\
try:
 with open({enter!r}, encoding="utf-8") as file:
  code = compile(file.read(), {enter!r}, "exec")
 names = {{"__file__": {enter!r}, "__name__": "rdev.hook.enter"}}
 exec(code, names)
 names["enter"]({socket!r})
except Exception:
 pass
"""


def line(socket: str) -> str:
    """What the process is to execute, on its main thread, so that its hook dials `socket`."""
    return _LINE.format(source=_SOURCE.format(enter=_ENTER, socket=socket))


async def enter(found: Found, socket: str) -> None:
    """Asks a process to arm its hook; it does so when its main thread next executes Python.

    Args:
        found: The process, of which nothing is known that speaks against it.
        socket: Whom the hook is to dial, in a folder of its own.

    Raises:
        DebuggerUnavailable: It cannot be asked; it runs on as before.
        NotFound: It has ended.
        PermissionRefused: The kernel does not allow it.
        TimedOut: Whoever asks did not come back.
    """
    if found.interpreter is not None and found.interpreter.version >= REMOTE_EXEC:
        await _by_remote_exec(found, socket)
        return
    places = await asyncio.to_thread(_places, found)
    order = {
        "pid": found.pid,
        "ticks": found.ticks,
        "vector": found.vector.hex(),
        "source": line(socket),
        "places": places,
    }
    code, output, complaint = await _run(
        (sys.executable, "-I", _TRACER), json.dumps(order).encode() + b"\n", found.pid
    )
    if code:
        raise DebuggerUnavailable(_action(found), f"the tracer failed: {_last(complaint)}")
    _judge(found, json.loads(output))


def _judge(found: Found, answer: dict[str, object]) -> None:
    cause, number = answer.get("error"), answer.get("errno")
    if number in (errno.EPERM, errno.EACCES):
        raise not_permitted(found.pid)
    if number == errno.ESRCH:
        raise NotFound(
            _action(found), "it has ended", hint="`ps -ef` on the host lists those that run"
        )
    if cause:
        raise DebuggerUnavailable(
            _action(found), str(cause), hint="it was left as it is; try again"
        )
    _log.info("process %d: its main thread was stopped for %s s", found.pid, answer.get("stopped"))


def _places(found: Found) -> dict[str, int]:
    """Where in the process the functions are that are called in it."""
    assert found.interpreter is not None
    of_python, of_libc = found.interpreter.file, libc_of(found.files)
    places: dict[str, int] = {}
    try:
        places |= addresses(of_python.path, of_python.start, _PYTHON)
        if of_libc is not None:
            places |= addresses(of_libc.path, of_libc.start, _MEMORY)
        add_pending_call, run_simple_string = (places[name] for name in _PYTHON)
        mmap, munmap = (places[name] for name in _MEMORY)
    except (OSError, ValueError, KeyError) as error:
        cause = f"its Python does not say where its functions are: {error}"
        raise DebuggerUnavailable(_action(found), cause) from error
    return {
        "mmap": mmap,
        "munmap": munmap,
        "add_pending_call": add_pending_call,
        "run_simple_string": run_simple_string,
    }


# --- PEP 768


def remote_exec(found: Found, script: str) -> tuple[str, ...]:
    """The command that has a process run a script, by its own program: the versions must be one."""
    return (found.program, "-I", "-S", "-c", _REMOTE_EXEC, str(found.pid), script)


_REMOTE_EXEC = "import sys; sys.remote_exec(int(sys.argv[1]), sys.argv[2])"


async def _by_remote_exec(found: Found, socket: str) -> None:
    script = os.path.join(os.path.dirname(socket), "enter.py")
    await asyncio.to_thread(_write, script, line(socket))
    code, _, complaint = await _run(remote_exec(found, script), b"", found.pid)
    if not code:
        return
    cause = _last(complaint)
    if "PermissionError" in cause:
        raise not_permitted(found.pid)
    raise DebuggerUnavailable(_action(found), f"its Python takes no script: {cause}")


def _write(path: str, text: str) -> None:
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)


async def _run(words: tuple[str, ...], order: bytes, pid: int) -> tuple[int, bytes, bytes]:
    """Executes a command; one that nobody waits for any more goes on to its own end.

    It is never killed: that would leave the traced thread astray in the midst of a call.
    """

    def run() -> subprocess.CompletedProcess[bytes]:
        # A session of its own: Ctrl-C at the agent's terminal is the agent's.
        return subprocess.run(
            words, input=order, capture_output=True, check=False, start_new_session=True
        )

    try:
        async with asyncio.timeout(ENTER_SECONDS):
            done = await asyncio.to_thread(run)
    except TimeoutError as error:
        raise TimedOut(f"debug process {pid}", "whoever was to ask it did not come back") from error
    except OSError as error:
        cause = f"{words[0]} cannot be executed: {error.strerror}"
        raise DebuggerUnavailable(f"debug process {pid}", cause) from error
    return done.returncode, done.stdout, done.stderr


def _last(complaint: bytes) -> str:
    lines = complaint.decode(errors="replace").strip().splitlines()
    return lines[-1] if lines else "it said nothing"


def _action(found: Found) -> str:
    return f"debug process {found.pid}"
