"""The error table maps both ways, for every class."""

import grpc
import pytest

from rdev.agent.interceptor import as_rdev_error
from rdev.client.connection import from_grpc
from rdev.protocol.errors import (
    DiskFull,
    InternalError,
    JobNotFound,
    RdevError,
    all_errors,
    error_class,
)
from rdev.protocol.transport import DETAIL_KEY
from rdev.v1.error_pb2 import ErrorDetail

CLASSES = list(all_errors())
# Programs use 0 and 1; these are left to them, as 3 to 63 are by custom.
OWN_EXIT_CODES = {2, 124, 125, 127, 130, 255}
VERB_EXIT_CODES = {1, 2, 69, 75, 77, 78, 124, 127, 130}


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_every_class_says_what_to_do(cls):
    assert cls.default_hint
    assert cls.__doc__
    assert cls("do it").hint == cls.default_hint


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_exit_codes_stay_out_of_the_range_of_programs(cls):
    assert cls.exit_code in OWN_EXIT_CODES
    assert cls.verb_exit_code in VERB_EXIT_CODES


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_every_class_survives_the_wire(cls):
    sent = cls("read the file", "it is gone", hint="look elsewhere")
    known, incident = as_rdev_error(sent)
    assert not incident
    detail = ErrorDetail(
        reason=known.reason, action=known.action, cause=known.cause, hint=known.hint
    )
    received = from_grpc("call", _status(cls.status, detail))
    assert type(received) is cls
    assert (received.message, received.hint) == (sent.message, sent.hint)


def test_reasons_are_unique():
    reasons = [cls.reason for cls in CLASSES]
    assert len(set(reasons)) == len(reasons)


@pytest.mark.parametrize("code", [c for c in grpc.StatusCode if c is not grpc.StatusCode.OK])
def test_a_bare_status_falls_back_to_its_category(code):
    error = from_grpc("call", _status(code.name, None))
    assert isinstance(error, RdevError)
    assert error.hint
    assert error.message.startswith("unable to call")


def test_an_unknown_reason_falls_back_to_its_status():
    assert error_class("FROM_THE_FUTURE", "NOT_FOUND").status == "NOT_FOUND"


def test_a_defect_is_scrubbed_and_gets_an_incident():
    known, incident = as_rdev_error(KeyError("secret"))
    assert type(known) is InternalError
    assert incident in known.message
    assert "secret" not in known.message


def test_a_full_disk_is_told_as_such():
    known, _ = as_rdev_error(OSError(28, "No space left on device"))
    assert type(known) is DiskFull


def test_a_group_of_one_is_what_is_in_it():
    known, _ = as_rdev_error(ExceptionGroup("task group", [JobNotFound("find it", "gone")]))
    assert type(known) is JobNotFound


def _status(status: str, detail: ErrorDetail | None) -> grpc.aio.AioRpcError:
    trailing = () if detail is None else ((DETAIL_KEY, detail.SerializeToString()),)
    return grpc.aio.AioRpcError(
        getattr(grpc.StatusCode, status),
        grpc.aio.Metadata(),
        grpc.aio.Metadata(*trailing),
        details="details",
    )
