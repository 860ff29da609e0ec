"""Where every thread of a job's processes is, without stopping any: the hook says, else py-spy."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import sys
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from rdev.agent.debug.target import Jobs, hooks_of, running_job, why_no_hook
from rdev.protocol.errors import DebuggerUnavailable, RdevError

# A hook answers from a thread of its own within milliseconds; one that does not is kept from
# running Python by C code, and then it is py-spy that can tell.
HOOK_SECONDS = 2.0

# py-spy reads the process's memory; with native frames it reads all its libraries first.
PY_SPY_SECONDS = 20.0


@dataclass(frozen=True, slots=True)
class Frame:
    """One call; `line` is 0 where it is not known."""

    file: str
    line: int
    function: str


@dataclass(frozen=True, slots=True)
class ThreadStack:
    """One thread, its innermost frame first; `is_paused` by the debugger."""

    name: str
    frames: tuple[Frame, ...]
    is_paused: bool = False


@dataclass(frozen=True, slots=True)
class ProcessStack:
    """One process: its threads, or why there are none; `source` is `hook` or `py-spy`."""

    rank: int
    pid: int
    title: str = ""
    threads: tuple[ThreadStack, ...] = ()
    cause: str = ""
    source: str = ""


async def stacks(
    jobs: Jobs, job_id: str, *, rank: int | None, is_native: bool
) -> Sequence[ProcessStack]:
    """One stack for each process with a hook; of a job without any, its main process by py-spy.

    Args:
        jobs: Where the job is.
        job_id: Full id.
        rank: Only this rank; None means all.
        is_native: Frames of native code too, which only py-spy can tell.

    Raises:
        DebuggerUnavailable: No process has a hook, and there is no py-spy.
        JobNotRunning: The job has ended or has not begun.
    """
    action = f"show the stacks of the job {(await jobs.get(job_id)).name!r}"
    try:
        job = await running_job(jobs, job_id, action)
        hooks = await hooks_of(jobs, job_id, rank)
    except DebuggerUnavailable:  # started without hooks
        job, hooks = await jobs.get(job_id), []
    if not hooks:
        if rank or not _py_spy() or not job.pid:
            hint = "py-spy on the host shows it all the same: `pip install py-spy` there"
            raise DebuggerUnavailable(action, why_no_hook(job, rank or 0), hint=hint)
        return (await _spied(0, job.pid, is_native=is_native),)
    calls = [_stack(jobs, job_id, number, pid, is_native=is_native) for number, pid in hooks]
    return await asyncio.gather(*calls)


async def _stack(jobs: Jobs, job_id: str, rank: int, pid: int, *, is_native: bool) -> ProcessStack:
    spied = await _spied(rank, pid, is_native=True) if is_native else None
    if spied is not None and not spied.cause:
        return spied
    try:
        answer = await jobs.command(job_id, "hook", rank, "stack", pid=pid, timeout=HOOK_SECONDS)
    except (RdevError, TimeoutError):
        if spied is None:
            spied = await _spied(rank, pid, is_native=False)
        if not spied.cause:
            return spied
        cause = f"it does not answer, as in a long call of C code; {spied.cause}"
        return ProcessStack(rank, pid, cause=cause)
    found = of_hook(answer, rank, pid)
    # What was asked for and cannot be had is said beside what can.
    return found if spied is None else replace(found, title=f"{found.title} ({_no_native(spied)})")


def _no_native(spied: ProcessStack) -> str:
    return f"no native frames: {spied.cause}"


def of_hook(answer: Mapping[str, Any], rank: int, pid: int) -> ProcessStack:
    """Reads a hook's answer to `stack`."""
    threads = tuple(
        ThreadStack(
            str(thread.get("name", "")),
            tuple(Frame(str(f[0]), _line(f[1]), str(f[2])) for f in thread.get("frames", ())),
            is_paused=thread.get("paused") is True,
        )
        for thread in answer.get("threads", ())
    )
    return ProcessStack(rank, pid, str(answer.get("title", "")), threads, source="hook")


def of_py_spy(output: bytes, rank: int, pid: int) -> ProcessStack:
    """Reads what `py-spy dump --json` printed, the main thread first.

    Raises:
        ValueError: It printed something else.
    """
    listed = json.loads(output)
    if not isinstance(listed, list):
        raise ValueError("no list of threads")
    title, threads = "", []
    for thread in listed:
        info = thread.get("process_info") or {}
        title = title or str(info.get("command_line") or "")
        name = str(thread.get("thread_name") or f"thread {thread.get('os_thread_id')}")
        frames = tuple(
            Frame(
                str(frame.get("filename") or frame.get("module") or ""),
                _line(frame.get("line")),
                str(frame.get("name") or ""),
            )
            for frame in thread.get("frames") or ()
        )
        threads.append((thread.get("os_thread_id") != pid, ThreadStack(name, frames)))
    ordered = tuple(stack for _, stack in sorted(threads, key=lambda item: item[0]))
    return ProcessStack(rank, pid, title, ordered, source="py-spy")


async def _spied(rank: int, pid: int, *, is_native: bool) -> ProcessStack:
    program = _py_spy()
    if not program:
        return ProcessStack(rank, pid, cause="py-spy is not on the host")
    words = ["dump", "--json", "--nonblocking", "--pid", str(pid)]
    if is_native:
        words[2] = "--native"  # which needs a process that stands still for a moment
    try:
        code, output, complaint = await _run(program, *words)
        if code:
            return ProcessStack(rank, pid, cause=_why(complaint))
        found = of_py_spy(output, rank, pid)
        # It tells the command line only of what it takes for a child.
        return replace(found, title=found.title or await asyncio.to_thread(_command_line, pid))
    except (OSError, ValueError, TimeoutError) as error:
        cause = str(error) or f"it took longer than {PY_SPY_SECONDS:.0f} s"
        return ProcessStack(rank, pid, cause=f"py-spy: {cause}")


async def _run(program: str, *words: str) -> tuple[int, bytes, bytes]:
    process = await asyncio.create_subprocess_exec(
        program, *words, stdin=DEVNULL, stdout=PIPE, stderr=PIPE
    )
    try:
        async with asyncio.timeout(PY_SPY_SECONDS):
            output, complaint = await process.communicate()
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
    return process.returncode or 0, output, complaint


def _why(complaint: bytes) -> str:
    text = complaint.decode(errors="replace").strip()
    if "ermission" in text or "not permitted" in text:
        return (
            "py-spy may not look into the process: it needs root, or"
            " /proc/sys/kernel/yama/ptrace_scope at 0"
        )
    lines = text.splitlines()
    return f"py-spy: {lines[0].removeprefix('Error: ') if lines else 'it failed'}"


def _command_line(pid: int) -> str:
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            words = file.read().split(b"\0")
    except OSError:  # it has ended
        return ""
    return os.fsdecode(b" ".join(words)).strip()


def _py_spy() -> str:
    """Its path: beside the agent's Python, or on the PATH; empty if there is none."""
    beside = os.path.join(os.path.dirname(sys.executable), "py-spy")
    return beside if os.access(beside, os.X_OK) else shutil.which("py-spy") or ""


def _line(value: object) -> int:
    return value if isinstance(value, int) and value > 0 else 0
