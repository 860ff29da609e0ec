"""Show a job's metrics: a table of latest values, or plots; with -f, as they come.

On a terminal -f keeps the table up to date; elsewhere it prints a line an event. Metrics are
samples: the loop reports the first step, the last of each epoch, and several a second in between.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Protocol

from rdev.client.cli.options import add_host, add_job, add_json, host_of

if TYPE_CHECKING:
    from rdev.client.ui.metrics import Board
    from rdev.wire.events import Event

# A table that changes more often than this cannot be read.
_REDRAW_SECONDS = 0.25


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the options."""
    add_host(parser)
    add_job(parser)
    parser.add_argument("-f", "--follow", action="store_true", help="go on until the job ends")
    parser.add_argument("--plot", action="store_true", help="plots instead of a table")
    shapes = parser.add_mutually_exclusive_group()
    add_json(shapes)  # type: ignore[arg-type]  # a group takes arguments as a parser does
    shapes.add_argument("--csv", action="store_true", help="a row a value, with a heading")


class _View(Protocol):
    """Shows metric events; `add` is called for each in order and `close` once after the last."""

    def add(self, event: Event) -> None: ...

    def close(self) -> None: ...


async def execute(options: argparse.Namespace) -> int:
    """Shows them."""
    from rdev.client.connection import connect
    from rdev.client.events import Events
    from rdev.client.lookup import find_job

    view = _view(options)
    async with connect(host_of(options)) as connection:
        job = await find_job(connection, options.job)
        tail = Events(connection).tail(job.id, follow=options.follow, kinds=("metric",))
        async for _, event in tail:
            view.add(event)
    view.close()
    return 0


def _view(options: argparse.Namespace) -> _View:
    import sys

    if options.json:
        return _JsonLines()
    if options.csv:
        return _CsvRows()
    if options.follow and not sys.stdout.isatty():
        return _Lines()
    return _Screen(plot=options.plot, live=options.follow)


class _JsonLines:
    """One event a line, as it was recorded."""

    def add(self, event: Event) -> None:
        print(event.to_json(), flush=True)

    def close(self) -> None:
        pass


class _CsvRows:
    """One value a row."""

    def __init__(self) -> None:
        import csv
        import sys

        from rdev.client.ui.metrics import CSV_HEADING

        self._writer = csv.writer(sys.stdout)
        self._writer.writerow(CSV_HEADING)

    def add(self, event: Event) -> None:
        import sys

        from rdev.client.ui.metrics import csv_rows

        self._writer.writerows(csv_rows(event))
        sys.stdout.flush()

    def close(self) -> None:
        pass


class _Lines:
    """One event a line, for people."""

    def add(self, event: Event) -> None:
        from rdev.client.ui.metrics import metric_line

        print(metric_line(event), flush=True)

    def close(self) -> None:
        pass


class _Screen:
    """The table, or the plots: once at the end, or live by drawing over what was there."""

    def __init__(self, *, plot: bool, live: bool) -> None:
        from rdev.client.ui.metrics import Board

        self._board: Board = Board()
        self._plot = plot
        self._live = live
        self._drawn = 0.0

    def add(self, event: Event) -> None:
        import time

        self._board.add(event)
        if self._live and time.monotonic() - self._drawn >= _REDRAW_SECONDS:
            self._drawn = time.monotonic()
            # Home, draw, clear the rest: clearing first would flicker.
            text = self._text().replace("\n", "\x1b[K\n")
            print(f"\x1b[H{text}\x1b[J", flush=True)

    def close(self) -> None:
        if self._live:
            print("\x1b[H\x1b[J", end="")
        print(self._text())

    def _text(self) -> str:
        import shutil

        if not self._board.series:
            return "no metrics; a script reports them with `rdev.loop`"
        if self._plot:
            return self._board.plots(width=shutil.get_terminal_size().columns)
        return self._board.table()
