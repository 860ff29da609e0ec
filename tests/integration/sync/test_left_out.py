"""What is not sent, or not without a question: secrets, problems, most files gone."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from tests.support.sync import Host, content_of, sync, workspace_at

from rdev.client.sync.sender import WorkspaceSync
from rdev.client.workspaces import RemoteEndpoint
from rdev.protocol.errors import MassDeletion
from rdev.protocol.exchange import UNASKED, Needs
from rdev.v1 import workspace_pb2_grpc


async def test_secrets_are_not_sent_and_are_named(host: Host, laptop: Path):
    (laptop / ".env").write_text("TOKEN=1")
    (laptop / "pkg" / "server.pem").write_text("key")
    (laptop / "id_ed25519").write_text("key")
    (laptop / "id_map.py").write_text("source")
    (laptop / ".aws").mkdir()
    (laptop / ".aws" / "credentials").write_text("key")
    receipt = await sync(host, laptop)
    secret = {".env", ".aws", "id_ed25519", "pkg/server.pem"}
    assert set(receipt.secrets) == secret
    assert "not sent, may hold secrets" in str(receipt)
    assert not secret & set(content_of(host.folder))
    assert (host.folder / "id_map.py").exists()
    (laptop / ".rdevignore").write_text("!.env\n")
    assert ".env" not in (await sync(host, laptop)).secrets
    assert (host.folder / ".env").read_text() == "TOKEN=1"


async def test_problem_files_are_named_and_do_not_stop_the_rest(host: Host, laptop: Path):
    (laptop / "out").symlink_to("/etc/passwd")
    os.mkfifo(laptop / "pipe")
    with open(laptop / "huge.bin", "wb") as file:
        file.truncate((50 << 20) + 1)
    receipt = await sync(host, laptop)
    kinds = {each.path: each.kind for each in receipt.problems}
    assert kinds == {"out": "LINK_OUTSIDE", "pipe": "SPECIAL", "huge.bin": "TOO_LARGE"}
    assert (host.folder / "train.py").exists()
    assert "huge.bin: not synced" in str(receipt)


_AS_ANOTHER_USER = """
import asyncio, os, sys
from pathlib import Path
from tests.support.sync import serving, workspace_at
from rdev.client.workspaces import sync_workspace
async def warm(base):
    # Loads what is imported late: the other user may not be able to read this Python.
    async with serving(base / "warm") as host:
        await sync_workspace(host, workspace_at(base / "project"))
async def main(base):
    async with serving(base / "home") as host:
        root = base / "project"
        one = await sync_workspace(host, workspace_at(root))
        os.chmod(root / "locked.py", 0)
        (root / "open.py").write_text("2")
        two = await sync_workspace(host, workspace_at(root))
        assert one.problems == (), one
        assert [(p.path, p.kind) for p in two.problems] == [("locked.py", "UNREADABLE")], two
        assert (host.folder / "locked.py").read_text() == "1"
        assert (host.folder / "open.py").read_text() == "2"
base = Path(sys.argv[1])
asyncio.run(warm(base))
for path in [base, *base.rglob("*")]:
    os.chown(path, 65534, 65534, follow_symlinks=False)
os.setgid(65534); os.setuid(65534)
asyncio.run(main(base))
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="drops from root to another user")
def test_an_unreadable_file_is_named_and_stays_on_the_host():
    with tempfile.TemporaryDirectory() as name:
        base = Path(name)
        (base / "project").mkdir()
        for file in ("locked.py", "open.py"):
            (base / "project" / file).write_text("1")
        environment = {
            **os.environ,
            "XDG_CACHE_HOME": str(base / "cache"),
            "XDG_STATE_HOME": str(base / "state"),
            "HOME": str(base),
        }
        done = subprocess.run(
            [sys.executable, "-c", _AS_ANOTHER_USER, str(base)],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr


async def test_a_file_that_never_holds_still_is_left_out_and_named(host: Host, laptop: Path):
    await sync(host, laptop)

    class Saving(RemoteEndpoint):
        """Somebody saves whenever the file has been announced and not yet been read."""

        async def needs(self) -> Needs:
            with open(laptop / "train.py", "a") as file:
                file.write("# more\n")
            return await super().needs()

    def connect() -> Saving:
        return Saving(workspace_pb2_grpc.WorkspaceServiceStub(host.channel))

    (laptop / "train.py").write_text("start\n")
    (laptop / "large.bin").write_bytes(os.urandom(UNASKED + 1))  # large enough to ask for needs
    async with WorkspaceSync(workspace_at(laptop), connect) as syncing:
        receipt = await syncing.sync()
    assert [(each.path, each.kind) for each in receipt.problems] == [("train.py", "CHANGING")]
    assert (host.folder / "train.py").read_text() == "import pkg.model\n"
    assert (host.folder / "large.bin").read_bytes() == (laptop / "large.bin").read_bytes()


async def test_most_files_gone_is_asked_about(host: Host, laptop: Path):
    for number in range(150):
        (laptop / f"f{number}").write_text(str(number))
    await sync(host, laptop)
    for number in range(150):
        (laptop / f"f{number}").unlink()
    with pytest.raises(MassDeletion):
        await sync(host, laptop)
    assert (host.folder / "f7").exists()
    asked = []
    await sync(host, laptop, confirm=lambda question: asked.append(question) or True)
    assert len(asked) == 1
    assert content_of(host.folder) == content_of(laptop)


async def test_an_emptied_root_is_asked_about(host: Host, laptop: Path):
    await sync(host, laptop)
    subprocess.run(["find", str(laptop), "-mindepth", "1", "-delete"], check=True)
    with pytest.raises(MassDeletion):
        await sync(host, laptop)
    assert (host.folder / "train.py").exists()
