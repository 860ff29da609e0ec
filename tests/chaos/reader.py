"""A client that can be killed at any moment and whose successor goes on where it was.

    python reader.py HOST JOB FOLDER

What it reads goes into FOLDER/<stream>, each chunk at its own offset, and it begins where those
files end; so they show exactly what clients of this kind received. Whatever is not the next byte of
its stream is noted in FOLDER/faults. Exit code 0 means that the end of the log was told.
"""

from __future__ import annotations

import asyncio
import os
import sys

from rdev.client.connection import connect
from rdev.client.jobs import Jobs
from rdev.client.logs import Chunk, Gap, Logs
from rdev.protocol.errors import HostUnreachable

# A person who finds the host away tries again.
_AGAIN = 0.2


async def _read(host: str, reference: str, folder: str) -> None:
    files = {name: _open(os.path.join(folder, name)) for name in ("stdout", "stderr")}
    async with connect(host) as connection:
        job = await Jobs(connection).get(reference)
        starts = {(0, name): os.fstat(file).st_size for name, file in files.items()}
        async for item in Logs(connection).tail(job.id, follow=True, starts=starts):
            _take(item, files[item.stream], folder)


def _take(item: Chunk | Gap, file: int, folder: str) -> None:
    end = os.fstat(file).st_size
    if isinstance(item, Gap):
        _fault(folder, f"{item} of {item.stream}")
    elif item.offset != end:
        _fault(folder, f"{item.stream} is at {end}, and bytes at {item.offset} came")
    else:
        os.pwrite(file, item.data, item.offset)


def _open(path: str) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT, 0o600)


def _fault(folder: str, line: str) -> None:
    with open(os.path.join(folder, "faults"), "a", encoding="utf-8") as file:
        print(line, file=file)


async def main() -> None:
    while True:
        try:
            await _read(*sys.argv[1:4])
            return
        except HostUnreachable:
            await asyncio.sleep(_AGAIN)


if __name__ == "__main__":
    asyncio.run(main())
