"""What speaks against a debugger in a process that rdev did not start, and how it is said."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
import threading
from dataclasses import replace

import pytest

from rdev.agent.debug import entering
from rdev.agent.debug.preflight import (
    Found,
    Interpreter,
    Rights,
    interpreter_of,
    look,
    refusal,
    rights,
)
from rdev.agent.debug.symbols import Mapped, addresses, mapped
from rdev.protocol.errors import DebuggerUnavailable, NotFound, PermissionRefused

PYTHON = Mapped("/usr/bin/python3.12", 0x400000)
FOUND = Found(
    77,
    1,
    1000,
    program=PYTHON.path,
    files=(PYTHON,),
    interpreter=Interpreter((3, 12), PYTHON),
)
RIGHTS = Rights(1000)


def of(version: tuple[int, ...], **changes: object) -> Found:
    interpreter = Interpreter(version, PYTHON)
    return replace(FOUND, interpreter=replace(interpreter, **changes))


def test_nothing_speaks_against_an_ordinary_process():
    assert refusal(FOUND, RIGHTS) is None


@pytest.mark.parametrize(
    ("found", "rights", "kind", "cause"),
    [
        (replace(FOUND, uid=0), RIGHTS, PermissionRefused, "it belongs to user 0"),
        (replace(FOUND, uid=1), Rights(0, True), PermissionRefused, "it belongs to user 1"),
        (replace(FOUND, interpreter=None), RIGHTS, DebuggerUnavailable, "it is no Python"),
        (of((3, 10)), RIGHTS, DebuggerUnavailable, "it runs Python 3.10"),
        (of((3, 15)), RIGHTS, DebuggerUnavailable, "it runs Python 3.15"),
        (of(()), RIGHTS, DebuggerUnavailable, "nothing tells which Python"),
        (of((3, 13), is_free_threaded=True), RIGHTS, DebuggerUnavailable, "without an interpreter"),
        (
            of((3, 13), file=replace(PYTHON, is_deleted=True)),
            RIGHTS,
            DebuggerUnavailable,
            "its python3.12 was replaced on disk",
        ),
        (
            replace(FOUND, files=(PYTHON, Mapped("/lib/libc.so.6", 1, is_deleted=True))),
            RIGHTS,
            DebuggerUnavailable,
            "its libc.so.6 was replaced on disk",
        ),
        (FOUND, replace(RIGHTS, pid=FOUND.pid), DebuggerUnavailable, "it is rdev's own agent"),
        (replace(FOUND, is_elsewhere=True), RIGHTS, DebuggerUnavailable, "it runs in a container"),
        (replace(FOUND, tracer=5), RIGHTS, DebuggerUnavailable, "process 5 traces it already"),
        (replace(FOUND, state="D"), RIGHTS, DebuggerUnavailable, "it is in an uninterruptible"),
        (replace(FOUND, state="T"), RIGHTS, DebuggerUnavailable, "it was stopped by a signal"),
        (replace(FOUND, ignored=1 << 10), RIGHTS, DebuggerUnavailable, "it ignores SIGSEGV"),
        (FOUND, replace(RIGHTS, machine="aarch64"), DebuggerUnavailable, "on aarch64"),
        (FOUND, replace(RIGHTS, scope=1), PermissionRefused, "ptrace_scope is 1"),
        (FOUND, replace(RIGHTS, scope=3), PermissionRefused, "ptrace_scope is 3"),
    ],
)
def test_what_speaks_against_it_is_one_line_with_a_remedy(found, rights, kind, cause):
    error = refusal(found, rights)
    assert type(error) is kind
    assert error.message.startswith("unable to debug process 77: ")
    assert cause in error.message
    assert "\n" not in error.message
    assert error.hint


def test_who_may_trace_any_process_does_not_mind_what_others_may():
    assert refusal(FOUND, replace(RIGHTS, scope=1, may_trace_any=True)) is None


def test_python_3_14_takes_a_script_by_itself_on_any_machine():
    found = replace(of((3, 14)), program="/opt/bin/python3.14")
    assert refusal(found, replace(RIGHTS, machine="aarch64")) is None
    words = entering.remote_exec(found, "/x/enter.py")
    assert words[0] == "/opt/bin/python3.14"  # only its own version may
    assert words[-2:] == ("77", "/x/enter.py")
    compile(words[words.index("-c") + 1], "words", "exec")


@pytest.mark.parametrize(
    ("files", "program", "version", "file"),
    [
        (("/usr/bin/python3.11",), "/usr/bin/python3.11", (3, 11), "/usr/bin/python3.11"),
        (
            ("/o/bin/python3.12", "/o/lib/libpython3.12.so.1.0"),
            "/o/bin/python3.12",
            (3, 12),
            "/o/lib/libpython3.12.so.1.0",
        ),
        (
            ("/o/app", "/o/x.cpython-311-x86_64-linux-gnu.so"),
            "/o/app",
            (3, 11),
            "/o/app",
        ),
        (("/o/bin/python",), "/o/bin/python", (), "/o/bin/python"),
    ],
)
def test_the_python_of_a_process_is_told_from_what_it_has_mapped(files, program, version, file):
    found = interpreter_of(tuple(Mapped(path, 1) for path in files), program)
    assert found == Interpreter(version, Mapped(file, 1))


def test_a_free_threaded_python_is_told_apart():
    found = interpreter_of((Mapped("/b/python3.13t", 1),), "/b/python3.13t")
    assert found is not None
    assert found.is_free_threaded


def test_a_process_without_python_has_none():
    assert interpreter_of((Mapped("/bin/sleep", 1),), "/bin/sleep") is None


def test_a_memory_map_names_each_file_once_and_what_was_replaced():
    maps = (
        "400000-401000 r--p 00000000 fe:00 1   /usr/bin/python3.11\n"
        "401000-402000 r-xp 00001000 fe:00 1   /usr/bin/python3.11\n"
        "7f0000-7f1000 r--p 00000000 fe:00 2   /a b/libc.so.6 (deleted)\n"
        "7f2000-7f3000 rw-p 00000000 00:00 0   [stack]\n"
        "7f4000-7f5000 rw-p 00000000 00:00 0\n"
    )
    assert mapped(maps) == [
        Mapped("/usr/bin/python3.11", 0x400000),
        Mapped("/a b/libc.so.6", 0x7F0000, is_deleted=True),
    ]


def test_functions_are_where_the_dynamic_linker_has_put_them():
    found = look(os.getpid())
    assert found.interpreter is not None
    names = ("Py_AddPendingCall", "PyRun_SimpleString", "no_such_function")
    places = addresses(found.interpreter.file.path, found.interpreter.file.start, names)
    expected = {
        name: ctypes.cast(getattr(ctypes.pythonapi, name), ctypes.c_void_p).value
        for name in names[:2]
    }
    assert places == expected


def test_this_process_is_seen_as_it_is():
    found = look(os.getpid())
    assert found.interpreter is not None
    assert found.interpreter.version == sys.version_info[:2]
    assert (found.uid, found.directory, found.is_elsewhere) == (os.geteuid(), os.getcwd(), False)
    assert rights().uid == os.geteuid()


def test_a_process_that_is_gone_or_only_waits_to_be_reaped_is_not_found():
    process = subprocess.Popen(["true"])
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    with pytest.raises(NotFound, match="it has ended"):
        look(process.pid)
    process.wait()
    with pytest.raises(NotFound, match="there is no such process"):
        look(process.pid)


def test_a_thread_is_no_process_though_the_kernel_has_it_under_its_number():
    going = threading.Event()
    thread = threading.Thread(target=going.wait)
    thread.start()
    try:
        with pytest.raises(NotFound, match=f"it is a thread of process {os.getpid()}"):
            look(thread.native_id)
    finally:
        going.set()
        thread.join()


async def test_a_program_that_is_gone_from_disk_is_one_line():
    with pytest.raises(DebuggerUnavailable, match="/gone/python cannot be executed: No such file"):
        await entering._run(("/gone/python",), b"", 77)


def test_what_a_process_is_to_execute_raises_nothing_and_leaves_no_name(monkeypatch):
    ran: list[str] = []
    monkeypatch.setattr("_thread.start_new_thread", lambda _run, words: ran.append(words[0]))
    names: dict[str, object] = {}
    exec(entering.line("/x/hook.sock"), names)
    assert names.keys() <= {"__builtins__"}
    [source] = ran
    assert "'/x/hook.sock'" in source
    names = {"__builtins__": {}}
    exec(entering.line("/x/hook.sock"), names)  # not even `__import__`
    assert names == {"__builtins__": {}}


@pytest.mark.parametrize(
    ("number", "kind"), [(1, PermissionRefused), (3, NotFound), (None, DebuggerUnavailable)]
)
def test_what_the_tracer_answers_becomes_an_error(number, kind):
    with pytest.raises(kind):
        entering._judge(FOUND, {"error": "no", "errno": number})
