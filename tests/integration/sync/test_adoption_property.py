"""Whatever lies on both sides, an adoption loses nothing and ends in the laptop's tree."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.support.sync import LocalEndpoint, content_of, workspace_at

from rdev.agent.workspace.manager import WorkspaceManager
from rdev.client.sync.receipt import Receipt
from rdev.client.sync.sender import WorkspaceSync
from rdev.protocol.errors import AdoptionRefused

NAMES = ["a", "b.py", "d", "d/x", "d/e", "d/e/z", "l"]
# A path, and there a file of that content, a folder (None) or a link (a text).
THINGS = [b"", b"one", b"two", None, "b.py"]
LAPTOPS = st.dictionaries(st.sampled_from(NAMES), st.sampled_from(THINGS))
HOSTS = st.dictionaries(st.sampled_from(NAMES), st.sampled_from([*THINGS, "/etc"]))


def build(root: Path, tree: dict[str, bytes | str | None]) -> None:
    """Makes what of the tree fits together."""
    root.mkdir(exist_ok=True)
    for name, what in sorted(tree.items()):
        path = root / name
        above = [each for each in path.parents if each.is_relative_to(root)]
        if any(each.is_symlink() or each.is_file() for each in above):
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        if what is None:
            path.mkdir()
        elif isinstance(what, str):
            path.symlink_to(what)
        else:
            path.write_bytes(what)


def adopt(base: Path, *, is_agreed: bool) -> Receipt:
    async def once() -> Receipt:
        workspace = replace(workspace_at(base / "laptop"), folder=str(base / "folder"))
        confirm = (lambda _: True) if is_agreed else None
        manager = WorkspaceManager(str(base / "home"))
        try:
            connect = lambda: LocalEndpoint(manager)  # noqa: E731  # shorter than a function
            async with WorkspaceSync(workspace, connect, confirm=confirm) as syncing:
                return await syncing.sync()
        finally:
            manager.close()

    return asyncio.run(once())


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(laptop=LAPTOPS, host=HOSTS)
def test_nothing_is_lost(laptop: dict, host: dict):
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as name:
        base = Path(name)
        for variable in ("HOME", "XDG_CACHE_HOME", "XDG_STATE_HOME", "XDG_CONFIG_HOME"):
            patch.setenv(variable, str(base / variable))
        build(base / "laptop", laptop)
        build(base / "folder", host)
        there = content_of(base / "folder")
        try:
            adopt(base, is_agreed=False)
            was_asked = False
        except AdoptionRefused:
            was_asked = True
            assert content_of(base / "folder") == there
            assert not (base / "folder" / ".rdev").exists()
        adopt(base, is_agreed=True)
        wanted = content_of(base / "laptop")
        after = content_of(base / "folder")
        assert {path: after.get(path) for path in wanted} == wanted
        assert _kept(base / "folder") >= set(_things(there)) - set(_things(after))
        # It was asked if and only if the host had to give way, or had nothing in common.
        gave_way = any(after.get(path, 0) != what for path, what in there.items())
        same = [what for what in _things(there) if what in _things(wanted)]
        only = set(there) - set(wanted)
        assert was_asked == (gave_way or (not same and bool(only)))
        shutil.rmtree(base / "laptop")


def _things(tree: dict[str, bytes | str | None]) -> list[tuple[str, bytes | str]]:
    return [(path, what) for path, what in tree.items() if what is not None]


def _kept(folder: Path) -> set[tuple[str, bytes | str]]:
    """What lies beside, by the path it had."""
    conflicts = folder / ".rdev" / "conflicts"
    if not conflicts.exists():
        return set()
    return {pair for each in conflicts.iterdir() for pair in _things(content_of(each))}
