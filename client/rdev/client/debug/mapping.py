"""Which line of the job is which line of the editor: the text that it runs against the one here.

A line that both have is one line under two numbers. One that was edited in place still is the same
line, as a person sees it; one that was put in or taken out has no counterpart on the other side.
"""

from __future__ import annotations

import bisect
import enum
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher

# A changed line that is less like the old one is another line. An edited number or name keeps far
# more than this; two unrelated statements of equal shape share about half of their characters.
_ALIKE = 0.6

# Texts that share fewer lines than this are two texts, and a line map between them would be noise.
_RECOGNIZABLE = 0.25

# difflib compares every pair of equal lines. Beyond so many pairs of lines in the part that
# changed, popular lines (blank ones, `else:`) are left out of the comparison, as is its default.
_THOROUGH_PAIRS = 4_000_000


class Kinship(enum.Enum):
    """How a line is related to the one it was mapped to."""

    SAME = "same"
    """Both texts have it."""
    EDITED = "edited"
    """It was changed in place."""
    NEAR = "near"
    """The other text does not have it; this is where it would be."""


@dataclass(frozen=True, slots=True)
class Counterpart:
    """A line of the other text, from 1."""

    line: int
    kinship: Kinship

    @property
    def is_there(self) -> bool:
        """True if the other text has the line, though perhaps in an earlier wording."""
        return self.kinship is not Kinship.NEAR


@dataclass(frozen=True, slots=True)
class _Block:
    """Lines `ours` to `ours + length` are `theirs` to `theirs + length`; counted from 0."""

    ours: int
    theirs: int
    length: int
    kinship: Kinship


class LineMap:
    """Lines of one text in another, and back.

    Args:
        job: The lines that the job runs.
        editor: The lines that the editor has.

    Attributes:
        edits: In how many places the texts differ.
        is_recognizable: The texts are versions of one file.
    """

    def __init__(self, job: Sequence[str], editor: Sequence[str]) -> None:
        blocks, self.edits = _compared(job, editor)
        self._to_editor = _Direction(blocks, len(editor))
        self._to_job = _Direction([_turned(block) for block in blocks], len(job))
        shared = sum(block.length for block in blocks if block.kinship is Kinship.SAME)
        longest = max(len(job), len(editor))
        self.is_recognizable = not self.edits or shared >= _RECOGNIZABLE * longest

    def to_editor(self, line: int) -> Counterpart:
        """The editor's line for one of the job's, both from 1."""
        return self._to_editor.of(line)

    def to_job(self, line: int) -> Counterpart:
        """The job's line for one of the editor's, both from 1."""
        return self._to_job.of(line)


class _Direction:
    """One way of a line map; `blocks` in the order of their first lines."""

    def __init__(self, blocks: Sequence[_Block], length: int) -> None:
        self._blocks = blocks
        self._starts = [block.ours for block in blocks]
        self._length = length

    def of(self, line: int) -> Counterpart:
        index = bisect.bisect_right(self._starts, line - 1) - 1
        if index < 0:
            return self._near(1)
        block = self._blocks[index]
        offset = line - 1 - block.ours
        if offset < block.length:
            return Counterpart(block.theirs + offset + 1, block.kinship)
        return self._near(block.theirs + block.length + 1)

    def _near(self, line: int) -> Counterpart:
        return Counterpart(max(1, min(line, self._length)), Kinship.NEAR)


def _turned(block: _Block) -> _Block:
    return _Block(block.theirs, block.ours, block.length, block.kinship)


def _compared(job: Sequence[str], editor: Sequence[str]) -> tuple[list[_Block], int]:
    """What the texts share, in order, and in how many places they differ."""
    shortest = min(len(job), len(editor))
    head = _run(zip(job, editor, strict=False))
    rest = zip(reversed(job), reversed(editor), strict=False)
    tail = min(_run(rest), shortest - head)
    ends = len(job) - tail, len(editor) - tail
    middle, edits = _differing(job[head : ends[0]], editor[head : ends[1]])
    blocks = [_Block(b.ours + head, b.theirs + head, b.length, b.kinship) for b in middle]
    first = [_Block(0, 0, head, Kinship.SAME)] if head else []
    last = [_Block(*ends, tail, Kinship.SAME)] if tail else []
    return [*first, *blocks, *last], edits


def _run(pairs: zip[tuple[str, str]]) -> int:
    length = 0
    for one, other in pairs:
        if one != other:
            break
        length += 1
    return length


def _differing(job: Sequence[str], editor: Sequence[str]) -> tuple[list[_Block], int]:
    blocks: list[_Block] = []
    edits = 0
    is_popular_left_out = len(job) * len(editor) > _THOROUGH_PAIRS
    matcher = SequenceMatcher(None, job, editor, autojunk=is_popular_left_out)
    for tag, i, i_end, j, j_end in matcher.get_opcodes():
        if tag == "equal":
            blocks.append(_Block(i, j, i_end - i, Kinship.SAME))
            continue
        edits += 1
        if tag == "replace":
            blocks += _edited(job, editor, (i, i_end), (j, j_end))
    return blocks, edits


def _edited(
    job: Sequence[str], editor: Sequence[str], ours: tuple[int, int], theirs: tuple[int, int]
) -> list[_Block]:
    """Lines of a changed region that are versions of each other: as many as there are, in order."""
    blocks = []
    pairs = zip(range(*ours), range(*theirs), strict=False)
    if ours[1] - ours[0] != theirs[1] - theirs[0]:
        return []  # nobody knows which became which
    for i, j in pairs:
        if _alike(job[i], editor[j]):
            blocks.append(_Block(i, j, 1, Kinship.EDITED))
    return blocks


def _alike(one: str, other: str) -> bool:
    if one.strip() == other.strip():
        return True  # only its depth changed
    matcher = SequenceMatcher(None, one.strip(), other.strip())
    return matcher.quick_ratio() >= _ALIKE and matcher.ratio() >= _ALIKE


def lines_of(content: bytes) -> list[str]:
    """The lines of a source file, as Python counts them.

    Python ends a line at CR, LF and CR LF only: `str.splitlines` would also count form feeds.
    """
    text = content.removeprefix(b"\xef\xbb\xbf").decode(errors="replace")
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    return lines[:-1] if lines and not lines[-1] else lines
