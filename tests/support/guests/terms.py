"""The terms of the training that every guest does, and who the guests are."""

from __future__ import annotations

SAMPLES = 64
FEATURES = 8
CLASSES = 4
BATCH = 8
EPOCHS = 3
STEPS = EPOCHS * SAMPLES // BATCH
LR = 0.2
GAMMA = 0.95  # the rate falls by this much with every step
# A rate that no schedule of the training reaches, so that an edit that is lost is seen.
EDITED = 1.5

# Each tuple shares a process, because what they import takes seconds; with the packages whose
# versions are told.
PROCESSES = {
    ("loop", "ignite"): "pytorch-ignite",
    ("lightning", "lightning_manual"): "lightning",
    ("transformers",): "transformers",
    ("keras",): "keras",
    ("skorch",): "skorch",
    ("catalyst",): "catalyst",
    ("fastai",): "fastai",
    ("mmengine",): "mmengine",
}
GUESTS = [host for members in PROCESSES for host in members if host != "loop"]

# Those that accumulate gradients by themselves, and divide each loss by their number.
ACCUMULATING = {"lightning", "transformers", "mmengine"}

# What has to come of what only one library does, see `tests.support.guests.extras`.
EXTRAS = {
    "ignite": {
        "rates": [8.0, 7.0, 6.0, 50.0, 40.0, 30.0],
        "again": "this trainer has been joined before",
    },
    "keras": {"rates": [0.5, 0.5, 0.5, 0.25], "iterations": [1, 2, 2, 3]},
    "skorch": {"runs": 3, "is_open": False},
    "fastai": {"runs": 1, "has_ours": False, "trains_again": True},
}
