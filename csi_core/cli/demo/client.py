"""gRPC calls over the server's socket, each one timed and reported as it ends."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import grpc
from google.protobuf.message import Message

from csi_core._proto.csi_pb2_grpc import (
    ControllerStub,
    GroupControllerStub,
    IdentityStub,
    NodeStub,
    SnapshotMetadataStub,
)

__all__ = ["CALL_TIMEOUT_S", "Call", "Client", "MismatchError"]

CALL_TIMEOUT_S = 60.0

Answer = TypeVar("Answer", bound=Message)
Result = TypeVar("Result")


class _RefusedError(Exception):
    """The call was refused, as it may or must be."""


class MismatchError(Exception):
    """The server did, or said, something else than it must. Ends the walk."""


@dataclass(frozen=True, slots=True)
class Call:
    """One call that has ended.

    Attributes:
        name: as CSI spells it.
        subject: what it was about, for people.
        duration_s: seconds from sending to the last byte of the answer.
        code: the name of the gRPC status code.
        expected: whether this code is the one that had to come.
        message: what the status said, "" for OK.
    """

    name: str
    subject: str
    duration_s: float
    code: str
    expected: bool
    message: str = ""


class Client:
    """The five CSI services over one Unix socket.

    Args:
        endpoint: ``unix://`` and the path of the server's socket.
        on_call: told about each call when it has ended.
    """

    def __init__(self, endpoint: str, on_call: Callable[[Call], None]) -> None:
        self._on_call = on_call
        self._channel = grpc.insecure_channel(endpoint)
        self.identity = IdentityStub(self._channel)
        self.controller = ControllerStub(self._channel)
        self.group = GroupControllerStub(self._channel)
        self.metadata = SnapshotMetadataStub(self._channel)
        self.node = NodeStub(self._channel)

    def close(self) -> None:
        """Close the connection."""
        self._channel.close()

    def call(self, method: Callable[..., Answer], request: Message, subject: str = "", *, times: int = 1) -> Answer:
        """Make a call, ``times`` times in a row, and answer what it answered.

        Raises:
            MismatchError: it failed, or a repetition answered something else than the first call.
        """
        answer = self._timed(method, request, subject)
        for _ in range(times - 1):
            again = self._timed(method, request, f"{subject}, again")
            if again != answer:
                raise MismatchError(
                    f"{_name(request)} of {subject} answered something else when it was repeated: {again}"
                )
        return answer

    def stream(self, method: Callable[..., Iterable[Answer]], request: Message, subject: str = "") -> list[Answer]:
        """Make a call that answers with a stream and collect all of it."""
        return self._timed(lambda req, timeout: list(method(req, timeout=timeout)), request, subject)

    def refused(self, method: Callable[..., object], request: Message, subject: str, code: grpc.StatusCode) -> None:
        """Make a call that must be refused with ``code``.

        Raises:
            MismatchError: it went through, or failed with another code.
        """
        try:
            self._timed(method, request, subject, accepted=(code,))
        except _RefusedError:
            return
        raise MismatchError(f"{_name(request)} of {subject}: OK where {code.name} must come")

    def attempt(self, method: Callable[..., object], request: Message, subject: str) -> bool:
        """Make a call that may fail; answer whether it went through."""
        try:
            self._timed(method, request, subject, accepted=tuple(grpc.StatusCode))
        except _RefusedError:
            return False
        return True

    def _timed(
        self,
        method: Callable[..., Result],
        request: Message,
        subject: str,
        accepted: Sequence[grpc.StatusCode] = (),
    ) -> Result:
        """Make a call. One of the ``accepted`` refusals raises _RefusedError, any other MismatchError."""
        name = _name(request)
        begin = time.perf_counter()
        try:
            answer = method(request, timeout=CALL_TIMEOUT_S)
        except grpc.RpcError as error:
            duration_s, code, message = time.perf_counter() - begin, error.code(), error.details() or ""
            self._on_call(Call(name, subject, duration_s, code.name, code in accepted, message))
            if code in accepted:
                raise _RefusedError from error
            raise MismatchError(f"{name} of {subject or 'the server'}: {code.name}: {message}") from error
        self._on_call(Call(name, subject, time.perf_counter() - begin, "OK", len(accepted) != 1))
        return answer


def _name(request: Message) -> str:
    return type(request).__name__.removesuffix("Request")
