"""Runs benchmarks by name, or all of them: `python -m bench [edit_run | debug | loop ...]`."""

from __future__ import annotations

import importlib
import sys

BENCHMARKS = (
    "startup",
    "edit_run",
    "loop",
    "loop_peers",
    "logs",
    "crowd",
    "harm",
    "contact",
    "debug",
    "checkpoint",
)


def main() -> int:
    names = sys.argv[1:] or BENCHMARKS
    for name in names:
        if name not in BENCHMARKS:
            print(f"no benchmark is called {name!r}; there are {', '.join(BENCHMARKS)}")
            return 2
        print(f"## {name}\n", flush=True)
        importlib.import_module(f"bench.{name}").main()
        print(flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
