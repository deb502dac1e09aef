"""The layout ``images``: each volume and snapshot is a file, and a loop device over the whole of it."""

from __future__ import annotations

import heapq
import os
import struct
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Final

import structlog

from backends.loop import images, loopdev
from backends.loop.comparing import differing_blocks
from backends.loop.database import Row
from backends.loop.hostfs import HostFilesystem
from backends.loop.image_files import ImageFiles
from backends.loop.layout import Check, Copy, CopyUnderWay, Placement
from backends.loop.loopdev import Backing, LoopDevice
from backends.loop.options import PoolOptions
from backends.loop.others import filesystem_space, others_bytes
from backends.loop.records import Records, State, VolumeRecord
from csi_core import handles
from csi_core._allocator import diff_extents, fiemap
from csi_core.errors import DataLoss, FailedPrecondition
from csi_core.faults import fault
from csi_core.health import Finding, HealthKind, HealthProblem
from csi_core.hookspecs import Host
from csi_core.ledger import Ledger
from csi_core.watch import Watch

__all__ = ["ImagesLayout"]

_log = structlog.get_logger(__name__)
_DISCARD_LIMIT_BYTES: Final = 64 << 20
"""One discard punches at most this much at once; the default, 4 GiB, stalls writers for seconds."""
_OTHERS_EVERY_S: Final = 60.0
"""That takes a stat of each image: a quarter of a second for 100,000."""
_ORPHAN: Final = "unknown file among the images"
_LEAKED: Final = "loop device of a deleted volume"


class ImagesLayout(ImageFiles):
    """The images of one pool as volumes; see :class:`backends.loop.layout.Layout`."""

    def __init__(self, name: str, options: PoolOptions, filesystem: HostFilesystem, records: Records) -> None:
        super().__init__(options.path)
        self._name = name
        self._options = options
        self._filesystem = filesystem
        self._records = records
        self._watch: Watch | None = None

    @property
    def facts(self) -> Sequence[str]:
        filesystem = self._filesystem
        return (
            f"{self._options.path} on {filesystem.fs_type}",
            "snapshots by reflink" if filesystem.reflink else "snapshots by sparse copy",
            "direct I/O"
            if filesystem.direct_io
            else "direct I/O off"
            if not self._options.direct_io
            else "direct I/O refused",
        )

    @property
    def largest_volume_bytes(self) -> int:
        return self._filesystem.largest_image_bytes

    @property
    def container(self) -> str:
        return f"one file on {self._filesystem.fs_type}"

    @property
    def copies_at_once(self) -> bool:
        return self._filesystem.reflink

    @property
    def copies_in_background(self) -> bool:
        return False

    def start(self, ledger: Ledger, host: Host) -> None:  # noqa: ARG002 - nothing grows by itself
        def look() -> None:
            ledger.note_others(others_bytes(self))

        look()
        self._watch = Watch(look, _OTHERS_EVERY_S, "what others have of the pool's filesystem cannot be found out")
        self._watch.start()

    def close(self) -> None:
        if self._watch:
            self._watch.stop()

    def space(self) -> tuple[int, int]:
        return filesystem_space(self._options.path)

    def largest_free_bytes(self, *, thick: bool) -> int:  # noqa: ARG002 - a file lies in pieces
        return self.largest_volume_bytes

    def recover(self) -> None:
        for stranger in self.strangers(self._records.images_known):
            moved = self.isolate(stranger)
            _log.warning("unknown file quarantined", pool=self._name, file=stranger.name, now=str(moved))

    # -- room ---------------------------------------------------------------------------------------

    def refuse(self, *, thick: bool, raw_block: bool) -> None:
        """Everything is served."""

    def birth(self, *, thick: bool) -> State:
        return "creating" if thick else "promised"

    def rounded(self, size_bytes: int) -> int:
        return size_bytes

    def present_bytes(self, key: str) -> int:  # noqa: ARG002 - a sparse file counts for itself
        return 0

    def placed(
        self,
        key: str,  # noqa: ARG002 - the filesystem places it
        size_bytes: int,  # noqa: ARG002
        present_bytes: int,  # noqa: ARG002
    ) -> AbstractContextManager[Placement]:
        return nullcontext(_Anywhere())

    @contextmanager
    def extended(self, record: VolumeRecord, size_bytes: int) -> Iterator[Placement]:
        # The file grows before the record does, so a file shorter than its record always means lost data.
        if record.state == "ready":
            self.ensure(record.key, size_bytes, thick=record.thick)
        yield _Anywhere()

    def exists(self, key: str) -> bool:
        return self.found(key) is not None

    def snapshot_charge(self, ledger: Ledger, volume: VolumeRecord) -> int:
        # Like its volume. For a thick one that is what keeps it thick: after the snapshot its blocks are shared, each
        # first write needs a new one, and the charge has set that aside.
        return ledger.charge(thin=not volume.thick, size_bytes=volume.size_bytes)

    def abandon(self, key: str) -> None:
        self.free(key)

    def seal(self, key: str) -> None:
        self.path(key).chmod(0o400)

    def retire(self, keys: Sequence[str]) -> None:
        """A file in the trash is like any other."""

    def forgotten(self, keys: Sequence[str]) -> None:
        """The filesystem knows that they are gone."""

    # -- devices of this node -----------------------------------------------------------------------

    def attach(self, record: VolumeRecord, *, read_only: bool) -> LoopDevice:
        path = self.path(record.key)
        with images.storage_errors(f"image {path}"), self.opened(record.key, write=not read_only) as image:
            found = os.fstat(image)
            if found.st_size < record.size_bytes:
                raise DataLoss(f"{path} has {found.st_size} bytes of the {record.size_bytes} recorded; restore it")
            device = loopdev.find(Backing.of(found))
            if device is None:
                device = self._bind(record, image, read_only=read_only)
            elif device.read_only and not read_only:
                raise FailedPrecondition(f"{record.key} is attached read-only as {device.node}; unstage it first")
            else:
                device = loopdev.keep(device)
            if found.st_size > record.size_bytes and not device.size_limit_bytes:
                # An expansion was cut off before its commit: nobody was told of the rest.
                device = loopdev.limit_size(device, record.size_bytes)
            loopdev.fit_size(device, record.size_bytes)
            # Of a device that was found, too: a process may have been killed before this.
            loopdev.tune_discard(device, 0 if record.thick else _DISCARD_LIMIT_BYTES)
            return device

    def device(self, key: str) -> LoopDevice | None:
        found = self.found(key)
        return loopdev.find(Backing.of(found)) if found else None

    def fit(self, record: VolumeRecord) -> None:
        if device := self.device(record.key):
            # Also after a crash between the commit and here: the call comes again.
            fault("loop.expand.before_device")
            loopdev.fit_size(device, record.size_bytes)
            fault("loop.expand.after_device")

    def detach(self, key: str) -> None:
        found = self.found(key)
        if found is None:
            return
        if device := loopdev.find(Backing.of(found)):
            fault("loop.detach.before_unbind")
            loopdev.detach(device)
            fault("loop.detach.after_unbind")
        # Whether attached or not: a process may have been killed between the two. Of a deleted volume the image may go
        # at any moment.
        with suppress(DataLoss), images.storage_errors(f"image {key}"), self.opened(key, write=False) as image:
            os.fsync(image)

    def attached(self, keys: Sequence[str]) -> set[str]:
        in_use = {device.backing.anywhere for device in loopdev.attached()}
        return {key for key in keys if (found := self.found(key)) and Backing.of(found) in in_use}

    # -- content ------------------------------------------------------------------------------------

    @contextmanager
    def copying(self, copy: Copy) -> Iterator[CopyUnderWay]:
        with ExitStack() as stack:
            source = None
            if copy.source_key:
                source = stack.enter_context(self.opened(copy.source_key, write=False))
                if os.fstat(source).st_size < copy.size_bytes:
                    path = self.path(copy.source_key)
                    raise DataLoss(f"image {path} is shorter than the {copy.size_bytes} bytes recorded")
            target = stack.enter_context(self.opened(copy.target_key, create=True))
            yield _FileCopy(source, target, copy.size_bytes)

    def data_ranges(self, key: str, start_bytes: int) -> Iterator[tuple[int, int]]:
        with images.storage_errors(f"image {key}"), self.opened(key, write=False) as image:
            yield from images.data_ranges(image, start_bytes)

    def differing(self, base_key: str, target_key: str, start_bytes: int) -> Iterator[tuple[int, int]]:
        with (
            images.storage_errors("comparing snapshots"),
            self.opened(base_key, write=False) as old,
            self.opened(target_key, write=False) as new,
        ):
            find = _differing_extents if self._filesystem.reflink else _differing_data
            yield from find(old, new, start_bytes)

    # -- care ---------------------------------------------------------------------------------------

    def volume_problems(self, record: VolumeRecord) -> Iterator[HealthProblem]:
        if record.state == "promised":  # no image was ever made
            return
        path, found = self.path(record.key), self.found(record.key)
        if found is None:
            yield HealthProblem(HealthKind.DATA_LOSS, "ImageMissing", f"{path} is missing; restore it from a backup")
            return
        if found.st_size < record.size_bytes:
            message = f"{path} has {found.st_size} of {record.size_bytes} bytes; restore it from a backup"
            yield HealthProblem(HealthKind.DATA_LOSS, "ImageCutOff", message)
        if record.thick and (holes := images.holes_bytes(found)):
            message = (
                f"{holes} bytes of this thick volume have no blocks; they are allocated again when it is next attached"
            )
            yield HealthProblem(HealthKind.DEGRADED, "NotThick", message)

    def snapshot_problem(self, key: str, size_bytes: int) -> str:
        found = self.found(key)
        if found is None or found.st_size < size_bytes:
            return f"{self.path(key)} is missing or cut off; restore it, or delete the snapshot"
        return ""

    def findings(self) -> Iterator[Finding]:
        for stranger in self.strangers(self._records.images_known):
            yield Finding(str(stranger), _ORPHAN, f"it can be moved to {self.quarantine}", repairable=True)
        for stranger in sorted(self.quarantine.iterdir()):
            yield Finding(str(stranger), "quarantined file", "look what it is, then move it away or delete it")
        for device in loopdev.attached():
            if self._leaked(device):
                advice = f"it holds {device.backing_path}; it can be detached"
                yield Finding(str(device.node), _LEAKED, advice, repairable=True)

    def repair(self, finding: Finding) -> bool:
        if finding.problem == _ORPHAN:
            for stranger in self.strangers(self._records.images_known):
                if str(stranger) == finding.subject:
                    self.isolate(stranger)
                    return True
        elif finding.problem == _LEAKED:
            for device in loopdev.attached():
                if str(device.node) == finding.subject and self._leaked(device):
                    loopdev.detach(device)
                    return True
        return False

    def fill_holes(self, record: VolumeRecord) -> bool:
        if not record.thick or self.found(record.key) is None:
            return False
        self.ensure(record.key, record.size_bytes, thick=True)
        return True

    def _bind(self, record: VolumeRecord, image: int, *, read_only: bool) -> LoopDevice:
        if record.thick and not read_only:
            _refill(record, image)
        fault("loop.attach.before_bind")
        device = loopdev.attach(image, read_only=read_only, direct_io=self._options.direct_io)
        fault("loop.attach.after_bind")
        if self._options.direct_io and self._filesystem.direct_io and not device.direct_io:
            _log.warning("direct I/O refused", pool=self._name, volume=record.key, device=str(device.node))
        return device

    def _leaked(self, device: LoopDevice) -> bool:
        """Whether ``device`` shows an image of this pool that no record has any more, and nobody uses it."""
        path = Path(device.backing_path.removesuffix(" (deleted)"))
        key = path.stem
        if path.parent != self.directory or not handles.KEY.fullmatch(key):
            return False
        return not (self._records.volume(key) or self._records.snapshot(key) or device.held)


class _Anywhere:
    """The filesystem finds room for files by itself."""

    def rows(self) -> Sequence[Row]:
        """Nothing to write down."""
        return ()

    def record(self, connection: object) -> None:
        """Nothing to write down."""


class _FileCopy:
    def __init__(self, source: int | None, target: int, size_bytes: int) -> None:
        self._source = source
        self._target = target
        self._size_bytes = size_bytes

    def run(self, give_up_at: float | None, check: Check) -> bool:  # noqa: ARG002 - in the call, to its end
        if self._source is None or images.clone(self._source, self._target):
            return True
        images.copy_data(self._source, self._target, give_up_at=give_up_at)
        return False

    def finish(self) -> None:
        if os.fstat(self._target).st_size != self._size_bytes:
            os.ftruncate(self._target, self._size_bytes)
        os.fsync(self._target)
        fault("loop.copy.after_sync")


def _refill(record: VolumeRecord, image: int) -> None:
    """Fill holes that a discard has punched into a thick volume (kernels before 6.17 cannot forbid all of them)."""
    try:
        images.allocate(image, record.size_bytes)
    except OSError as error:
        # Its data is all there; volume health says that it is not thick any more.
        _log.warning("thick volume has holes that cannot be filled", volume=record.key, error=error.strerror)


def _differing_extents(old: int, new: int, start_bytes: int) -> Iterator[tuple[int, int]]:
    # Both maps are read while both snapshots are held: a block cannot be freed and used again in between.
    differing = diff_extents(fiemap(old, start_bytes), fiemap(new, start_bytes))
    for offset, length in struct.iter_unpack("=2Q", differing):
        yield offset, offset + length


def _differing_data(old: int, new: int, start_bytes: int) -> Iterator[tuple[int, int]]:
    either = heapq.merge(images.data_ranges(old, start_bytes), images.data_ranges(new, start_bytes))
    return differing_blocks(
        lambda offset, length: os.pread(old, length, offset),
        lambda offset, length: os.pread(new, length, offset),
        either,
        start_bytes,
        os.fstat(new).st_size,
    )
