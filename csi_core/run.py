"""The one door to other programs.

No shell, an absolute path, ``LC_ALL=C``, a process group of its own, and a deadline. A command that only reads is
killed when its time is up. One that changes storage never is: a half-done mkfs is worse than a late one, so the calling
thread waits (the call's client has its DEADLINE_EXCEEDED already) and the lock on the volume stays held.

Arguments are logged and seen by everybody in ``ps``: a secret goes through ``stdin``, which is neither.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import structlog

from csi_core import deadline
from csi_core.errors import CommandFailed, StorageFailure, TimedOut

__all__ = ["Completed", "run", "spawned"]

_SYSTEM_DIRECTORIES = ("/usr/local/sbin", "/usr/sbin", "/sbin", "/usr/local/bin", "/usr/bin", "/bin")
_KILL_GRACE_S = 1.0
"""How long a killed command may take to go away; one in an uninterruptible sleep never does."""

_DEBIAN_PACKAGES = {
    "e2fsprogs": ("mkfs.ext4", "e2fsck", "resize2fs", "tune2fs", "dumpe2fs"),
    "xfsprogs": ("mkfs.xfs", "xfs_growfs", "xfs_repair", "xfs_admin", "xfs_io"),
    "btrfs-progs": ("mkfs.btrfs", "btrfs", "btrfstune"),
    "util-linux": ("blkid", "fsfreeze", "fstrim", "blkdiscard", "wipefs"),
    "mount": ("mount", "umount", "losetup"),
    "nfs-common": ("mount.nfs", "mount.nfs4"),
    "nfs-kernel-server": ("exportfs",),
    "lvm2": ("lvm", "lvs", "lvcreate", "lvremove", "lvextend", "lvchange", "lvconvert"),
    "thin-provisioning-tools": ("thin_delta", "thin_dump"),
    "dmsetup": ("dmsetup",),
}

_log = structlog.get_logger()
_paths: dict[str, str] = {}
_spawned: Counter[str] = Counter()
_spawned_mutex = threading.Lock()


@dataclass(frozen=True, slots=True)
class Completed:
    """A command that has ended with an expected exit code."""

    stdout: str
    stderr: str
    exit_code: int
    duration_s: float


def run(
    argv: Sequence[str],
    *,
    timeout_s: float,
    mutates: bool,
    stdin: str | None = None,
    env: Mapping[str, str] | None = None,
    ok_codes: frozenset[int] = frozenset({0}),
) -> Completed:
    """Run a command to its end.

    Args:
        argv: the program (a name to look up, or an absolute path) and its arguments; no secrets.
        timeout_s: how long it may take, in seconds; less where the call's deadline is nearer.
        mutates: whether it changes storage, and so must not be killed when its time is up.
        stdin: text for its standard input; without, it reads an empty one.
        env: environment variables on top of this process's own.
        ok_codes: exit codes that are no failure.

    Raises:
        TimedOut: the deadline had passed before it was started, or it only read and was killed.
        CommandFailed: it exited with another code.
        StorageFailure: the program is not installed.
    """
    deadline.check()
    path = _path_of(argv[0])
    tool = Path(path).name
    started_at = time.monotonic()
    process = subprocess.Popen(
        [path, *argv[1:]],
        stdin=subprocess.DEVNULL if stdin is None else subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        errors="replace",
        env={**os.environ, **(env or {}), "LC_ALL": "C"},
        process_group=0,
    )
    with _spawned_mutex:
        _spawned[tool] += 1
    stdout, stderr = _wait(process, argv, stdin, deadline.remaining_s(timeout_s), mutates)
    duration_s = time.monotonic() - started_at
    _log.debug("command", argv=list(argv), exit_code=process.returncode, duration_s=round(duration_s, 4))
    if process.returncode not in ok_codes:
        raise CommandFailed(argv, process.returncode, stderr or stdout)
    return Completed(stdout, stderr, process.returncode, duration_s)


def spawned() -> Mapping[str, int]:
    """How many processes were started so far, by program."""
    with _spawned_mutex:
        return dict(_spawned)


def _wait(
    process: subprocess.Popen[str], argv: Sequence[str], stdin: str | None, time_s: float, mutates: bool
) -> tuple[str, str]:
    try:
        return process.communicate(stdin, timeout=time_s)
    except subprocess.TimeoutExpired:
        if not mutates:
            _kill(process)
            raise TimedOut(f"{argv[0]} was stopped after {time_s:.1f} s without an answer; repeat the call") from None
        _log.warning("command takes long and is waited for", argv=list(argv), waited_s=round(time_s, 1))
        return process.communicate()
    except BaseException:
        if not mutates:
            _kill(process)
        raise


def _kill(process: subprocess.Popen[str]) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    try:
        process.communicate(timeout=_KILL_GRACE_S)
    except subprocess.TimeoutExpired:
        # Stuck in the kernel (a dead disk or server). Its pipes are given up; the interpreter reaps it when it ends.
        for pipe in (process.stdin, process.stdout, process.stderr):
            if pipe is not None:
                with suppress(OSError):
                    pipe.close()


def _path_of(program: str) -> str:
    known = _paths.get(program)
    if known is not None:
        return known
    search = os.pathsep.join([*_SYSTEM_DIRECTORIES, os.environ.get("PATH", "")])
    path = shutil.which(program, path=search)
    if path is None:
        package = next((package for package, tools in _DEBIAN_PACKAGES.items() if program in tools), None)
        advice = f"install the package {package}" if package else "install the package that has it"
        raise StorageFailure(f"the program {program} is not installed on this node; {advice}")
    _paths[program] = path
    return path
