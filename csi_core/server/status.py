"""Errors become gRPC statuses here, and only here.

The map is walked along the error's MRO, so a backend's own subclass of :class:`~csi_core.errors.NoSpace`
is RESOURCE_EXHAUSTED like its parent. ``status.details`` stays empty, as the CSI wants.
"""

from __future__ import annotations

from dataclasses import dataclass

import grpc

from csi_core import errors

__all__ = ["Failure", "as_details", "failure_of"]

_MAX_DETAILS_BYTES = 4096
"""On the wire. A client drops a status with more than 8 KiB about it, and takes it for RESOURCE_EXHAUSTED: an error
that says "may still be running" would become a final one."""

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


def as_details(message: str, reference: str) -> str:
    """A failure's message as the status can carry it: text, and not too long.

    Args:
        message: of any length; names of files in it may hold bytes that are no text.
        reference: how the call is called in the log, which has the whole message.
    """
    text = message.encode(errors="replace").decode()
    size_bytes = 0
    for position, character in enumerate(text):
        # gRPC writes everything but printable ASCII as %XX for each byte.
        size_bytes += 1 if " " <= character <= "~" and character != "%" else 3 * len(character.encode())
        if size_bytes > _MAX_DETAILS_BYTES:
            return f"{text[:position]} ... (cut; the driver's log has all of it under request_id {reference})"
    return text
