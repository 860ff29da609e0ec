"""Tensors at a real stop: what the debugger shows of them, and how soon."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest
from tests.support.hooked import SessionPipe, hooked_job

from rdev.agent.debug.manager import DebugManager
from rdev.client.debug.session import Breakpoint, Stopped, debugging

# Line 11 is inside the step; the tensor is 1 GiB, and its pages are all there.
TRAIN = """\
import os
import time
import torch

def train():
    huge = torch.ones(1 << 28)
    parts = [torch.ones(1 << 20) for _ in range(50)]
    batch = {"x": torch.ones(4, 4), "name": "first"}
    step = 0
    while not os.path.exists("stop"):
        step += 1
        time.sleep(0.002)

train()
print("right")
"""
STEP = 11

# Of a frame with such tensors, and of each answer while they are opened one by one.
ANSWER_SECONDS = 0.3


@pytest.mark.slow
async def test_a_frame_that_holds_a_gibibyte_answers_at_once_and_with_one_line_each(tmp_path):
    async with (
        hooked_job(tmp_path, TRAIN) as job,
        DebugManager(job) as manager,
    ):
        async with (
            manager.session("0" * 12, 0) as session,
            debugging(SessionPipe(session)) as client,
        ):
            await client.attach([Breakpoint(str(Path(job.folder) / "train.py"), STEP)])
            async with asyncio.timeout(30):
                stop = await client.halted()
            assert isinstance(stop, Stopped)
            frame = (await client.stack(stop.thread))[0]
            began = time.monotonic()
            found = {v.name: v for v in await client.local_variables(frame)}
            took = time.monotonic() - began
            parts = await client.parts(found["parts"].reference)
            opened = await client.parts(found["huge"].reference)
            value = await client.evaluate("huge", frame)
            await client.detach()
        assert found["huge"].value == "Tensor (268435456,) float32 cpu, min ~1 max ~1"
        assert found["parts"].value.startswith("[Tensor (1048576,) float32 cpu, Tensor (")
        assert found["batch"].value == "{'x': Tensor (4, 4) float32 cpu, 'name': 'first'}"
        assert took < ANSWER_SECONDS
        shown = [v.value for v in parts if v.name.isdigit()]
        assert len(shown) == 50
        assert all(text.startswith("Tensor (1048576,) float32 cpu") for text in shown)
        assert [v.name for v in opened if v.type][:3] == ["shape", "dtype", "device"]
        assert value.value == found["huge"].value
        assert await job.end() == "right\n"
