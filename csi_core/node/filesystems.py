"""The one place that makes a filesystem, and the rules that keep it from ever making one over data.

Two records decide. The *marker* (``BlockSource.formatted``) is written by the backend, durably and
once, when the core has made or adopted a filesystem. The *label* :data:`UNFINISHED` is given to every
filesystem at mkfs and taken off again, before the marker is written and before anybody can see a
mount. So a filesystem that bears it was made by us, may be incomplete, and was never used.

======================  =====================================================================
marker, probe           what is done
======================  =====================================================================
set, that type          mount it
set, anything else      DataLoss: mkfs is never run on a marked volume
empty, nothing found    mkfs: a new volume, or mkfs was killed before its superblock
empty, UNFINISHED       mkfs again: mkfs or the driver was killed half way, or the power failed
empty, wanted type      mount it and mark: an administrator's own volume, a copy of an unmarked
                        one, or the driver was killed between taking the label off and marking
empty, anything else    FailedPrecondition: other filesystem, partition table, LUKS, RAID ...
======================  =====================================================================

The order mkfs -> fsync -> mount -> label off -> marker makes this safe against power loss too,
whatever order mkfs's writes reached the disk in: without the label, all of mkfs is durable. mkfs's
own habits (ext4 and btrfs write the true superblock last, XFS sets ``sb_inprogress``) are not relied on.
"""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Generator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from csi_core.deadline import past_deadline
from csi_core.durable import sync
from csi_core.errors import Busy, CommandFailed, DataLoss, FailedPrecondition, InvalidArgument, StorageFailure
from csi_core.faults import fault
from csi_core.model import BlockSource
from csi_core.node.mkfs_options import FILESYSTEMS, mkfs_command, mkfs_options
from csi_core.run import run

__all__ = ["UNFINISHED", "Signature", "choose_type", "finish", "make", "probe"]

UNFINISHED: Final = "csi-unready"
"""The label of a filesystem that is being made. XFS allows no more than twelve characters."""

MKFS_TIMEOUT_S: Final = 600.0
PROBE_TIMEOUT_S: Final = 60.0
_HEAD_BYTES: Final = 4 << 20
"""Every superblock that blkid looks for at the front of a device is in here; the last is that of VMFS, at 2 MiB."""
_TAIL_BYTES: Final = 2 << 20
"""And at its end: those of RAID (Promise's may be 3087 sectors from it), backups of partition tables."""

_ZEROS: Final = bytes(64 << 10)
"""What is read at a time: it stays in the CPU's cache."""

_GETFSLABEL: Final = 2 << 30 | 256 << 16 | 0x94 << 8 | 49
_SETFSLABEL: Final = 1 << 30 | 256 << 16 | 0x94 << 8 | 50
_SYSTEM_PATH: Final = "/usr/local/sbin:/usr/sbin:/sbin:/usr/local/bin:/usr/bin:/bin"
_LOCKED, _NOT_INSTALLED = 75, 69
_PACKAGES: Final = {"mkfs.ext4": "e2fsprogs", "mkfs.xfs": "xfsprogs", "mkfs.btrfs": "btrfs-progs"}
_BLKID_FOUND, _BLKID_NOTHING, _BLKID_AMBIVALENT = 0, 2, 8


@dataclass(frozen=True, slots=True)
class Signature:
    """What a device holds: ``fs_type`` where it is a filesystem of :data:`FILESYSTEMS`, and ``summary`` for people."""

    fs_type: str
    label: str
    summary: str

    @property
    def unfinished(self) -> bool:
        """Made by us, never used, perhaps incomplete."""
        return bool(self.fs_type) and self.label == UNFINISHED


def probe(device: Path) -> Signature | None:
    """Look for any signature that blkid knows; None where there is none.

    Reads the device itself, never blkid's cache, which belongs to whatever was at this path before. blkid is asked only
    where there is something to tell: a new volume is all zeros, and has no need of it.

    Raises:
        StorageFailure: the device cannot be read.
    """
    with suppress(OSError), closing(_ends(device)) as pieces:  # what cannot be read may not matter to blkid
        if all(piece == _ZEROS[: len(piece)] for piece in pieces):
            return None
    answer = run(
        ["blkid", "-p", "-o", "export", str(device)],
        timeout_s=PROBE_TIMEOUT_S,
        mutates=False,
        ok_codes=frozenset({_BLKID_FOUND, _BLKID_NOTHING, _BLKID_AMBIVALENT}),
    )
    if answer.exit_code == _BLKID_NOTHING:
        _refuse_unreadable(device)
        return _overlooked(device)
    if answer.exit_code == _BLKID_AMBIVALENT:
        return Signature("", "", "signatures of more than one filesystem or partition table")
    found = dict(line.partition("=")[::2] for line in answer.stdout.splitlines())
    table, kind = found.get("PTTYPE", ""), found.get("TYPE", "")
    if table:
        return Signature("", "", f"a partition table ({table})")
    summary = f"{kind or 'unknown'} ({found.get('USAGE', 'data')})"
    return Signature(kind if kind in FILESYSTEMS else "", found.get("LABEL", ""), summary)


def _ends(device: Path) -> Generator[bytes, None, None]:
    """Wherever a signature can be, in pieces of at most :data:`_ZEROS`'s length."""
    descriptor = os.open(device, os.O_RDONLY | os.O_CLOEXEC)
    try:
        size_bytes = os.lseek(descriptor, 0, os.SEEK_END)
        head, tail = (0, min(_HEAD_BYTES, size_bytes)), (max(0, size_bytes - _TAIL_BYTES), size_bytes)
        for begin_bytes, end_bytes in (head, tail):
            offset_bytes = begin_bytes
            while offset_bytes < end_bytes:
                piece = os.pread(descriptor, min(len(_ZEROS), end_bytes - offset_bytes), offset_bytes)
                if not piece:
                    raise OSError(errno.EIO, "it has become shorter")
                yield piece
                offset_bytes += len(piece)  # up to what cannot be read, if need be
    finally:
        os.close(descriptor)


def _refuse_unreadable(device: Path) -> None:
    """blkid finds nothing, and has no other exit code, on a device that it cannot read."""
    try:
        for _ in _ends(device):
            pass
    except OSError as error:
        raise StorageFailure(f"{device} cannot be read, and so is not formatted: {error.strerror}") from error


def _overlooked(device: Path) -> Signature | None:
    """What wipefs finds where blkid says that there is nothing.

    blkid 2.41 (Debian 13) says so where there are signatures of several. An mkfs that was killed, at whichever of its
    writes, left no case in which only one of the two finds something.
    """
    found = run(
        ["wipefs", "--no-act", "--noheadings", "--output", "TYPE", str(device)],
        timeout_s=PROBE_TIMEOUT_S,
        mutates=False,
    )
    kinds = sorted(set(found.stdout.split()))
    return Signature("", "", f"signatures of {' and '.join(kinds)}") if kinds else None


def choose_type(source: BlockSource, asked: str, served: Sequence[str], found: Signature | None) -> str:
    """Which filesystem to mount, by the table in this module's documentation.

    Args:
        source: device and marker.
        asked: the capability's type, "" where it leaves the choice.
        served: the types that the backend declares, the default first.
        found: what :func:`probe` answered.

    Raises:
        InvalidArgument: the type asked for is not served.
        FailedPrecondition: the volume holds something that is not ours to overwrite.
        DataLoss: the filesystem that was made is not there any more.
    """
    known = [fs_type for fs_type in served if fs_type in FILESYSTEMS]
    if asked and asked not in known:
        raise InvalidArgument(f"filesystem {asked!r} is not served; choose one of {', '.join(known) or 'none'}")
    if source.formatted:
        if found is None or found.fs_type != source.formatted:
            holds = found.summary if found else "no filesystem at all"
            raise DataLoss(
                f"{source.device} is recorded to hold {source.formatted} and holds {holds}; it is left as it is: "
                "check the storage behind it, or restore a snapshot"
            )
        if asked and asked != source.formatted:
            raise FailedPrecondition(f"the volume holds {source.formatted}, and {asked} is asked for")
        return source.formatted
    if found is not None and found.fs_type in known and not found.unfinished and asked in ("", found.fs_type):
        return found.fs_type
    if found is not None and not found.unfinished:
        raise FailedPrecondition(
            f"{source.device} holds {found.summary}, and {asked or known[0]} is asked for; "
            "data is never formatted over: ask for what is there, or wipe it by hand (wipefs -a)"
        )
    return asked or known[0]


def make(source: BlockSource, fs_type: str, found: Signature | None) -> None:
    """Make a filesystem, labelled :data:`UNFINISHED` and durable, where :func:`choose_type` says that it may be made.

    Raises:
        InvalidArgument: an mkfs option is not allowed.
        FailedPrecondition: the device is too small for the filesystem.
        Busy: an mkfs that was started by an earlier process is still at work.
        CommandFailed: mkfs's own words.
    """
    options = mkfs_options(fs_type, source.mkfs_options)
    if fs_type == "xfs" and source.size_bytes < 300 << 20:
        raise FailedPrecondition(f"XFS needs at least 300 MiB, the volume has {source.size_bytes >> 20} MiB")
    fault("node.stage.before_mkfs")
    if found is not None:
        _wipe_head(source.device)
    _run_alone(mkfs_command(fs_type, str(source.device), options, source.keep_allocated, UNFINISHED), source.device)
    sync(source.device)
    fault("node.stage.after_mkfs")


def _run_alone(argv: list[str], device: Path) -> None:
    """Run a command that holds a lock on the device for as long as it lives, be it longer than this process.

    An mkfs outlives a driver that is killed; the next one must not run into it. udev, too, honours this lock.
    """
    lock = ["flock", "--no-fork", "--nonblock", "--conflict-exit-code", str(_LOCKED), str(device)]
    try:
        run([*lock, *argv], timeout_s=MKFS_TIMEOUT_S, mutates=True, env={"PATH": _SYSTEM_PATH})
    except CommandFailed as error:
        if error.exit_code == _LOCKED:
            raise Busy(f"{device} is still being formatted by an earlier call; repeat this one later") from None
        if error.exit_code == _NOT_INSTALLED:
            raise StorageFailure(f"{argv[0]} is not installed on this node; install {_PACKAGES[argv[0]]}") from None
        raise CommandFailed(argv, error.exit_code, error.stderr) from None


def _wipe_head(device: Path) -> None:
    """Before an unfinished filesystem is made again as another type: two superblocks are ambivalent to blkid."""
    descriptor = os.open(device, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.pwrite(descriptor, bytes(_HEAD_BYTES), 0)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def finish(root: int, device: Path) -> None:
    """Take the label :data:`UNFINISHED` off a filesystem mounted writable; ``root`` is an open directory on it."""
    label = bytearray(256)
    fcntl.ioctl(root, _GETFSLABEL, label)
    if label.rstrip(b"\0").decode(errors="replace") != UNFINISHED:
        return
    try:
        fcntl.ioctl(root, _SETFSLABEL, bytes(256))
    except OSError:
        # ext4 has had the call since Linux 5.17; tune2fs changes the superblock of a mounted filesystem too
        with past_deadline():  # the next call would make it anew
            run(["tune2fs", "-L", "", str(device)], timeout_s=PROBE_TIMEOUT_S, mutates=True)
    fault("node.stage.after_label")
