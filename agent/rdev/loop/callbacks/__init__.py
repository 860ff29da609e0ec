"""Callbacks that many trainings want; each runs in a `Loop`, a tracked loop, and any guest."""

from __future__ import annotations

from rdev.loop.callbacks.checkpoint import Checkpoint
from rdev.loop.callbacks.early import EarlyStop
from rdev.loop.callbacks.guard import GuardError
from rdev.loop.callbacks.nan import NanGuard
from rdev.loop.callbacks.norms import Norms
from rdev.loop.callbacks.progress import ProgressLine
from rdev.loop.callbacks.rows import Csv
from rdev.loop.callbacks.spike import SpikeGuard
from rdev.loop.callbacks.tensorboard import TensorBoard
from rdev.loop.callbacks.throughput import Throughput

__all__ = [
    "Checkpoint",
    "Csv",
    "EarlyStop",
    "GuardError",
    "NanGuard",
    "Norms",
    "ProgressLine",
    "SpikeGuard",
    "TensorBoard",
    "Throughput",
]
