"""Every error a backend or the core raises, and what each means to the caller.

The tree::

    CsiCoreError
    |-- LoadError                 refused while loading: configuration or plugin, before any call is served
    |   |-- ConfigError           a key of the configuration file; names the key and the fix
    |   `-- PluginError           a plugin that breaks the contract; names the hook
    `-- CallError                 a refused or failed call; ``server/status.py`` maps it to a gRPC status
        |-- InvalidArgument       INVALID_ARGUMENT    the request itself is wrong; nothing was changed
        |-- NotFound              NOT_FOUND           no such volume, snapshot, group or node
        |-- AlreadyExists         ALREADY_EXISTS      the name is taken by something incompatible
        |-- FailedPrecondition    FAILED_PRECONDITION right request, wrong state; nothing was changed
        |   `-- BackendNotLoaded                      the id names a backend that is not configured
        |-- OutOfRange            OUT_OF_RANGE        a size or offset that cannot be met
        |-- NoSpace               RESOURCE_EXHAUSTED  no room here; the scheduler may try elsewhere
        |-- Busy                  ABORTED             another call works on it; may be retried
        |-- TimedOut              DEADLINE_EXCEEDED   may still be running
        |-- Unavailable           UNAVAILABLE         cannot be reached now; may be retried
        |-- PermissionDenied      PERMISSION_DENIED
        |-- Unauthenticated       UNAUTHENTICATED     secrets missing or wrong
        |-- Unsupported           UNIMPLEMENTED       the backend does not implement this
        |-- DataLoss              DATA_LOSS           stored data is gone or cannot be trusted
        `-- StorageFailure        INTERNAL            the storage answered with an error; final
            `-- CommandFailed                         a command that exited non-zero, with its output

Which of them mean "may still be running" matters: the Kubernetes sidecars forget a volume after any
final error, and a volume that exists after all has leaked (CSI specification, "Error Scheme"). The
attribute ``final`` says which are.
"""

from __future__ import annotations

from collections.abc import Sequence

__all__ = [
    "AlreadyExists",
    "BackendNotLoaded",
    "Busy",
    "CallError",
    "CommandFailed",
    "ConfigError",
    "CsiCoreError",
    "DataLoss",
    "FailedPrecondition",
    "InvalidArgument",
    "LoadError",
    "NoSpace",
    "NotFound",
    "OutOfRange",
    "PermissionDenied",
    "PluginError",
    "StorageFailure",
    "TimedOut",
    "Unauthenticated",
    "Unavailable",
    "Unsupported",
]


class CsiCoreError(Exception):
    """Root of every error raised on purpose. The message is written for the person who reads it."""


class LoadError(CsiCoreError):
    """Refused while loading, before any call is served."""


class ConfigError(LoadError):
    """A key of the configuration is wrong; the message names the key and the fix."""


class PluginError(LoadError):
    """A plugin does not keep the contract of :mod:`csi_core.hookspecs`; the message names the hook."""


class CallError(CsiCoreError):
    """A call that was refused or failed. Raise one of the subclasses."""

    final = True
    """False where the operation may still be running or may succeed when repeated."""


class InvalidArgument(CallError):
    """The request itself is wrong: an unknown key, a malformed value. Nothing was changed."""


class NotFound(CallError):
    """No volume, snapshot, group or node of that id."""


class AlreadyExists(CallError):
    """The name or path is taken by something that is not compatible with this request."""


class FailedPrecondition(CallError):
    """A right request in the wrong state (still published, has snapshots). Nothing was changed."""


class BackendNotLoaded(FailedPrecondition):
    """A well-formed id of a backend that is not configured here. Never "OK": that would leak storage."""


class OutOfRange(CallError):
    """A size that cannot be met, or an offset outside the snapshot."""


class NoSpace(CallError):
    """No room, or topology that cannot be met here. Makes the scheduler try another node."""


class Busy(CallError):
    """Another call works on this volume or name. Repeat it later."""

    final = False


class TimedOut(CallError):
    """The deadline passed. The operation may still be running and holds its lock until it ends."""

    final = False


class Unavailable(CallError):
    """The storage or the server cannot take the call now. Repeat it later."""

    final = False


class PermissionDenied(CallError):
    """The storage refused these credentials."""


class Unauthenticated(CallError):
    """Secrets are missing or not accepted."""


class Unsupported(CallError):
    """The backend does not implement this."""


class DataLoss(CallError):
    """Stored data is gone or cannot be trusted; a person must look."""


class StorageFailure(CallError):
    """The storage answered with an error. Final: say only what is known not to be running any more."""


class CommandFailed(StorageFailure):
    """A command exited non-zero.

    Attributes:
        argv: the command line, without secrets.
        exit_code: its exit status, negative for a signal.
        stderr: what it said, trimmed.
    """

    def __init__(self, argv: Sequence[str], exit_code: int, stderr: str) -> None:
        self.argv = tuple(argv)
        self.exit_code = exit_code
        self.stderr = stderr.strip()
        super().__init__(f"{argv[0]} exited with {exit_code}: {self.stderr or 'no output'}")
