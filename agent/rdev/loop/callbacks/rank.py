"""Which of a job's ranks this process is."""

from __future__ import annotations

import os


def rank_of_process() -> int:
    """This process's rank, as its launcher says; 0 without one."""
    rank = os.environ.get("RANK", "")
    return int(rank) if rank.isdigit() else 0
