"""What every thread of a job does, as people read it: their own code first."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from rdev.client.debug.paper import Ink
from rdev.client.debug.places import Sources
from rdev.client.debug.ranks import ProcessStack, StackFrame, ThreadStack
from rdev.client.debug.view import View

# A library's path is shown from here on: what is before it is the environment's folder.
_LIBRARIES = ("/site-packages/", "/dist-packages/")


async def pages(processes: Sequence[ProcessStack], view: View) -> list[str]:
    """All processes, by rank, their main threads first; coloured, and safe to show."""
    lines: list[str] = []
    for process in _ordered(processes):
        lines += [""] if lines else []
        lines += await _page(process, view)
    return lines


def _ordered(processes: Sequence[ProcessStack]) -> list[ProcessStack]:
    return sorted(processes, key=lambda process: (process.rank, process.pid))


async def _page(process: ProcessStack, view: View) -> list[str]:
    by = f", by {process.source}" if process.source and process.source != "hook" else ""
    head = f"rank {process.rank}  pid {process.pid}  {process.title}{by}"
    lines = [view.paper.ink(head, Ink.STRONG)]
    if process.cause:
        lines.append(view.paper.ink(f"  no stacks: {process.cause}", Ink.WARNING))
    for thread in process.threads:
        paused = ", held by the debugger" if thread.is_paused else ""
        lines.append(f"  {view.paper.ink(f'{thread.name}{paused}')}")
        for frame in thread.frames:
            lines += await _frame(frame, view)
    return lines


async def _frame(frame: StackFrame, view: View) -> list[str]:
    sources = view.sources
    if sources.inside(frame.path) is None:
        line = f":{frame.line}" if frame.line else ""
        text = f"    {_short(frame.path)}{line} in {frame.function}"
        return [view.paper.ink(text, Ink.FAINT)]
    spot = await view.spot(frame.path, frame.line)
    remark = f" ({spot.remark})" if spot.remark else ""
    lines = [view.paper.ink(f"    {spot.name} in {frame.function}{remark}", Ink.STRONG)]
    source = await view.texts.lines(frame.path, frame.line, frame.line)
    return lines + [view.paper.ink(f"      {text.strip()}") for _, text in source]


def _short(path: str) -> str:
    for part in _LIBRARIES:
        if part in path:
            return path.rpartition(part)[2]
    return os.path.basename(path)


def brief_place(process: ProcessStack, sources: Sources) -> str:
    """Where a process's main thread is, in one phrase: the job's own code, and what that calls."""
    thread = next(iter(process.threads), None)
    if thread is None or not thread.frames:
        return ""
    ours = next((f for f in thread.frames if sources.inside(f.path) is not None), None)
    frame = ours or thread.frames[0]
    name = sources.shown(frame.path) if ours else _short(frame.path)
    into = f", calling {thread.frames[0].function}" if frame is not thread.frames[0] else ""
    return f"{name}:{frame.line}{into}"


def as_json(processes: Sequence[ProcessStack]) -> list[dict[str, Any]]:
    """The same for programs."""
    return [
        {
            "rank": process.rank,
            "pid": process.pid,
            "title": process.title,
            "source": process.source,
            "cause": process.cause,
            "threads": [_thread_json(thread) for thread in process.threads],
        }
        for process in _ordered(processes)
    ]


def _thread_json(thread: ThreadStack) -> dict[str, Any]:
    frames = [{"file": f.path, "line": f.line, "function": f.function} for f in thread.frames]
    return {"name": thread.name, "paused": thread.is_paused, "frames": frames}
