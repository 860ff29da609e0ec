"""Which environments live jobs run in, read from the job directories of all machines of a home."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator

from rdev.agent.environment.found import Kind
from rdev.wire.blocks import FilesError, read_file
from rdev.wire.files import JobFiles, read_status
from rdev.wire.records import Accepted


def in_use(hosts: str) -> Iterator[str]:
    """Names of managed environments that jobs run in, and the interpreters of all jobs.

    A job whose state cannot be read counts: it may be another machine's, and is not judged.

    Args:
        hosts: Holds a folder for each machine.
    """
    for directory in glob.glob(os.path.join(glob.escape(hosts), "*", "jobs", "[0-9a-f]*")):
        files = JobFiles(directory)
        try:
            accepted = Accepted.from_json(read_file(files.spec))
        except (FilesError, OSError, KeyError, TypeError, ValueError):
            continue
        if _has_ended(files):
            continue
        if accepted.env.startswith(Kind.MANAGED.value):
            yield accepted.env.removeprefix(Kind.MANAGED.value).strip()
        if accepted.interpreter:
            # Its own path, not what it is a link to: that lies outside of the environment.
            yield os.path.dirname(os.path.dirname(accepted.interpreter))


def _has_ended(files: JobFiles) -> bool:
    try:
        return read_status(files).state.is_final
    except (FilesError, OSError, KeyError, TypeError, ValueError):
        return False
