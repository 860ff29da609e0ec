"""The machine's GPUs: what NVML says of them, and which of them a job may claim; nothing is kept.

A GPU is free if no process computes on it and no live job has claimed it. NVML shows the processes
of all users, but a job that has only just been started is none yet: that is what claims are for.
"""

from __future__ import annotations

import contextlib
import os
import pwd
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from rdev.protocol.errors import InvalidRequest
from rdev.wire.job import ONE_PER_GPU, Gpu, GpuRequest, JobSpec

VISIBLE_VARIABLE = "CUDA_VISIBLE_DEVICES"

# A person reads why a job waits in one line.
_MOST_NAMED = 8


class GpusUnknownError(Exception):
    """NVML does not answer; says why, and what to do about it."""

    def __init__(self, cause: str, hint: str = "") -> None:
        self.cause = cause
        self.hint = hint or "run `nvidia-smi` on the host; it asks the same library"
        super().__init__(cause)


@dataclass(frozen=True, slots=True)
class Holder:
    """A process that computes on a GPU; name and user are empty where they cannot be seen."""

    pid: int
    name: str = ""
    user: str = ""
    memory: int = 0

    def __str__(self) -> str:
        about = f"pid {self.pid}, user {self.user}" if self.user else f"pid {self.pid}"
        return f"{self.name or 'a process'} ({about})"


@dataclass(frozen=True, slots=True)
class Device:
    """A GPU and who computes on it."""

    gpu: Gpu
    holders: tuple[Holder, ...] = ()


class Nvml:
    """NVIDIA's management library, loaded when it is first asked. Its methods block.

    It is kept open between two looks and closed by `close`: where no other process has the driver
    open, every opening sets up the GPUs anew, which takes seconds.
    """

    def __init__(self) -> None:
        self._library: Any = None

    def look(self) -> tuple[Device, ...]:
        """All GPUs of the machine, in the order of the PCI bus, as `nvidia-smi` counts them.

        Raises:
            GpusUnknownError: There is no driver, or it does not answer.
        """
        library = self._library or _opened()
        self._library = library
        try:
            count = library.nvmlDeviceGetCount()
            return tuple(_device(library, index) for index in range(count))
        except library.NVMLError as error:
            self.close()
            raise GpusUnknownError(f"the NVIDIA driver says: {error}") from error

    def close(self) -> None:
        """Lets go of the driver; the next look opens it again."""
        library, self._library = self._library, None
        if library is not None:
            with contextlib.suppress(library.NVMLError):
                library.nvmlShutdown()


def _opened() -> Any:  # noqa: ANN401  # a module without types
    try:
        import pynvml
    except ImportError as error:
        hint = "install it into the agent's environment: pip install 'rdev[agent]'"
        raise GpusUnknownError("the agent has no nvidia-ml-py", hint) from error
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        absent = (pynvml.NVML_ERROR_LIBRARY_NOT_FOUND, pynvml.NVML_ERROR_DRIVER_NOT_LOADED)
        if error.value in absent:
            hint = "run it without --gpus, or on a host that has some: -H HOST"
            raise GpusUnknownError("the machine has no NVIDIA driver", hint) from error
        raise GpusUnknownError(f"the NVIDIA driver says: {error}") from error
    return pynvml


def _device(library: Any, index: int) -> Device:  # noqa: ANN401  # a module without types
    handle = library.nvmlDeviceGetHandleByIndex(index)
    gpu = Gpu(index, library.nvmlDeviceGetUUID(handle), library.nvmlDeviceGetName(handle))
    # Not those that only draw: a display has every GPU of a workstation open, and computes nothing.
    found = library.nvmlDeviceGetComputeRunningProcesses(handle)
    return Device(gpu, tuple(_holder(process.pid, process.usedGpuMemory or 0) for process in found))


def _holder(pid: int, memory: int) -> Holder:
    """What /proc says of it; in a container NVML's ids may be those of the machine outside."""
    try:
        with open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as file:
            name = file.read().strip()
        uid = os.stat(f"/proc/{pid}").st_uid
    except OSError:
        return Holder(pid, memory=memory)
    try:
        return Holder(pid, name, pwd.getpwuid(uid).pw_name, memory)
    except KeyError:
        return Holder(pid, name, str(uid), memory)


def allowed(devices: Sequence[Device], visible: str | None) -> tuple[Device, ...]:
    """Those that an inherited CUDA_VISIBLE_DEVICES allows, in the machine's order.

    Args:
        devices: All of the machine.
        visible: The variable's value: indices, or UUIDs or their beginnings; None allows all. As
            CUDA reads it, the first word that names no GPU ends the list.
    """
    if visible is None:
        return tuple(devices)
    named: set[str] = set()
    for word in visible.split(","):
        found = _named(devices, word.strip())
        if found is None:
            break
        named.add(found.gpu.uuid)
    return tuple(device for device in devices if device.gpu.uuid in named)


def wants_gpus(spec: JobSpec) -> bool:
    """True if a job has to claim GPUs before it starts."""
    return spec.gpus is not None or spec.processes == ONE_PER_GPU


def settled(spec: JobSpec, devices: Sequence[Device], visible: str | None) -> JobSpec:
    """The specification with the GPUs that it can have at best.

    Args:
        spec: What was asked for: some GPUs, all of them, or just a process for each.
        devices: All of the machine.
        visible: See `allowed`.

    Raises:
        InvalidRequest: The machine does not have them, or the login may not use them.
    """
    usable = allowed(devices, visible)
    wanted = spec.gpus or GpuRequest()
    if not wanted.count and not wanted.devices:
        wanted = GpuRequest(count=len(usable))
    if not wanted.devices:
        _require_count(wanted.count, len(usable), len(devices))
        return replace(spec, gpus=wanted)
    uuids = [_require(word, devices, usable).gpu.uuid for word in wanted.devices]
    return replace(spec, gpus=GpuRequest(devices=tuple(dict.fromkeys(uuids))))


def _require_count(count: int, usable: int, present: int) -> None:
    if 0 < count <= usable:
        return
    action = f"give the job {_so_many(count)}" if count else "give the job GPUs"
    cause = f"the machine has {present or 'none'}"
    if usable < present:
        cause = f"{VISIBLE_VARIABLE} of the login allows {usable or 'none'} of {present}"
    raise InvalidRequest(action, cause, hint="ask for fewer, or for none")


def _require(word: str, devices: Sequence[Device], usable: Sequence[Device]) -> Device:
    found = _named(devices, word)
    if found is None:
        cause = f"the machine has {len(devices)}: {', '.join(str(d.gpu.index) for d in devices)}"
        hint = "name GPUs by index or UUID, as `nvidia-smi -L` lists them"
        raise InvalidRequest(f"give the job GPU {word}", cause, hint=hint)
    if found not in usable:
        cause = f"{VISIBLE_VARIABLE} of the login does not allow it"
        raise InvalidRequest(f"give the job GPU {word}", cause, hint="ask for another one")
    return found


def _named(devices: Iterable[Device], word: str) -> Device | None:
    """The GPU of that index or UUID, or the only one whose UUID begins so."""
    if word.isdecimal():
        return next((device for device in devices if device.gpu.index == int(word)), None)
    found = [d for d in devices if word.startswith("GPU-") and d.gpu.uuid.startswith(word)]
    return found[0] if len(found) == 1 else None


def candidates(request: GpuRequest, usable: Sequence[Device]) -> tuple[Device, ...]:
    """The GPUs that would do for a request."""
    if not request.devices:
        return tuple(usable)
    return tuple(device for device in usable if device.gpu.uuid in request.devices)


def choose(
    request: GpuRequest, usable: Sequence[Device], taken: Mapping[str, str]
) -> tuple[Gpu, ...] | str:
    """The GPUs for a request, or why there are not enough now.

    Args:
        request: A settled request.
        usable: The GPUs that the login may use.
        taken: By UUID, what stands in the way of a claim, such as `by the job train`.
    """
    wanted = request.count or len(request.devices)
    found = candidates(request, usable)
    free = [device.gpu for device in found if not device.holders and device.gpu.uuid not in taken]
    if len(free) >= wanted:
        return tuple(free[:wanted])
    busy = [device for device in found if device.gpu not in free]
    reasons = [f"GPU {device.gpu.index} {_held(device, taken)}" for device in busy[:_MOST_NAMED]]
    if len(busy) > _MOST_NAMED:
        reasons.append(f"{len(busy) - _MOST_NAMED} more are held")
    if len(found) < wanted:
        reasons.append(f"the machine shows {len(found) or 'none'}")
    return f"waits for {_so_many(wanted)}: {', '.join(reasons)}"


def _held(device: Device, taken: Mapping[str, str]) -> str:
    claim = taken.get(device.gpu.uuid)
    if claim is not None:
        return claim
    more = f" and {len(device.holders) - 1} more" if len(device.holders) > 1 else ""
    return f"is held by {device.holders[0]}{more}"


def _so_many(count: int) -> str:
    return f"{count} GPU" if count == 1 else f"{count} GPUs"
