"""What a check of a machine found, and its form on the wire."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from rdev.v1 import agent_pb2


@dataclass(frozen=True, slots=True)
class Finding:
    """The outcome of one check.

    Attributes:
        what: What was looked at.
        found: What was found.
        ok: Nothing needs to be done.
        remedy: What to do otherwise.
    """

    what: str
    found: str
    ok: bool = True
    remedy: str = ""

    def as_json(self) -> dict[str, Any]:
        """The finding as `--json` prints it."""
        return asdict(self)


def finding_to_proto(finding: Finding) -> agent_pb2.Finding:
    """The message for `finding`."""
    return agent_pb2.Finding(
        what=finding.what, found=finding.found, ok=finding.ok, remedy=finding.remedy
    )


def finding_from_proto(message: agent_pb2.Finding) -> Finding:
    """The inverse of `finding_to_proto`."""
    return Finding(message.what, message.found, message.ok, message.remedy)
