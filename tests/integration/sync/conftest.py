"""A laptop with a small project, and a served host."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.support.sync import serving


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


@pytest.fixture
async def host(tmp_path: Path):
    async with serving(tmp_path / "home") as host:
        yield host


@pytest.fixture
def laptop(tmp_path: Path) -> Path:
    root = tmp_path / "project"
    (root / "pkg").mkdir(parents=True)
    (root / "train.py").write_text("import pkg.model\n")
    (root / "pkg" / "model.py").write_text("SIZE = 1\n")
    (root / "pkg" / "run.sh").write_text("#!/bin/sh\n")
    (root / "pkg" / "run.sh").chmod(0o4755)
    (root / "model").symlink_to("pkg/model.py")
    return root
