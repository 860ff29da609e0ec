"""What is edited here is what lies there."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

from tests.support.sync import Host, content_of, sync


async def test_a_first_copy_is_the_laptops_tree(host: Host, laptop: Path):
    receipt = await sync(host, laptop)
    assert content_of(host.folder) == content_of(laptop)
    # The executable bit travels; other bits, setuid first of all, do not.
    assert (host.folder / "pkg" / "run.sh").stat().st_mode & 0o7777 == 0o700
    assert (host.folder / "train.py").stat().st_mode & 0o7777 == 0o600
    assert (receipt.written, receipt.deleted, receipt.entries) == (5, 0, 5)
    assert receipt.folder == str(host.folder)
    assert f"snapshot {receipt.snapshot.hex()[:4]}" in str(receipt)


async def test_nothing_to_do_sends_nothing_and_names_the_same_snapshot(host: Host, laptop: Path):
    first = await sync(host, laptop)
    second = await sync(host, laptop)
    assert (second.written, second.deleted, second.bytes) == (0, 0, 0)
    assert second.snapshot == first.snapshot


async def test_an_edit_sends_that_file_alone(host: Host, laptop: Path):
    await sync(host, laptop)
    (laptop / "train.py").write_text("print(2)\n")
    receipt = await sync(host, laptop)
    assert (receipt.written, receipt.bytes) == (1, 9)
    assert (host.folder / "train.py").read_text() == "print(2)\n"


async def test_a_renamed_folder_sends_no_content(host: Host, laptop: Path):
    (laptop / "pkg" / "table.bin").write_bytes(os.urandom(400_000))
    await sync(host, laptop)
    (laptop / "pkg").rename(laptop / "package")
    receipt = await sync(host, laptop)
    assert receipt.bytes == 0
    assert content_of(host.folder) == content_of(laptop)


async def test_large_and_incompressible_files_arrive(host: Host, laptop: Path):
    (laptop / "noise.bin").write_bytes(os.urandom(5 << 20))
    (laptop / "zeros.bin").write_bytes(bytes(9 << 20))
    (laptop / "text.txt").write_text("".join(f"line {n}\n" for n in range(400_000)))
    (laptop / "empty").write_bytes(b"")
    await sync(host, laptop)
    assert content_of(host.folder) == content_of(laptop)


async def test_kinds_that_change_into_one_another(host: Host, laptop: Path):
    (laptop / "a").mkdir()
    (laptop / "a" / "inner").write_text("1")
    (laptop / "b").write_text("2")
    (laptop / "c").symlink_to("b")
    await sync(host, laptop)
    (laptop / "a" / "inner").unlink()
    (laptop / "a").rmdir()
    (laptop / "a").write_text("file now")
    (laptop / "b").unlink()
    (laptop / "b").mkdir()
    (laptop / "b" / "x").write_text("3")
    (laptop / "c").unlink()
    (laptop / "c").write_text("no link")
    receipt = await sync(host, laptop)
    assert content_of(host.folder) == content_of(laptop)
    assert receipt.problems == ()


async def test_an_edit_of_equal_size_in_the_same_second_never_runs_its_old_bytecode(
    host: Host, laptop: Path
):
    module = laptop / "answer.py"
    now = time.time_ns()
    environment = {key: value for key, value in os.environ.items() if "PYTHON" not in key}
    for number in range(3, 7):
        module.write_text(f"ANSWER = {number}\n")
        os.utime(module, ns=(now, now))
        await sync(host, laptop)
        assert not list((host.folder / "__pycache__").glob("answer.*.pyc"))
        done = subprocess.run(
            [sys.executable, "-c", "import answer; print(answer.ANSWER)"],
            cwd=host.folder,
            capture_output=True,
            check=True,
            text=True,
            env=environment,
        )
        assert done.stdout == f"{number}\n"
        assert list((host.folder / "__pycache__").glob("answer.*.pyc"))


async def test_bytecode_that_a_running_process_writes_late_is_not_believed(
    host: Host, laptop: Path
):
    module = laptop / "answer.py"
    now = time.time_ns()
    module.write_text("ANSWER = 1\n")
    os.utime(module, ns=(now, now))
    await sync(host, laptop)
    program = [sys.executable, "-c", "import answer; print(answer.ANSWER)"]
    environment = {key: value for key, value in os.environ.items() if "PYTHON" not in key}
    options = {"cwd": host.folder, "env": environment, "text": True}
    subprocess.run(program, check=True, capture_output=True, **options)
    (cached,) = (host.folder / "__pycache__").glob("answer.*.pyc")
    late = cached.read_bytes()
    module.write_text("ANSWER = 2\n")
    os.utime(module, ns=(now, now))
    await sync(host, laptop)
    cached.write_bytes(late)
    done = subprocess.run(program, check=True, capture_output=True, **options)
    assert done.stdout == "2\n"
