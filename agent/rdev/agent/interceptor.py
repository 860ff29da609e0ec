"""Turns every error that leaves a service into a status with a detail that clients understand."""

from __future__ import annotations

import logging
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, NoReturn, TypeAlias

import grpc

from rdev.agent.idle import Calls
from rdev.protocol.errors import (
    DISK_FULL_ERRNOS,
    InternalError,
    PermissionRefused,
    RdevError,
    os_failure,
)
from rdev.protocol.transport import DETAIL_KEY, MAX_STATUS, MAX_WORDS
from rdev.v1.error_pb2 import ErrorDetail
from rdev.wire.home import UnsafePathError

_log = logging.getLogger(__name__)

_Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"


class ErrorInterceptor(grpc.aio.ServerInterceptor):
    """Wraps every handler, so that services just raise.

    Args:
        calls: Told of each call.
    """

    def __init__(self, calls: Calls | None = None) -> None:
        self._calls = Calls() if calls is None else calls

    async def intercept_service(
        self,
        continuation: Callable[
            [grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Any, Any] | None]
        ],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        """See `grpc.aio.ServerInterceptor`."""
        handler: Any = await continuation(handler_call_details)
        if handler is None:  # unknown method: gRPC answers UNIMPLEMENTED
            return None
        make = (
            grpc.stream_stream_rpc_method_handler
            if handler.request_streaming and handler.response_streaming
            else grpc.stream_unary_rpc_method_handler
            if handler.request_streaming
            else grpc.unary_stream_rpc_method_handler
            if handler.response_streaming
            else grpc.unary_unary_rpc_method_handler
        )
        behaviour = (
            handler.stream_stream
            or handler.stream_unary
            or handler.unary_stream
            or handler.unary_unary
        )
        wrap = _wrap_stream if handler.response_streaming else _wrap_unary
        return make(
            wrap(behaviour, self._calls),
            request_deserializer=handler.request_deserializer,
            response_serializer=handler.response_serializer,
        )


def _wrap_unary(
    behaviour: Callable[..., Awaitable[Any]], calls: Calls
) -> Callable[..., Awaitable[Any]]:
    async def call(request: object, context: _Context) -> object:
        try:
            with calls:
                return await behaviour(request, context)
        except grpc.aio.AbortError:
            raise
        except Exception as error:  # noqa: BLE001  # the edge: everything becomes a status
            await _abort(context, error)

    return call


def _wrap_stream(
    behaviour: Callable[..., AsyncIterator[Any]], calls: Calls
) -> Callable[..., AsyncIterator[Any]]:
    async def call(request: object, context: _Context) -> AsyncIterator[Any]:
        try:
            with calls:
                async for response in behaviour(request, context):
                    yield response
        except grpc.aio.AbortError:
            raise
        except Exception as error:  # noqa: BLE001  # the edge: everything becomes a status
            await _abort(context, error)

    return call


async def _abort(context: _Context, error: Exception) -> NoReturn:
    known, incident = as_rdev_error(error)
    detail = ErrorDetail(
        reason=known.reason,
        action=_cut(known.action, MAX_WORDS),
        cause=_cut(known.cause, MAX_WORDS),
        hint=_cut(known.hint, MAX_WORDS),
        incident=incident,
    )
    await context.abort(
        getattr(grpc.StatusCode, known.status),
        _cut(known.message, MAX_STATUS),
        trailing_metadata=((DETAIL_KEY, detail.SerializeToString()),),
    )
    raise AssertionError("abort returned")


def _cut(words: str, count: int) -> str:
    return words.encode()[:count].decode(errors="ignore")


def as_rdev_error(error: BaseException) -> tuple[RdevError, str]:
    """The error to send, and the incident id if it hides an internal one.

    A group of one, as a TaskGroup raises it, counts as what is in it.
    """
    if isinstance(error, RdevError):
        return error, ""
    if isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        return as_rdev_error(error.exceptions[0])
    if isinstance(error, UnsafePathError):
        return PermissionRefused("trust the agent's folder", str(error)), ""
    if isinstance(error, OSError) and error.errno in DISK_FULL_ERRNOS:
        return os_failure("write on the host", error), ""
    incident = secrets.token_hex(4)
    _log.error("incident %s", incident, exc_info=error)
    return InternalError("serve the call", f"incident {incident}"), incident
