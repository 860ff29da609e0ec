"""What only the command itself can do, because the terminal is its own and not a worker's.

A worker has the terminal's descriptors, and can read, write and set its modes; but it is no process
of that terminal's shell: it has no /dev/tty, and neither has `ssh`, which asks there.
"""

from __future__ import annotations


class HandedBack(SystemExit):
    """This worker ends, and the command is run by the process that it was typed into.

    As with any exit, what was opened is closed on the way.
    """


class _Worker:
    """What this process is, if it is one."""

    is_one = False
    is_foreground = False


_worker = _Worker()


def become_worker(*, is_foreground: bool) -> None:
    """From now on this process works for another one.

    Args:
        is_foreground: Whether a person sits at its stdin, and it has that terminal.
    """
    _worker.is_one, _worker.is_foreground = True, is_foreground


def require_own_terminal() -> None:
    """To be called before anything was done that must not be done twice.

    Raises:
        HandedBack: The terminal belongs to another process, which is to run the command instead.
    """
    if _worker.is_one and _worker.is_foreground:
        raise HandedBack
