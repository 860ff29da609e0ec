"""From a line that a person names, as their editor counts, to the line of the job."""

from __future__ import annotations

from rdev.client.debug.code import fault_of
from rdev.client.debug.mapping import lines_of
from rdev.client.debug.texts import Texts
from rdev.protocol.errors import DebuggerUnavailable

# A file is looked for in the workspace.
NO_FILE = (
    "check its path in the workspace; a library's file is named by its whole path, or by a function"
    " at the prompt: `b torch.optim.SGD.step`"
)


async def job_line(texts: Texts, path: str, line: int) -> int:
    """The job's line for a number of the editor's; the nearest where it has none."""
    pairing = await texts.pairing(path)
    return line if pairing is None or not pairing.here else pairing.to_job(line).line


async def aimed(texts: Texts, path: str, line: int, *, job: str) -> int:
    """The job's line at which a breakpoint is meant, which can be hit as far as one can tell.

    Args:
        texts: The files of both sides.
        path: On the host.
        line: As the editor counts.
        job: The job's name.

    Raises:
        DebuggerUnavailable: It cannot be hit; the cause says why.
    """
    shown = texts.sources.shown(path)
    action = f"stop job {job} at {shown}:{line}"
    pairing = await texts.pairing(path)
    if pairing is None:
        return line  # a library: only the host knows
    if pairing.text is None:
        raise DebuggerUnavailable(action, f"job {job} has no file {shown}", hint=NO_FILE)
    found = pairing.to_job(line) if pairing.here else None
    lines = lines_of(pairing.text)
    if found is not None and not found.is_there:
        here = await texts.here(pairing)
        if fault := fault_of(here, line):
            raise DebuggerUnavailable(action, fault, hint="name a line that has code")
        cause = f"job {job} does not have this line: it was written after its start"
        raise DebuggerUnavailable(action, cause, hint="a new `rdev run` has it")
    number = found.line if found else line
    if fault := fault_of(lines, number):
        if found is not None:  # in the editor's numbers
            fault = fault_of(await texts.here(pairing), line) or fault
        raise DebuggerUnavailable(action, fault, hint="name a line that has code")
    return number
