"""Writes the pages of docs/ that are made from code: errors.md and commands.md.

python docs/generate.py            write them
python docs/generate.py --check    fail if they are not up to date
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
from pathlib import Path

from rdev.client.cli.main import VERBS, overview, parser_for
from rdev.protocol.errors import all_errors

DOCS = Path(__file__).parent

# argparse wraps at the terminal's width; pages must not depend on whose terminal made them.
os.environ["COLUMNS"] = "96"
os.environ["NO_COLOR"] = "1"

_EXIT_CODES = """\
| code | meaning |
|---|---|
| the job's own | `run`, `attach`, `wait`, `exec`, `shell`: what the job's main process exited with; 128 + N when signal N killed it |
| 0 | success; for `run`, `attach`, `shell` and `debug` also a detach that was asked for |
| 1 | another verb failed, or `doctor` found something |
| 2 | the command line is wrong |
| 69 | other verbs: the host cannot be reached |
| 75 | `rdev-agent serve`: another agent serves this home |
| 77 | other verbs: access to a file, a login or a host key refused |
| 78 | other verbs: a configuration file is wrong |
| 124 | a timeout ran out |
| 125 | rdev or its agent failed, a job's end is not known, or rdev stopped it because its output could not be kept |
| 126 | the job's command cannot be executed |
| 127 | the command or the script was not found |
| 129, 143 | SIGHUP or SIGTERM ended `run`, `exec`, `shell` or `attach`; the job goes on |
| 130 | Ctrl-C ended rdev itself |
| 137 | memory ran out (or SIGKILL, see above) |
| 141 | whoever read rdev's output left, as `head` does |
| 255 | `run`, `attach`, `wait`, `exec`, `shell`, `debug`: the host cannot be reached or the connection is lost |

`--json` tells rdev's own failures from the job's: they print `{"error": {"code": ...}}` on stderr.
"""


def errors_page() -> str:
    """The page about errors."""
    rows = [
        f"| `{cls.reason}` | {cls.exit_code} | {cls.verb_exit_code} | {_first_line(cls.__doc__)} "
        f"| {cls.default_hint} |"
        for cls in all_errors()
    ]
    return "\n".join(
        [
            "# Errors",
            "",
            "<!-- made by docs/generate.py from rdev.protocol.errors; do not edit -->",
            "",
            "Every error is two lines: `error: unable to ...: cause` and `hint: ...`. Verbs that pass on",
            "a job's exit code (`run`, `attach`, `wait`, `exec`, `shell`, `debug`) use the first code, all others",
            "the second.",
            "",
            "| reason | code | other verbs | what it means | hint |",
            "|---|---|---|---|---|",
            *rows,
            "",
        ]
    )


def _first_line(text: str | None) -> str:
    return " ".join((text or "").strip().split("\n\n")[0].split())


def commands_page() -> str:
    """The command reference."""
    parts = [
        "# Commands",
        "",
        "<!-- made by docs/generate.py from the commands themselves; do not edit -->",
        "",
        "```",
        overview(),
        "```",
        "",
        "## Exit codes",
        "",
        _EXIT_CODES,
    ]
    for name in VERBS:
        _, parser = parser_for(name)
        parts += [f"## rdev {name}", "", "```", parser.format_help().rstrip(), "```", ""]
    parts += ["## rdev-agent", "", "```", _agent_help().rstrip(), "```", ""]
    return "\n".join(parts)


def _agent_help() -> str:
    from rdev.agent.main import main

    printed = io.StringIO()
    arguments, sys.argv = sys.argv, ["rdev-agent", "--help"]
    try:
        with contextlib.redirect_stdout(printed), contextlib.suppress(SystemExit):
            main()
    finally:
        sys.argv = arguments
    return printed.getvalue()


PAGES = {"errors.md": errors_page, "commands.md": commands_page}


def main() -> int:
    """Writes the pages, or checks them."""
    stale = 0
    for name, make in PAGES.items():
        path, text = DOCS / name, make()
        if path.exists() and path.read_text() == text:
            continue
        stale += 1
        if "--check" in sys.argv:
            print(f"docs/{name} is not up to date: run `make docs`", file=sys.stderr)
        else:
            path.write_text(text)
            print(f"wrote docs/{name}")
    return 1 if stale and "--check" in sys.argv else 0


if __name__ == "__main__":
    sys.exit(main())
