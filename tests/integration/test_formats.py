"""Job directories of other releases: earlier ones are read, later ones are left alone."""

import json
import tarfile
from pathlib import Path

import pytest
from tests.support.jobs import jobs_in

from rdev.wire.blocks import write_block
from rdev.wire.files import JobFiles
from rdev.wire.job import JobState, Reason

FROZEN = Path(__file__).parent.parent / "fixtures" / "jobs"
SETS = sorted(path.name.removesuffix(".tar.xz") for path in FROZEN.glob("*.tar.xz"))

ENDS = {
    "succeeded": (JobState.SUCCEEDED, Reason.EXITED, 0),
    "failed": (JobState.FAILED, Reason.EXITED, 3),
    "absent": (JobState.FAILED, Reason.START_FAILED, 127),
    "stopped": (JobState.CANCELLED, Reason.STOPPED, 143),
    "lost": (JobState.LOST, Reason.KEEPER_LOST, None),
    "events": (JobState.SUCCEEDED, Reason.EXITED, 0),
    "full": (JobState.SUCCEEDED, Reason.EXITED, 0),
}
NEWER = {
    "terminal": (JobState.SUCCEEDED, Reason.EXITED, 0),
    "retried": (JobState.SUCCEEDED, Reason.EXITED, 0),
}


@pytest.fixture(params=SETS)
def frozen(request, tmp_path):
    with tarfile.open(FROZEN / f"{request.param}.tar.xz") as archive:
        archive.extractall(tmp_path, filter="data")
    return tmp_path / "jobs"


def test_there_is_something_frozen():
    assert "format-1-first" in SETS


async def test_jobs_of_an_earlier_release_are_listed_read_and_removed(frozen):
    async with jobs_in(frozen) as jobs:
        listed = {job.name: job for job in await jobs.manager.list(ended=True)}
        ends = {n: (job.state, job.reason, job.exit_code) for n, job in listed.items()}
        assert ends == ENDS | {name: NEWER[name] for name in NEWER if name in listed}
        printed = await jobs.printed(listed["succeeded"])
        assert (printed.stdout, printed.stderr) == ("out\ngröße\n".encode(), b"err\n")
        assert (await jobs.printed(listed["lost"])).stdout == b"hello\ngoodbye\n"
        assert "unable to execute no-such-command" in listed["absent"].message
        if "retried" in listed:
            assert [attempt.exit_code for attempt in listed["retried"].attempts] == [1]
            assert (await jobs.printed(listed["retried"])).stdout == b"once\ntwice\n"
            assert (await jobs.printed(listed["terminal"])).stdout == b"on a terminal\r\n"
        for job in listed.values():
            await jobs.manager.delete(job.id)
    assert list(frozen.iterdir()) == []


async def test_a_gap_of_an_earlier_release_is_exact(frozen):
    async with jobs_in(frozen) as jobs:
        (job,) = (job for job in await jobs.manager.list(ended=True) if job.name == "full")
        printed = await jobs.printed(job)
    lost = sum(piece.length for piece in printed.lost)
    assert lost > 0
    assert len(printed.stdout) + len(printed.stderr) + lost == 3_000_001 + len("the end\n")


async def test_events_of_an_earlier_release_are_there(frozen):
    async with jobs_in(frozen) as jobs:
        (job,) = (job for job in await jobs.manager.list(ended=True) if job.name == "events")
        lines = Path(jobs.files(job).events).read_text().splitlines()
    assert [json.loads(line)["kind"] for line in lines].count("metric") == 3


@pytest.mark.parametrize("part", ["spec.json", "state"])
async def test_a_job_of_a_later_release_is_left_alone_with_a_warning(frozen, caplog, part):
    (directory,) = (
        path for path in frozen.iterdir() if '"succeeded"' in (path / "spec.json").read_text()
    )
    make_later(directory, part)
    before = snapshot(directory)
    async with jobs_in(frozen) as jobs:
        assert "succeeded" not in {job.name for job in await jobs.manager.list(ended=True)}
        await jobs.manager.delete(directory.name)
        for job in await jobs.manager.list(ended=True):
            await jobs.manager.delete(job.id)
    assert "is of a format that this release does not know" in caplog.text
    assert snapshot(directory) == before


def make_later(directory: Path, part: str) -> None:
    if part == "spec.json":
        path = directory / part
        path.write_text(json.dumps({**json.loads(path.read_text()), "format": 2}))
    else:
        write_block(JobFiles(str(directory)).state, {"format": 2, "phase": "done"})


def snapshot(directory: Path) -> dict[str, bytes]:
    files = (path for path in directory.rglob("*") if path.is_file())
    return {str(path.relative_to(directory)): path.read_bytes() for path in files}
