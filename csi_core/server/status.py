"""Errors become gRPC statuses here, and only here.

The map is walked along the error's MRO, so a backend's own subclass of :class:`~csi_core.errors.NoSpace`
is RESOURCE_EXHAUSTED like its parent. ``status.details`` stays empty, as the CSI wants.
"""

from __future__ import annotations

from dataclasses import dataclass

import grpc

from csi_core import errors

__all__ = ["Failure", "failure_of"]

_CODES: dict[type[BaseException], grpc.StatusCode] = {
    errors.InvalidArgument: grpc.StatusCode.INVALID_ARGUMENT,
    errors.NotFound: grpc.StatusCode.NOT_FOUND,
    errors.AlreadyExists: grpc.StatusCode.ALREADY_EXISTS,
    errors.FailedPrecondition: grpc.StatusCode.FAILED_PRECONDITION,
    errors.OutOfRange: grpc.StatusCode.OUT_OF_RANGE,
    errors.NoSpace: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.Busy: grpc.StatusCode.ABORTED,
    errors.TimedOut: grpc.StatusCode.DEADLINE_EXCEEDED,
    errors.Unavailable: grpc.StatusCode.UNAVAILABLE,
    errors.PermissionDenied: grpc.StatusCode.PERMISSION_DENIED,
    errors.Unauthenticated: grpc.StatusCode.UNAUTHENTICATED,
    errors.Unsupported: grpc.StatusCode.UNIMPLEMENTED,
    errors.DataLoss: grpc.StatusCode.DATA_LOSS,
    errors.StorageFailure: grpc.StatusCode.INTERNAL,
    # A backend that forgot to translate these two must not make them final: the operation may still be
    # running, and the sidecars forget a volume after any final error.
    TimeoutError: grpc.StatusCode.DEADLINE_EXCEEDED,
    ConnectionError: grpc.StatusCode.UNAVAILABLE,
}


@dataclass(frozen=True, slots=True)
class Failure:
    """What the client is told. ``expected`` is False for an error that nobody raised on purpose."""

    code: grpc.StatusCode
    message: str
    expected: bool


def failure_of(error: BaseException, reference: str) -> Failure:
    """The status for an error.

    Args:
        error: what the call raised.
        reference: how the call is called in the log.

    Returns:
        The code and message. An error outside :mod:`csi_core.errors` is INTERNAL, and its message holds
        nothing but the reference to look up in the log: its text was not written for the client.
    """
    code = next((_CODES[base] for base in type(error).__mro__ if base in _CODES), None)
    if code is None:
        return Failure(
            grpc.StatusCode.INTERNAL,
            f"internal error; the driver's log says more under request_id {reference}",
            expected=False,
        )
    return Failure(code, str(error) or type(error).__name__, expected=True)
