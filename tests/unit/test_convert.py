"""Messages and dataclasses say the same."""

import pytest

from rdev.protocol.convert_job import job_from_proto, job_to_proto, spec_from_proto, spec_to_proto
from rdev.protocol.errors import InvalidRequest
from rdev.protocol.ids import JOB_NAME, job_name_from
from rdev.v1 import job_pb2
from rdev.wire.job import (
    DEFAULT_GRACE,
    Attempt,
    CommandKind,
    DebugStop,
    Gpu,
    GpuRequest,
    Job,
    JobSpec,
    JobState,
    LogFull,
    LoopPause,
    Reason,
    Stream,
    Usage,
    Window,
)


def spec(kind=CommandKind.SCRIPT, **fields):
    return JobSpec(kind, "train", ("a", "--b"), environment={"A": "1"}, **fields)


@pytest.mark.parametrize("kind", CommandKind)
@pytest.mark.parametrize("timeout", [None, 0.25, 86400.0])
def test_a_spec_survives(kind, timeout):
    before = spec(
        kind, timeout=timeout, grace=2.5, hook=False, directory="x/y", snapshot="ab",
        terminal=Window(3, 4), stdin=True, processes=-1, gpus=GpuRequest(2, ("0",)), retries=3,
        keep_children=True, log_full=LogFull.STOP, aside=True,
    )  # fmt: skip
    assert spec_from_proto(spec_to_proto(before)) == before


@pytest.mark.parametrize("state", JobState)
@pytest.mark.parametrize("reason", Reason)
def test_a_job_survives(state, reason):
    before = Job(
        "0123456789ab", "train", spec(), state, reason, exit_code=0, signal=9, pid=3, created=1.5,
        started=2.5, ended=3.5, argv=("python", "train"), directory="/x",
        streams=(Stream(0, "stdout", 1 << 40),),
        stops=(DebugStop(1, 2, "f", 3, "g", "step", 4.5),), revision=7, message="m",
        ranks=2, attempt=2, usage=Usage(1.5, 2.5, 3), gpus=(Gpu(0, "GPU-1", "H100"),),
        attempts=(Attempt(1, reason, 1, 9, 1.5, 2.5, "m", (Stream(1, "stderr", 5),)),),
        spared=("tmux: server (7)",), pauses=(LoopPause(1, 2, 3, 4, "critic", "paused", 4.5),),
    )  # fmt: skip
    assert job_from_proto(job_to_proto(before)) == before


def test_no_exit_code_is_not_zero():
    before = Job("0123456789ab", "train", spec(), JobState.RUNNING)
    assert job_from_proto(job_to_proto(before)).exit_code is None


def test_a_spec_without_a_command_is_refused():
    with pytest.raises(InvalidRequest):
        spec_from_proto(job_pb2.JobSpec())


def test_a_spec_without_a_grace_gets_the_usual_one():
    message = spec_to_proto(spec())
    message.ClearField("grace")
    assert spec_from_proto(message).grace == DEFAULT_GRACE


def test_a_state_from_the_future_is_lost_not_succeeded():
    message = job_to_proto(Job("0123456789ab", "train", spec(), JobState.RUNNING))
    message.state = 99
    assert job_from_proto(message).state is JobState.LOST


@pytest.mark.parametrize(
    ("word", "name"),
    [
        ("Train_GPT.py", "train-gpt"),
        ("a/b/c.py", "c"),
        ("7.py", "job-7"),
        ("---", "job"),
        ("/", "job"),
    ],
)
def test_names_made_from_commands(word, name):
    made = job_name_from(word)
    assert made == name
    assert JOB_NAME.fullmatch(made)
