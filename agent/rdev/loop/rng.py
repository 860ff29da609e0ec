"""The random numbers of a process: python's, numpy's, torch's and those of its CUDA devices."""

from __future__ import annotations

import random
import sys
from typing import Any

RandomState = dict[str, Any]


def capture() -> RandomState:
    """Where every generator of the process stands; of libraries that have been imported."""
    state: RandomState = {"python": random.getstate()}
    numpy, torch = sys.modules.get("numpy.random"), sys.modules.get("torch")
    if numpy is not None:
        state["numpy"] = numpy.get_state(legacy=False)
    if torch is not None:
        state["torch"] = torch.get_rng_state()
        # Asking for a device's state would make a context on it, which takes its memory.
        if torch.cuda.is_available() and torch.cuda.is_initialized():
            state["cuda"] = torch.cuda.get_rng_state_all()
    return state


def restore(state: RandomState) -> None:
    """Puts every generator back to where it stood.

    Raises:
        ValueError: It was taken with more CUDA devices than there are.
    """
    random.setstate(state["python"])
    numpy, torch = sys.modules.get("numpy.random"), sys.modules.get("torch")
    if numpy is not None and "numpy" in state:
        numpy.set_state(state["numpy"])
    if torch is None:
        return
    if "torch" in state:
        torch.set_rng_state(state["torch"])
    if "cuda" in state:
        devices = torch.cuda.device_count()
        if len(state["cuda"]) > devices:
            raise ValueError(f"{len(state['cuda'])} CUDA devices then, {devices} now")
        torch.cuda.set_rng_state_all(state["cuda"])


def mixed(*parts: int) -> int:
    """A number of 63 bits that is a pure function of these, the same on every machine."""
    import hashlib  # With OpenSSL's it takes longer to import than all the rest of the loop.

    text = ",".join(map(str, parts)).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big") >> 1


def seed_host(seed: int) -> None:
    """Seeds the generators that draw on the CPU; CUDA's stay where they are.

    Args:
        seed: At most 63 bits.
    """
    random.seed(seed)
    numpy, torch = sys.modules.get("numpy.random"), sys.modules.get("torch")
    if numpy is not None:
        # One word, for with the same two it would draw the same numbers as python's.
        numpy.seed(seed & 0xFFFFFFFF)
    if torch is not None:
        torch.default_generator.manual_seed(seed)


def host_states() -> tuple[Any, ...]:
    """Where the generators that draw on the CPU stand."""
    numpy, torch = sys.modules.get("numpy.random"), sys.modules.get("torch")
    return (
        random.getstate(),
        None if numpy is None else numpy.get_state(),
        None if torch is None else torch.default_generator.get_state(),
    )


def put_host_states(states: tuple[Any, ...]) -> None:
    """Puts those back that `host_states` gave."""
    python, numpy, torch = states
    random.setstate(python)
    if numpy is not None:
        sys.modules["numpy.random"].set_state(numpy)
    if torch is not None:
        sys.modules["torch"].default_generator.set_state(torch)
