"""Network shares on a node, whose server may be dead: a call on a path of such a mount never returns.

So nothing here touches one but child processes with a deadline, which can be killed while they wait for a server. And
few of them wait for the same server at a time: a call that would be one too many is told to come again, so that the
volumes of a dead server cannot take all workers from those of a living one.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import structlog

from csi_core.errors import (
    Busy,
    CallError,
    CommandFailed,
    FailedPrecondition,
    PermissionDenied,
    StorageFailure,
    TimedOut,
    Unavailable,
)
from csi_core.faults import fault
from csi_core.model import ShareSource
from csi_core.node.holders import holders
from csi_core.node.mountinfo import Mount, MountTable
from csi_core.node.requests import VolumeUsage
from csi_core.node.share_options import ShareOptions
from csi_core.node.space import usage_of
from csi_core.run import Completed, run

__all__ = ["Shares"]

_log = structlog.get_logger(__name__)

_MOUNT_S: Final = 20.0
_ANSWER_S: Final = 5.0
_UNMOUNT_S: Final = 10.0
_AT_ONCE: Final = 4
"""How many calls may wait for one server that has not yet failed to answer; afterwards only one tries."""
_PATIENCE_S: Final = 5.0
"""How long a further call waits for its turn."""

_REFUSALS: Final[tuple[tuple[tuple[str, ...], type[CallError], str], ...]] = (
    (
        ("access denied", "Operation not permitted", "Permission denied"),
        PermissionDenied,
        "the server lets this node's address not in, or not from a port above 1023 (noresvport)",
    ),
    (("No such file or directory",), FailedPrecondition, "the server exports no such directory"),
    (
        ("Protocol not supported", "not supported", "Invalid argument", "incorrect mount option"),
        FailedPrecondition,
        "the server or this kernel does not take these mount options or this NFS version",
    ),
    (("not a directory", "Not a directory"), FailedPrecondition, "what is exported there is no directory"),
    (
        (
            *("No route to host", "Connection refused", "Connection timed out", "Connection reset", "unreachable"),
            *("mount system call failed", "Host is down", "resolve", "Name or service", "busy", "Stale file handle"),
            *("Input/output error", "temporarily unavailable", "timed out"),
        ),
        Unavailable,
        "the server cannot be reached now",
    ),
)


class Shares:
    """Mounts, asks and unmounts shares. One for each node, since it counts who waits for which server."""

    def __init__(self) -> None:
        self._turns = threading.Condition()
        self._waiting: Counter[str] = Counter()
        self._silent: set[str] = set()

    def mount(self, source: ShareSource, options: ShareOptions, path: Path) -> None:
        """Mount at ``path``. Given up when the time is over: the kernel then leaves nothing behind.

        Raises:
            Unavailable: the server does not answer.
            Busy: too many calls wait for it already.
            PermissionDenied: it does not let this node in.
            FailedPrecondition: it exports no such directory, or does not take the options.
        """
        argv = ["mount", "-t", source.fs_type, "-o", options.text, "--", source.remote, str(path)]
        fault("node.share.before_mount")
        try:
            self._ask(_server(source.remote), argv, _MOUNT_S)
        except CommandFailed as error:
            for said, kind, reason in _REFUSALS:
                if any(words in error.stderr for words in said):
                    raise kind(f"mounting {source.remote}: {reason} ({error.stderr})") from error
            raise StorageFailure(f"mounting {source.remote}: {error.stderr}") from error
        fault("node.share.after_mount")

    def answers(self, mount: Mount) -> bool:
        """Whether the server still knows what is mounted; False for a stale handle, which a new mount mends.

        Raises:
            Unavailable: the server does not answer, or with another error.
        """
        try:
            # The kernel would answer from memory for a minute; and always, where nothing that changes is asked for.
            self._ask(
                _server(mount.source), ["stat", "--cached=never", "--format=%Z", "--", str(mount.path)], _ANSWER_S
            )
        except CommandFailed as error:
            if "Stale file handle" in error.stderr:
                return False
            raise Unavailable(f"{mount.source} at {mount.path} cannot be used now: {error.stderr}") from error
        return True

    def usage(self, mount: Mount) -> tuple[VolumeUsage, ...]:
        """Bytes and inodes, as the server counts them.

        Raises:
            Unavailable: the server does not answer, or with an error.
        """
        try:
            answer = self._ask(
                _server(mount.source),
                ["stat", "--file-system", "--format=%S %b %f %a %c %d", "--", str(mount.path)],
                _ANSWER_S,
            )
        except CommandFailed as error:
            raise Unavailable(f"{mount.source} at {mount.path} cannot be measured now: {error.stderr}") from error
        return usage_of(*(int(number) for number in answer.stdout.split()))

    def unmount(self, mount: Mount) -> None:
        """Take a mount away; lazily where its server does not answer, since no pod may hang on it for ever.

        Raises:
            FailedPrecondition: it is in use and its server is well; names who uses it.
            Busy, TimedOut, Unavailable: it is still there, and the call may be repeated.
        """
        try:
            _unmount(mount)
            return
        except (TimedOut, CommandFailed) as error:
            failure = error
        if not _mounted(mount):
            if isinstance(failure, TimedOut):
                _log.warning("unmounted; what was not yet written follows when the server answers", **_named(mount))
            return
        if self._is_well(mount):
            if isinstance(failure, TimedOut):
                raise failure
            raise FailedPrecondition(f"{mount.path} cannot be unmounted: {failure.stderr}; {holders(mount.path)}")
        _log.warning("unmounting lazily: the server does not answer", **_named(mount))
        try:
            _unmount(mount, "--lazy")
        except (TimedOut, CommandFailed) as error:
            if _mounted(mount):
                raise Unavailable(f"{mount.path} cannot be unmounted, not even lazily: {error}") from error

    def _is_well(self, mount: Mount) -> bool:
        try:
            return self.answers(mount)
        except Unavailable:
            return False

    def _ask(self, server: str, argv: list[str], timeout_s: float) -> Completed:
        """Run a command that waits for a server, in its turn."""
        with self._turn(server):
            try:
                answer = run(argv, timeout_s=timeout_s, mutates=False)
            except TimedOut as error:
                with self._turns:
                    self._silent.add(server)
                raise Unavailable(
                    f"the server {server} has not answered {argv[0]} within {timeout_s:g} s; volumes of other servers "
                    "go on"
                ) from error
            except CommandFailed:
                self._has_answered(server)
                raise
            self._has_answered(server)
            return answer

    def _has_answered(self, server: str) -> None:
        with self._turns:
            self._silent.discard(server)

    @contextmanager
    def _turn(self, server: str) -> Iterator[None]:
        with self._turns:
            free = self._turns.wait_for(lambda: self._is_free(server) or server in self._silent, _PATIENCE_S)
            if not free or not self._is_free(server):
                raise Busy(f"other calls wait for the server {server} already; repeat the call later")
            self._waiting[server] += 1
        try:
            yield
        finally:
            with self._turns:
                self._waiting[server] -= 1
                if not self._waiting[server]:
                    del self._waiting[server]
                self._turns.notify_all()

    def _is_free(self, server: str) -> bool:
        return self._waiting[server] < (1 if server in self._silent else _AT_ONCE)


def _server(remote: str) -> str:
    """The host in ``host:/path``."""
    return remote.partition(":/")[0]


def _unmount(mount: Mount, *options: str) -> None:
    # Neither option lets umount(8) look at the path or ask the server first; killed, it leaves a mount or none.
    argv = ["umount", "--internal-only", "--no-canonicalize", *options, "--", str(mount.path)]
    run(argv, timeout_s=_UNMOUNT_S, mutates=False)


def _named(mount: Mount) -> dict[str, str]:
    return {"path": str(mount.path), "source": mount.source}


def _mounted(mount: Mount) -> bool:
    return any(present.id == mount.id for present in MountTable.read().stack(mount.path))
