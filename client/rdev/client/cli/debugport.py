"""`rdev debug --listen`: a local port for each rank, and what an IDE is to be told of it."""

from __future__ import annotations

import argparse

from rdev.client.cli.options import terms_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rdev.client.connection import Connection
    from rdev.client.debug.editor import Opening
    from rdev.wire.job import Job


async def listen(connection: Connection, job: Job, options: argparse.Namespace) -> int:
    """Opens the ports and serves until Ctrl-C."""
    from contextlib import AsyncExitStack
    from functools import partial

    from rdev.client.debug.listen import port_of, serving
    from rdev.client.debug.terminal import until_interrupted
    from rdev.client.jobs import Jobs

    ranks = range(job.ranks) if options.rank is None else [options.rank]
    async with AsyncExitStack() as stack:
        ports = [
            await stack.enter_async_context(
                port_of(
                    options.listen + number if options.listen else 0,
                    opening=_opening(connection, job, rank, options),
                    say=partial(_say, f"[rank {rank}] " if len(ranks) > 1 else ""),
                )
            )
            for number, rank in enumerate(ranks)
        ]
        # The rank first: lists of an IDE cut long names off at their end.
        names = [f"rank {rank} of {job.name}" if len(ranks) > 1 else job.name for rank in ranks]
        where = ", ".join(f"127.0.0.1:{port.port}" for port in ports)
        print(f"listening on {where} for one IDE at a time; Ctrl-C ends it")
        numbers = dict(zip(names, (port.port for port in ports), strict=True))
        _hand_over(numbers, is_written=options.write)
        await until_interrupted(serving(ports))
    final = (await Jobs(connection).get(job.id)).state.is_final
    print("\nclosed; the job has ended" if final else "\nclosed; the job goes on")
    return 0


def remove() -> int:
    """Takes away what `--write` put into the files of this workspace."""
    import os

    from rdev.client.debug import idefiles
    from rdev.client.sync.root import find_workspace

    removed = idefiles.remove(find_workspace(os.getcwd()).root)
    print(f"taken out of {', '.join(removed)}" if removed else "nothing of rdev's was there")
    return 0


def _hand_over(ports: dict[str, int], *, is_written: bool) -> None:
    """Tells the IDE, or the person, what to attach to."""
    import json
    import os

    from rdev.client.debug import idefiles
    from rdev.client.debug.launchjson import entry
    from rdev.client.sync.root import find_workspace

    if is_written:
        written = idefiles.write(find_workspace(os.getcwd()).root, ports)
        print(f"written to {', '.join(written)}; start {', '.join(f'`rdev: {n}`' for n in ports)}")
        print("`rdev debug --write --remove` takes it out again", flush=True)
        return
    print("paste into .vscode/launch.json, under configurations:")
    entries = [entry(name, port) for name, port in ports.items()]
    print(",\n".join(json.dumps(one, indent=2) for one in entries), flush=True)


def _opening(connection: Connection, job: Job, rank: int, options: argparse.Namespace) -> Opening:
    from rdev.client.debug.opening import here, joined

    terms, folder = terms_of(options), here()
    return lambda arguments, tell: joined(
        connection, job, rank=rank, terms=terms.over(arguments), folder=folder, tell=tell
    )


def _say(label: str, text: str) -> None:
    print(f"{label}{text}", flush=True)
