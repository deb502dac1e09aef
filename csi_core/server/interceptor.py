"""The one interceptor, for unary and streaming calls alike.

It gives each call its log scope, deadline, place among the workers and metrics, and turns errors into statuses.
"""

from __future__ import annotations

import itertools
import secrets
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import cache
from typing import TYPE_CHECKING, Any

import grpc
import structlog
from google.protobuf.descriptor import Descriptor
from google.protobuf.message import Message

from csi_core.deadline import call_deadline
from csi_core.errors import TimedOut
from csi_core.server.admission import Admission
from csi_core.server.metrics import CallMetrics
from csi_core.server.redaction import redacted
from csi_core.server.status import as_details, failure_of

__all__ = ["CallInterceptor"]

_UNGATED = frozenset(
    {
        "ControllerGetCapabilities",
        "GetPluginCapabilities",
        "GetPluginInfo",
        "GroupControllerGetCapabilities",
        "NodeGetCapabilities",
        "NodeGetInfo",
        "Probe",
    }
)
"""Answered from memory, however busy the backends are."""

_READING = ("Get", "List", "Validate", "Probe", "NodeGet", "ControllerGet", "ControllerList", "GroupControllerGet")
"""How the names of calls begin that change nothing; where they succeed, that is worth a line at debug level only."""

_SUBJECTS = ("volume_id", "snapshot_id", "group_snapshot_id", "source_volume_id", "target_snapshot_id", "name")
"""Request fields that say what a call is about; the first one that a message has goes into the log scope."""

_NO_DEADLINE_S = 365 * 86400.0
"""gRPC tells "no deadline" as some 292 years."""

if TYPE_CHECKING:
    _Handler = grpc.RpcMethodHandler[Any, Any]


class CallInterceptor(grpc.ServerInterceptor):
    """Surrounds every handler.

    Args:
        admission: the gate in front of the backends.
        metrics: where calls are counted.
        log_requests: log each request at debug level, secrets redacted; costs time, so off unless the level wants it.
    """

    def __init__(self, admission: Admission, metrics: CallMetrics, log_requests: bool) -> None:
        self._admission = admission
        self._metrics = metrics
        self._log_requests = log_requests
        # Bound once: an unbound one is made anew for every line, also for one that its level leaves out.
        self._log = structlog.get_logger().bind()
        self._handlers: dict[str, _Handler] = {}
        self._run = secrets.token_hex(3)
        self._calls = itertools.count(1)

    def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], _Handler | None],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> _Handler | None:
        """The surrounded handler of a method; made once, and None for methods that no service has."""
        path = handler_call_details.method
        known = self._handlers.get(path)
        if known is None and (handler := continuation(handler_call_details)) is not None:
            known = self._handlers[path] = self._surround(path.rpartition("/")[2], handler)
        return known

    def _surround(self, method: str, handler: _Handler) -> _Handler:
        stream, unary = handler.unary_stream, handler.unary_unary
        if stream is not None:

            def serve_stream(request: Message, context: grpc.ServicerContext) -> Iterator[Any]:
                with self._call(method, request, context):
                    yield from stream(request, context)

            return grpc.unary_stream_rpc_method_handler(
                serve_stream, handler.request_deserializer, handler.response_serializer
            )
        assert unary is not None, "the CSI has no call that streams its request"

        def serve_unary(request: Message, context: grpc.ServicerContext) -> Any:
            with self._call(method, request, context):
                return unary(request, context)

        return grpc.unary_unary_rpc_method_handler(
            serve_unary, handler.request_deserializer, handler.response_serializer
        )

    @contextmanager
    def _call(self, method: str, request: Message, context: grpc.ServicerContext) -> Iterator[None]:
        started_s = time.perf_counter()
        self._metrics.begin()
        # Whatever leaves without an error or an answer was given up by its client.
        code = grpc.StatusCode.CANCELLED
        request_id = f"{self._run}-{next(self._calls)}"
        structlog.contextvars.bind_contextvars(method=method, request_id=request_id, **_subject(request))
        if self._log_requests:
            self._log.debug("request", request=redacted(request))
        try:
            with call_deadline(_time_left_s(context)), nullcontext() if method in _UNGATED else self._admission:
                if not context.is_active():
                    raise TimedOut("the client had gone when its turn came; nothing was started")
                yield
            code = grpc.StatusCode.OK
            log = self._log.debug if method.startswith(_READING) else self._log.info
            log("served", duration_ms=_since_ms(started_s))
        except Exception as error:
            failure = failure_of(error, request_id)
            code = failure.code
            if failure.expected:
                self._log.warning("refused", code=code.name, reason=failure.message, duration_ms=_since_ms(started_s))
            else:
                # As text: structlog's renderer for people would print local variables, the request's secrets too.
                trace = traceback.format_exc()
                self._log.error("failed", code=code.name, duration_ms=_since_ms(started_s), exception=trace)
            context.abort(code, as_details(failure.message, request_id))
        finally:
            self._metrics.end(method, code, time.perf_counter() - started_s)


def _subject(request: Message) -> dict[str, str]:
    field = _subject_field(request.DESCRIPTOR)
    # Not judged yet, so of any length.
    return {field: getattr(request, field)[:256]} if field else {}


@cache
def _subject_field(descriptor: Descriptor) -> str:
    return next((name for name in _SUBJECTS if name in descriptor.fields_by_name), "")


def _time_left_s(context: grpc.ServicerContext) -> float | None:
    left_s = context.time_remaining()
    return None if left_s is None or left_s > _NO_DEADLINE_S else left_s


def _since_ms(started_s: float) -> float:
    return round((time.perf_counter() - started_s) * 1000, 2)
