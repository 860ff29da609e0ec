"""The reckoning after a storm: every byte, every exit code, every start."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.chaos.cast import Part, received
from tests.chaos.report import Report

# What `rdev run` says of a job that failed, behind all that it printed.
_CLOSING = re.compile(rb"(\n?rdev: [^\n]*\n)?")


class Reckoning:
    """Notes in a report what is not as it should be."""

    def __init__(self, report: Report) -> None:
        self._report = report

    def of(self, parts: Sequence[Part], jobs: Sequence[dict]) -> None:
        """Compares what each part should have done with what it did; `jobs` is what `ps` lists."""
        listed = {job["name"]: job for job in jobs}
        for part in parts:
            if part.reader is None and not part.has_started and part.name not in listed:
                # The agent died before it had taken the job: nothing ran, and the person was told.
                self._report.refused += 1
                self._expect(part, part.starter.process.returncode in (125, 255), "125 or 255")
                continue
            self._report.jobs += 1
            self._reckon_job(part, listed.get(part.name, {}))

    def _reckon_job(self, part: Part, job: dict) -> None:
        self._expect(part, part.has_ended, "a job that reached its end")
        if not part.has_ended:
            return
        starts = (part.folder / "starts").read_text().count("\n")
        self._expect(part, starts == 1, f"1 start, not {starts}")
        self._expect(part, job.get("exit_code") == part.code, f"{part.code}, not {job}")
        code = part.starter.process.returncode
        self._expect(part, code == part.told, f"exit code {part.told} of its starter, not {code}")
        self._report.stalls.append(part.result["longest"])
        wanted = part.wanted()
        self._compare(part, part.folder, wanted)
        if part.feeder is not None:
            self._expect(part, part.feeder.wait() == 0, "all of its input taken")
        if part.reader is not None:
            self._compare(part, part.reader.folder, wanted)

    def _compare(self, part: Part, folder: Path, wanted: Mapping[str, tuple[int, str]]) -> None:
        for stream, (size, digest) in wanted.items():
            found, count, rest = received(folder / stream, size)
            self._report.received += count
            # Only who follows the job to its end has a last word to say.
            may_close = folder == part.folder and stream == "stderr"
            is_clean = bool(_CLOSING.fullmatch(rest)) if may_close else not rest
            is_whole = (count, found) == (size, digest) and is_clean
            self._expect(part, is_whole, f"{size} bytes as printed in {folder}/{stream}, "
                         f"not {count} and then {rest[:80]!r}")  # fmt: skip
        faults = folder / "faults"
        if faults.exists():
            self._expect(part, False, f"no {faults.read_text()}")

    def _expect(self, part: Part, condition: bool, what: str) -> None:
        if not condition:
            self._report.faults.append(f"{part.name} ({part.mode}): wanted {what}")
