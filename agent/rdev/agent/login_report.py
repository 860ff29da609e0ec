"""Says what a login has: its environment, umask, limits, nice, CPUs and groups; run by its shell.

A program of its own, for the standard library alone: `python -I -S login_report.py`. What it says
stands between two markers, for rc files may print anything before and after.
"""

import json
import os
import resource
import sys

MARKER_VARIABLE = "RDEV_LOGIN_MARKER"


def report() -> dict[str, object]:
    """What this process has."""
    umask = os.umask(0o077)
    os.umask(umask)
    return {
        "environment": dict(os.environ),
        "umask": umask,
        "limits": {
            name.removeprefix("RLIMIT_").lower(): list(resource.getrlimit(getattr(resource, name)))
            for name in dir(resource)
            if name.startswith("RLIMIT_")
        },
        "nice": os.getpriority(os.PRIO_PROCESS, 0),
        "cpus": sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else [],
        "groups": sorted({os.getegid(), *os.getgroups()}),
    }


def main() -> None:
    """Prints the report."""
    marker = os.environ.pop(MARKER_VARIABLE)
    # ASCII: what is no UTF-8 in the environment is escaped, and comes back as it was.
    sys.stdout.write(f"\n{marker}{json.dumps(report())}{marker}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
