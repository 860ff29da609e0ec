"""Show a job's metrics: a table of latest values, or plots; with -f, as they come.

On a terminal -f keeps the table up to date; elsewhere it prints a line an event. Metrics are
samples: the loop reports the first step, the last of each epoch, and several a second in between.

Of several ranks the table shows each, and the mean above them. --reduce shows only one value for
all: of steps of which every rank that reports the metric has a sample, so it is never one of
values of different steps. In CSV its name stands for the rank, and JSON names the ranks.

--tensorboard writes a folder of this machine that TensorBoard reads, with -f as it grows.

T is how long ago (90s, 10m, 2h30m, 3d), a time today (14:03), or a moment in RFC 3339.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Protocol

from rdev.client.cli.options import add_host, add_job, add_json, host_of, rank, since, steps

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rdev.client.ui.metrics import Board
    from rdev.client.ui.reducing import Reduced, Reducer
    from rdev.wire.events import Event
    from rdev.wire.job import Job

# A table that changes more often than this cannot be read.
_REDRAW_SECONDS = 0.25

_KINDS = ("metric", "run_started")


def configure(parser: argparse.ArgumentParser) -> None:
    """Adds the options."""
    add_host(parser)
    add_job(parser)
    parser.add_argument("-f", "--follow", action="store_true", help="go on until the job ends")
    parser.add_argument("--plot", action="store_true", help="plots instead of a table")
    ranks = parser.add_mutually_exclusive_group()
    ranks.add_argument("--rank", type=rank, metavar="R", help="only this rank")
    ranks.add_argument("--reduce", choices=("mean", "min", "max"), help="one value for all ranks")
    parser.add_argument("--since", metavar="T", help="only what came then or later")
    parser.add_argument(
        "--steps", type=steps, metavar="A[:B]", help="only from step A on, to B if it is given"
    )
    shapes = parser.add_mutually_exclusive_group()
    add_json(shapes)  # type: ignore[arg-type]  # a group takes arguments as a parser does
    shapes.add_argument("--csv", action="store_true", help="a row a value, with a heading")
    shapes.add_argument("--tensorboard", metavar="DIR", help="write them there for TensorBoard")


class _View(Protocol):
    """Shows metrics; calls come in the order of the record, and `close` once after the last.

    A view that shows no single values is given none, see `_Reducing`.
    """

    def add(self, event: Event) -> None: ...

    def add_reduced(self, reduced: Reduced) -> None: ...

    def close(self) -> None: ...


async def execute(options: argparse.Namespace) -> int:
    """Shows them."""
    from rdev.client.connection import connect
    from rdev.client.events import Events
    from rdev.client.lookup import find_job

    begin = since(options.since)
    async with connect(host_of(options)) as connection:
        job = await find_job(connection, options.job)
        view = _view(options, job)
        tail = Events(connection).tail(job.id, follow=options.follow, kinds=_KINDS)
        async for _, event in tail:
            if _is_wanted(event, options, begin):
                view.add(event)
    view.close()
    return 0


def _is_wanted(event: Event, options: argparse.Namespace, begin: float | None) -> bool:
    if options.rank not in (None, event.rank):
        return False
    if event.kind != "metric":
        return True
    first, last = options.steps or (0, None)
    step = event.fields.get("step", 0)
    if begin is not None and event.time < begin:
        return False
    return isinstance(step, int) and first <= step and (last is None or step <= last)


def _view(options: argparse.Namespace, job: Job) -> _View:
    from rdev.client.ui.reducing import Reducer, Reduction

    shown = _shown(options, job)
    several = job.ranks > 1 and options.rank is None
    if options.reduce:
        return _Reducing(shown, Reducer(Reduction(options.reduce), ranks=job.ranks), apart=False)
    if several and isinstance(shown, _Screen | _Folder):
        return _Reducing(shown, Reducer(Reduction.MEAN, ranks=job.ranks), apart=True)
    return _Apart(shown)


def _shown(options: argparse.Namespace, job: Job) -> _View:
    import sys

    if options.json:
        return _JsonLines()
    if options.csv:
        return _CsvRows()
    if options.tensorboard:
        return _Folder(options.tensorboard, ranks=job.ranks)
    if options.follow and not sys.stdout.isatty():
        return _Lines()
    return _Screen(plot=options.plot, live=options.follow)


class _Apart:
    """Shows each rank's values."""

    def __init__(self, view: _View) -> None:
        self._view = view

    def add(self, event: Event) -> None:
        if event.kind == "metric" or isinstance(self._view, _Folder):
            self._view.add(event)

    def add_reduced(self, reduced: Reduced) -> None:
        self._view.add_reduced(reduced)

    def close(self) -> None:
        self._view.close()


class _Reducing(_Apart):
    """Shows one value for all ranks, besides theirs or instead of them."""

    def __init__(self, view: _View, reducer: Reducer, *, apart: bool) -> None:
        super().__init__(view)
        self._reducer = reducer
        self._is_apart = apart

    def add(self, event: Event) -> None:
        if self._is_apart:
            super().add(event)
        self._show(self._reducer.add(event))

    def close(self) -> None:
        self._show(self._reducer.finish())
        super().close()

    def _show(self, found: Iterable[Reduced]) -> None:
        for reduced in found:
            self._view.add_reduced(reduced)


class _JsonLines:
    """One event a line, as it was recorded."""

    def add(self, event: Event) -> None:
        print(event.to_json(), flush=True)

    def add_reduced(self, reduced: Reduced) -> None:
        print(reduced.to_json(), flush=True)

    def close(self) -> None:
        pass


class _CsvRows:
    """One value a row."""

    def __init__(self) -> None:
        from rdev.client.ui.metrics import CSV_HEADING

        self._write([CSV_HEADING])

    def add(self, event: Event) -> None:
        from rdev.client.ui.metrics import csv_rows

        self._write(csv_rows(event))

    def add_reduced(self, reduced: Reduced) -> None:
        from rdev.client.ui.metrics import reduced_rows

        self._write(reduced_rows(reduced))

    def close(self) -> None:
        pass

    def _write(self, rows: Iterable[tuple[object, ...]]) -> None:
        import csv
        import sys

        csv.writer(sys.stdout).writerows(rows)
        sys.stdout.flush()


class _Lines:
    """One event a line, for people."""

    def add(self, event: Event) -> None:
        from rdev.client.ui.metrics import metric_line

        print(metric_line(event), flush=True)

    def add_reduced(self, reduced: Reduced) -> None:
        from rdev.client.ui.metrics import reduced_line

        print(reduced_line(reduced), flush=True)

    def close(self) -> None:
        pass


class _Folder:
    """A folder for TensorBoard, and its name at the end."""

    def __init__(self, folder: str, *, ranks: int) -> None:
        from rdev.client.ui.tensorboard import TensorBoardFolder

        self._name = folder
        self._folder = TensorBoardFolder(folder, ranks=ranks)

    def add(self, event: Event) -> None:
        self._folder.add(event)

    def add_reduced(self, reduced: Reduced) -> None:
        self._folder.add_reduced(reduced)

    def close(self) -> None:
        self._folder.close()
        if self._folder.is_empty:
            print(_NONE)
        else:
            print(f"`tensorboard --logdir {self._name}` shows them")


class _Screen:
    """The table, or the plots: once at the end, or live by drawing over what was there."""

    def __init__(self, *, plot: bool, live: bool) -> None:
        from rdev.client.ui.metrics import Board

        self._board: Board = Board()
        self._plot = plot
        self._live = live
        self._drawn = 0.0

    def add(self, event: Event) -> None:
        self._board.add(event)
        self._draw()

    def add_reduced(self, reduced: Reduced) -> None:
        self._board.add_reduced(reduced)
        self._draw()

    def close(self) -> None:
        if self._live:
            print("\x1b[H\x1b[J", end="")
        print(self._text())

    def _draw(self) -> None:
        import time

        if self._live and time.monotonic() - self._drawn >= _REDRAW_SECONDS:
            self._drawn = time.monotonic()
            # Home, draw, clear the rest: clearing first would flicker.
            text = "\x1b[K\n".join(self._visible())
            print(f"\x1b[H{text}\x1b[K\n\x1b[J", end="", flush=True)

    def _visible(self) -> list[str]:
        """As much as the terminal has room for: what scrolls away cannot be drawn over."""
        import shutil

        lines = self._text().split("\n")
        room = max(2, shutil.get_terminal_size().lines - 1)
        if len(lines) <= room:
            return lines
        return [*lines[: room - 1], f"... {len(lines) - room + 1} more lines"]

    def _text(self) -> str:
        import shutil

        if not self._board.series:
            return _NONE
        if self._plot:
            return self._board.plots(width=shutil.get_terminal_size().columns)
        return self._board.table()


_NONE = "no metrics; a script reports them with `rdev.loop`"
