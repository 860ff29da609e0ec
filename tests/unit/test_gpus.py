"""Which GPUs a job may have; no driver is asked."""

import pytest

from rdev.agent.jobs.gpus import Device, Holder, allowed, choose, settled
from rdev.protocol.errors import InvalidRequest
from rdev.wire.job import ONE_PER_GPU, CommandKind, Gpu, GpuRequest, JobSpec

DEVICES = tuple(Device(Gpu(index, f"GPU-{index}{index}aa-bb", "Test")) for index in range(4))


def held(index, *holders):
    return Device(DEVICES[index].gpu, holders)


def spec(gpus=None, processes=0):
    return JobSpec(CommandKind.PROGRAM, "true", gpus=gpus, processes=processes)


@pytest.mark.parametrize(
    ("visible", "indices"),
    [
        (None, [0, 1, 2, 3]),
        ("", []),
        ("-1", []),
        ("2,0", [0, 2]),
        ("GPU-11aa-bb, 3", [1, 3]),
        ("GPU-2", [2]),
        ("GPU-", []),
        ("1,9,2", [1]),
        ("NoDevFiles", []),
    ],
)
def test_an_inherited_restriction_is_read_as_cuda_reads_it(visible, indices):
    assert [device.gpu.index for device in allowed(DEVICES, visible)] == indices


@pytest.mark.parametrize(
    ("wanted", "visible", "cause"),
    [
        (GpuRequest(count=5), None, "unable to give the job 5 GPUs: the machine has 4"),
        (GpuRequest(count=2), "3", "CUDA_VISIBLE_DEVICES of the login allows 1 of 4"),
        (GpuRequest(count=1), "", "CUDA_VISIBLE_DEVICES of the login allows none of 4"),
        (GpuRequest(devices=("7",)), None, "give the job GPU 7: the machine has 4: 0, 1, 2, 3"),
        (GpuRequest(devices=("2",)), "0,1", "CUDA_VISIBLE_DEVICES of the login does not allow it"),
    ],
)
def test_gpus_that_a_job_can_never_have_are_refused_in_one_line(wanted, visible, cause):
    with pytest.raises(InvalidRequest) as caught:
        settled(spec(wanted), DEVICES, visible)
    assert cause in caught.value.message


def test_named_gpus_become_uuids_and_are_counted_once():
    found = settled(spec(GpuRequest(devices=("1", "GPU-11", "3"))), DEVICES, None)
    assert found.gpus == GpuRequest(devices=("GPU-11aa-bb", "GPU-33aa-bb"))


def test_all_gpus_and_a_process_for_each_mean_all_that_the_login_may_use():
    assert settled(spec(processes=ONE_PER_GPU), DEVICES, "0,2").gpus == GpuRequest(count=2)
    assert settled(spec(GpuRequest()), DEVICES, "1").gpus == GpuRequest(count=1)
    with pytest.raises(InvalidRequest, match="the machine has none"):
        settled(spec(processes=ONE_PER_GPU), (), None)


def test_the_first_free_ones_are_chosen():
    devices = (held(0, Holder(7, "python", "bob")), *DEVICES[1:])
    taken = {DEVICES[1].gpu.uuid: "is held by the job train"}
    found = choose(GpuRequest(count=2), devices, taken)
    assert found == (DEVICES[2].gpu, DEVICES[3].gpu)


def test_a_job_that_waits_says_who_holds_what():
    devices = (held(0, Holder(123, "python", "bob"), Holder(9)), DEVICES[1])
    taken = {DEVICES[1].gpu.uuid: "is held by the job train"}
    assert choose(GpuRequest(count=2), devices, taken) == (
        "waits for 2 GPUs: GPU 0 is held by python (pid 123, user bob) and 1 more, "
        "GPU 1 is held by the job train"
    )


def test_a_process_of_another_container_is_named_by_its_number():
    found = choose(GpuRequest(devices=(DEVICES[2].gpu.uuid,)), (held(2, Holder(55)),), {})
    assert found == "waits for 1 GPU: GPU 2 is held by a process (pid 55)"
