"""Keeps out of a terminal what a job's output has no business to send there.

    TEXT --ESC ] P X ^ _ k, or their C1 forms--> STRING (swallowed) --its end--> TEXT

What a job prints may come from anywhere: a title, the clipboard, a link that is not what it says, a
question that the terminal answers into the person's shell. A string without an end is given up at
the end of its line (a DCS, which may have lines, after 64 KiB), so nothing hides the rest for ever.

The sequences are those of ECMA-48 and of xterm's ctlseqs; how they end early is as in xterm.
"""

from __future__ import annotations

import enum
import re


class Passing(enum.Enum):
    """Which control sequences reach the terminal; strings (titles, clipboard, links) never do."""

    PLAIN = "plain"
    """Colours, cursor movement, erasing: for a job without a terminal, which hears no answers."""
    LINE = "line"
    """Colours and erasing in the line: for one of several outputs that share a terminal."""
    PROGRAM = "program"
    """All: for a job that has this terminal, while it runs there."""
    REPLAY = "replay"
    """All but questions: for what such a job printed earlier, since nobody waits for answers."""


# How much of an unfinished string or sequence is kept back at most, in bytes.
_LONGEST_STRING = 64 << 10
_LONGEST_SEQUENCE = 128

# Whatever has none of these needs no look.
_SPECIAL = re.compile(rb"[\x05\x1b\x80-\x9f]")

# Characters that do nothing, and colours, of which there are many. Those of UTF-8 are taken whole:
# their later bytes look like C1 controls. One that breaks off early is nonsense and shown as such;
# \xc2 may begin a C1 control in UTF-8.
_TEXT = re.compile(
    rb"(?:[\x00-\x04\x06-\x1a\x1c-\x7f]++|\x1b\[[0-9;:]*+m"
    rb"|[\xc3-\xdf][\x80-\xbf]?|[\xe0-\xef][\x80-\xbf]{0,2}"
    rb"|[\xf0-\xf4][\x80-\xbf]{0,3}|\xc2(?![\x80-\x9f]|\Z)|[\xa0-\xc1\xf5-\xff])*+"
)
# A character that the end of the chunk cuts.
_CUT = re.compile(rb"[\xc3-\xf4]|[\xe0-\xf4][\x80-\xbf]|[\xf0-\xf4][\x80-\xbf]{2}")
_LATER = re.compile(rb"[\x80-\xbf]+")

_CSI = re.compile(rb"\x1b\[([<-?]*)([0-;]*)([ -/]*)([@-~])")
_CSI_BEGUN = re.compile(rb"\x1b\[[0-?]*[ -/]*")
_CSI_C1 = re.compile(rb"(?:\x9b|\xc2\x9b)[0-?]*[ -/]*(?P<end>[@-~])?")
_ESCAPE = re.compile(rb"\x1b[ -/]*([0-~])")
_ESCAPE_BEGUN = re.compile(rb"\x1b[ -/]*")

_STRINGS = b"]PX^_k"
_C1_STRINGS = {0x9D: ord("]"), 0x90: ord("P"), 0x98: ord("X"), 0x9E: ord("^"), 0x9F: ord("_")}
_C1_ASKS_WHO = 0x9A
_ENQUIRY = 0x05

# What a line of ours spells out: control characters, and those that end lines or turn them around.
_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")

# Where a string ends, or is given up: BEL ends an OSC, a newline everything but a DCS.
_ENDS = {
    kind: re.compile(rb"[\x18\x1a\x1b%s]|\xc2\x9c" % more)
    for kind, more in (
        (ord("]"), rb"\x07\n"),
        (ord("P"), rb""),
        *((kind, rb"\n") for kind in b"X^_k"),
    )
}
_C1_ENDS = {
    kind: re.compile(ends.pattern.replace(rb"[\x18", rb"[\x9c\x18")) for kind, ends in _ENDS.items()
}

# PLAIN lets these through: erasing, colours, cursor movement and its saving, scrolling, inserting.
_PLAIN_FINALS = b"@ABCDEFGHIJKLMPSTXZ`adefmrsu"
# These of the private modes: autowrap, cursor shown, drawing in one go.
_PLAIN_MODES = frozenset({b"7", b"25", b"2026"})

# These escapes of two bytes: saving the cursor, line feeds, the end of a string.
_PLAIN_ESCAPES = frozenset({b"7", b"8", b"D", b"E", b"M", b"\\"})

# What makes a terminal send something: (prefix, intermediates) of each final byte.
_QUESTIONS: dict[bytes, frozenset[tuple[bytes, bytes]]] = {
    b"c": frozenset({(b"", b""), (b">", b""), (b"=", b""), (b"?", b"")}),
    b"n": frozenset({(b"", b""), (b"?", b"")}),
    b"x": frozenset({(b"", b"")}),
    b"q": frozenset({(b">", b"")}),
    b"p": frozenset({(b"", b"$"), (b"?", b"$")}),
    b"u": frozenset({(b"?", b""), (b"", b"&")}),
    b"w": frozenset({(b"", b"$")}),
    b"y": frozenset({(b"", b"*")}),
    b"S": frozenset({(b"?", b"")}),
    b"R": frozenset({(b"", b"#")}),
    b"t": frozenset({(b"", b"")}),
}


def one_line(text: str) -> str:
    r"""The text with control characters spelled out, line feeds and tabs too: `\n`, `\x1b`.

    For words of a job's in a line or a table of ours: they end no line and drive no terminal.
    """
    return _UNPRINTABLE.sub(lambda match: ascii(match[0])[1:-1], text)


class EscapeFilter:
    """Filters one output; feed it in order. Bytes that are no control sequence pass as they are.

    Args:
        passing: What reaches the terminal.
    """

    def __init__(self, passing: Passing = Passing.PLAIN) -> None:
        self._passing = passing
        self._carried = b""
        self._later = 0
        self._ends: re.Pattern[bytes] | None = None
        self._swallowed = 0

    def feed(self, data: bytes) -> bytes:
        """What of `data`, and of what was kept back of earlier data, goes to the terminal."""
        data, self._carried = self._carried + data, b""
        kept: list[bytes] = []
        position = 0
        while position < len(data):
            if self._ends is not None:
                position = self._swallow(self._ends, data, position)
                continue
            position = self._text(data, position, kept)
            if position < len(data):
                position = self._control(data, position, kept)
        return b"".join(kept)

    def flush(self) -> bytes:
        """What is still kept back, where it is text; for the end of the output."""
        carried, self._carried, self._ends = self._carried, b"", None
        return carried if carried == b"\xc2" else b""

    def _text(self, data: bytes, position: int, kept: list[bytes]) -> int:
        begin = position
        if self._later:
            rest = _LATER.match(data, position, position + self._later)
            position = rest.end() if rest else position
            self._later = self._later - (position - begin) if position == len(data) else 0
        # Mostly there is nothing to look at, which is found out ten times as fast.
        has_special = _SPECIAL.search(data, position) is not None
        match = _TEXT.match(data, position) if has_special else None
        end = match.end() if match else len(data)
        if end == len(data) and not has_special and data.endswith(b"\xc2", position):
            end -= 1
        if end == len(data) and end > position:
            self._later = _lacking(data[-3:])
        kept.append(data[begin:end])
        return end

    def _control(self, data: bytes, position: int, kept: list[bytes]) -> int:
        byte = data[position]
        if byte == 0x1B:
            return self._escape(data, position, kept)
        if byte == _ENQUIRY:
            kept.append(b"\x05" if self._passing is Passing.PROGRAM else b"")
            return position + 1
        end = position + (2 if byte == 0xC2 else 1)
        if end > len(data):
            self._carried = data[position:]
            return end
        code = data[end - 1]
        if code in _C1_STRINGS:
            self._begin(_C1_STRINGS[code], is_c1=byte != 0xC2)
            return end
        if code == 0x9B:
            return self._c1_sequence(data, position)
        if code != _C1_ASKS_WHO or self._passing is Passing.PROGRAM:
            kept.append(data[position:end])
        return end

    def _escape(self, data: bytes, position: int, kept: list[bytes]) -> int:
        following = data[position + 1 : position + 2]
        if following and following in _STRINGS:
            self._begin(following[0], is_c1=False)
            return position + 2
        is_sequence = following == b"["
        match = (_CSI if is_sequence else _ESCAPE).match(data, position)
        if match is not None:
            passes = self._passes(match) if is_sequence else self._passes_escape(match)
            if passes:
                kept.append(match[0])
            return match.end()
        begun = (_CSI_BEGUN if is_sequence else _ESCAPE_BEGUN).match(data, position)
        end = begun.end() if begun else position + 1
        if end == len(data) and end - position <= _LONGEST_SEQUENCE:
            self._carried = data[position:]
        return end  # one that breaks off is left out

    def _c1_sequence(self, data: bytes, position: int) -> int:
        # Left out even where it begins no sequence: as text of another encoding it is unreadable,
        # and what follows could make it one.
        match = _CSI_C1.match(data, position)
        if match is None:
            return position + 1
        if match["end"] is None and match.end() == len(data):
            length = match.end() - position
            self._carried = data[position:] if length <= _LONGEST_SEQUENCE else b""
        return match.end()

    def _begin(self, kind: int, *, is_c1: bool) -> None:
        self._ends = (_C1_ENDS if is_c1 else _ENDS)[kind]
        self._swallowed = 0

    def _swallow(self, ends: re.Pattern[bytes], data: bytes, position: int) -> int:
        """Steps over a string, as far as it goes in these data."""
        match = ends.search(data, position)
        end = match.start() if match else len(data)
        room = _LONGEST_STRING - self._swallowed
        if end - position > room:
            self._ends = None
            return position + room
        self._swallowed += end - position
        if match is None:
            # An end of two bytes may be cut.
            if data.endswith(b"\xc2") and end > position:
                self._carried = b"\xc2"
                self._swallowed -= 1
            return end
        if match[0] == b"\x1b":
            if match.end() == len(data):
                self._carried = b"\x1b"
                return len(data)
            self._ends = None
            return match.end() + 1 if data[match.end()] == ord("\\") else match.start()
        self._ends = None
        return match.start() if match[0] == b"\n" else match.end()

    def _passes_escape(self, match: re.Match[bytes]) -> bool:
        if self._passing is Passing.PROGRAM:
            return True
        final = match[1]
        if self._passing is Passing.REPLAY:
            return final != b"Z"
        if self._passing is Passing.LINE:
            return False
        # Neither a reset nor a change of modes; a character set is what draws lines.
        return match[0][1:2] in (b"(", b")") or match[0][1:] in _PLAIN_ESCAPES

    def _passes(self, match: re.Match[bytes]) -> bool:
        if self._passing is Passing.PROGRAM:
            return True
        prefix, parameters, intermediates, final = match.groups()
        if self._passing is Passing.REPLAY:
            return (prefix, intermediates) not in _QUESTIONS.get(final, ())
        if intermediates:
            return False
        if self._passing is Passing.LINE:
            return not prefix and final in b"Km"
        if prefix:
            return prefix == b"?" and final in b"hl" and parameters in _PLAIN_MODES
        return final in _PLAIN_FINALS


def _lacking(tail: bytes) -> int:
    """How many bytes the last character of `tail` lacks."""
    for length in range(1, len(tail) + 1):
        if _CUT.fullmatch(tail[-length:]):
            lead = tail[-length]
            return (2 if lead < 0xE0 else 3 if lead < 0xF0 else 4) - length
    return 0
