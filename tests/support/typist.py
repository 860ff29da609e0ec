"""Somebody who types into a job and reads what it prints."""

import asyncio
import secrets

from tests.support.jobs import DEADLINE


class Typist:
    """Writes as one writer and follows the output; what was read is not read again.

    Attributes:
        seen: All output so far.
    """

    def __init__(self, jobs, job, *, writer_id=None):
        self.seen = b""
        self.writer_id = writer_id or secrets.token_hex(16)
        self._jobs, self._job = jobs, job
        self._taken = 0
        self._arrived = asyncio.Condition()

    async def __aenter__(self):
        self._opened = self._jobs.manager.write_input(self._job.id, self.writer_id)
        self.writer = await self._opened.__aenter__()
        self._follower = asyncio.ensure_future(self._follow())
        return self

    async def __aexit__(self, *exception):
        self._follower.cancel()
        await asyncio.wait([self._follower])
        await self._opened.__aexit__(*exception)

    async def types(self, data):
        await self.writer.write(data)

    async def reads(self, wanted):
        """Waits for these bytes; returns what came before them since the last time."""
        async with asyncio.timeout(DEADLINE), self._arrived:
            await self._arrived.wait_for(lambda: wanted in self.seen[self._taken :])
            found = self.seen.index(wanted, self._taken)
            before, self._taken = self.seen[self._taken : found], found + len(wanted)
            return before

    async def _follow(self):
        async for piece in self._jobs.pieces(self._job):
            async with self._arrived:
                self.seen += piece.data
                self._arrived.notify_all()
