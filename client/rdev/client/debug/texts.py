"""The text that a job runs, which the editor may be ahead of: files of the job's snapshot."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from rdev.client.debug.places import Sources


class Texts:
    """Reads source files as the job has them.

    Args:
        sources: Where files are, here and on the host.
        fetch: Gives a file of the snapshot by its path in the workspace; None if it is not there.
    """

    def __init__(self, sources: Sources, fetch: Callable[[str], Awaitable[bytes | None]]) -> None:
        self._sources = sources
        self._fetch = fetch
        self._known: dict[str, bytes | None] = {}

    async def lines(self, path: str, first: int, last: int) -> list[tuple[int, str]]:
        """Numbered lines of a host's file as the job has it; empty if nobody knows them."""
        content = await self._content(path)
        if content is None:
            return []
        lines = content.decode(errors="replace").splitlines()
        return [(n, lines[n - 1]) for n in range(max(1, first), min(last, len(lines)) + 1)]

    async def is_behind(self, path: str) -> bool:
        """True if the copy here is no longer what the job runs."""
        here = self._sources.here(path)
        content = await self._content(path)
        return None not in (here, content) and _read(here or "") not in (None, content)

    async def _content(self, path: str) -> bytes | None:
        if path not in self._known:
            inside = self._sources.inside(path)
            content = None if inside is None else await self._fetch(inside)
            # A library is perhaps the same as here; a job without a snapshot runs what was synced.
            self._known[path] = content or _read(self._sources.here(path) or path)
        return self._known[path]


def _read(path: str) -> bytes | None:
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError:
        return None
