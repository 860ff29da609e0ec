"""A batch written to disk, to be looked at when the training is over."""

from __future__ import annotations

import os
import pickle
import sys
from collections.abc import Mapping
from typing import Any


def keep(batch: object, stem: str, facts: Mapping[str, object]) -> str:
    """Writes a batch and what is known of it; whole or not at all.

    Args:
        batch: Anything that can be pickled; tensors are written as they would be on the CPU.
        stem: The path without its ending: `.pt` for `torch.load`, or `.pickle` without torch.
        facts: Written beside `batch` in one dictionary.

    Returns:
        The absolute path.

    Raises:
        OSError: There is no room, or no permission.
        Exception: What pickle raises of a batch that cannot be pickled.
    """
    torch = sys.modules.get("torch")
    path = os.path.abspath(f"{stem}.{'pickle' if torch is None else 'pt'}")
    os.makedirs(os.path.dirname(path), exist_ok=True)
    beside = f"{path}.new"
    body = {**facts, "batch": _own(batch)}
    try:
        with open(beside, "wb") as file:
            if torch is None:
                pickle.dump(body, file)
            else:
                torch.save(body, file)
        os.replace(beside, path)
    except BaseException:
        if os.path.exists(beside):
            os.unlink(beside)
        raise
    return path


def _own(value: Any) -> Any:  # noqa: ANN401  # anything at all
    """The same with tensors that share no memory: of a slice, torch would write all it is of."""
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(value, torch.Tensor):
        return value.detach().cpu().clone()
    if isinstance(value, dict):
        return {key: _own(one) for key, one in value.items()}
    if type(value) in (list, tuple):
        return type(value)(_own(one) for one in value)
    return value
