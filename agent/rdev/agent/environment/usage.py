"""Which environments the live jobs of this machine run in, read from their directories."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator

from rdev.agent.environment.found import Kind
from rdev.wire.blocks import FilesError, read_file
from rdev.wire.files import JobFiles, read_status
from rdev.wire.records import Accepted


def in_use(jobs: str) -> Iterator[str]:
    """Names of managed environments that jobs run in, and the prefixes of all jobs' interpreters.

    A job whose state cannot be read counts.

    Args:
        jobs: Holds the job directories.
    """
    for directory in glob.glob(os.path.join(glob.escape(jobs), "[0-9a-f]*")):
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
