"""Callbacks that many trainings want; each runs in a `Loop`, a tracked loop, and any guest."""

from __future__ import annotations

from rdev.loop.callbacks.rows import Csv
from rdev.loop.callbacks.tensorboard import TensorBoard

__all__ = ["Csv", "TensorBoard"]
