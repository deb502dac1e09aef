"""The layout ``extents``: volumes are runs of extents in shared segments; see :class:`backends.loop.layout.Layout`."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Final

import structlog

from backends.loop import images
from backends.loop.database import PoolDatabase
from backends.loop.extents import growth, writeback
from backends.loop.extents.content import Content, ContentCopy
from backends.loop.extents.devices import Devices, Mapped
from backends.loop.extents.growth import Grower
from backends.loop.extents.segments import Label, Segment
from backends.loop.extents.space import Space, Taken
from backends.loop.extents.zeroing import Pace, zero
from backends.loop.layout import Copy, CopyUnderWay, Placement
from backends.loop.options import PoolOptions
from backends.loop.records import Records, RunRecord, SegmentRecord, State, VolumeRecord
from csi_core.errors import CallError, DataLoss, InvalidArgument, NoSpace, NotFound
from csi_core.faults import fault
from csi_core.health import Finding, HealthKind, HealthProblem
from csi_core.hookspecs import Host
from csi_core.ledger import Ledger
from csi_core.watch import Watch

__all__ = ["ExtentsLayout"]

_log = structlog.get_logger(__name__)
_LARGEST_BYTES: Final = 1 << 60
_GROWN_EVERY_S: Final = 1.0


class ExtentsLayout:
    """The segments of one pool and what lies in them."""

    def __init__(self, name: str, options: PoolOptions, database: PoolDatabase) -> None:
        """Open the segments and rebuild the free map.

        Raises:
            DataLoss: a segment is another one or cut off; or two volumes claim the same extents.
            Unavailable: a segment is not there.
        """
        self._name = name
        self._options = options
        self._database = database
        self._records = Records(database)
        pool = self._records.extent_pool()
        assert pool is not None
        self._pool = pool
        self._segments: dict[int, Segment] = {}
        self.held: set[str] = set()
        """Keys in the trash that are being written to, and so not freed yet."""
        self._watch: Watch | None = None
        self._grower: Grower | None = None
        self._mutex = threading.Lock()
        self._growing = threading.Lock()
        with ExitStack() as undo:
            undo.callback(self.close)
            recorded = [segment for segment in self._records.segments() if segment.state == "ready"]
            for segment in recorded:
                self._open(segment)
            self.space_map = Space(name, database, pool.extent_bytes, [segment.extents for segment in recorded])
            self._retired = self.space_map.found_quarantined
            undo.pop_all()
        self.devices = Devices(pool.uuid, self._segments, pool.extent_bytes, direct_io=options.direct_io)

    @property
    def facts(self) -> Sequence[str]:
        segments = ", ".join(str(segment.path) for segment in self._segments.values())
        return f"packed into {segments}", "snapshots by full copy", f"extents of {self._pool.extent_bytes >> 10} KiB"

    @property
    def largest_volume_bytes(self) -> int:
        return _LARGEST_BYTES

    @property
    def container(self) -> str:
        return f"a volume of pool {self._name}"

    @property
    def copies_at_once(self) -> bool:
        return False

    @property
    def copies_in_background(self) -> bool:
        return True

    def start(self, ledger: Ledger, host: Host) -> None:
        def look() -> None:
            if self.refresh() and not self._options.capacity:
                ledger.resize(self.space()[0])

        self._watch = Watch(look, _GROWN_EVERY_S, "pool cannot be grown")
        self._watch.start()
        self._grower = Grower(self._name, self, host)
        writeback.let_go_of_unbound()
        for key in self._elastic_attached():
            record, device = self._records.volume(key), self.device(key)
            if record and device:
                self.fit(record)  # it may have been lengthened just before a kill
                self._grower.watch(key, device.node)

    def _elastic_attached(self) -> Sequence[str]:
        query = "SELECT key, segment, start FROM run JOIN volume USING (key) WHERE position = 0 AND NOT thick"
        loops, joined = self.devices.attached()
        if not loops and not joined:
            return ()
        return [key for key, *start in self._database.rows(query) if key in joined or tuple(start) in loops]

    def close(self) -> None:
        if self._grower:
            self._grower.stop()
        if self._watch:
            self._watch.stop()
        while self._segments:
            self._segments.popitem()[1].close()

    def space(self) -> tuple[int, int]:
        return self.space_map.space()

    def largest_free_bytes(self, *, thick: bool) -> int:
        if not thick or self.devices.max_runs > 1:
            return self.largest_volume_bytes
        return self.space_map.pool.longest_free_run * self._pool.extent_bytes

    def recover(self) -> None:
        """The free map was rebuilt when the pool was opened."""

    # -- room ---------------------------------------------------------------------------------------

    def refuse(self, *, thick: bool, raw_block: bool) -> None:
        if raw_block and not thick:
            raise InvalidArgument(
                f"pool {self._name} grows a thin volume when the filesystem on it fills up, and raw block has none "
                "that could tell; set provisioning: thick"
            )

    def birth(self, *, thick: bool) -> State:  # noqa: ARG002 - both are placed by the commit itself
        return "promised"

    def rounded(self, size_bytes: int) -> int:
        return self.space_map.extents_of(size_bytes) * self._pool.extent_bytes

    def claimed_bytes(self, key: str) -> int:
        """What an elastic volume may have in the end; 0 where there is no such volume."""
        record = self._records.volume(key)
        return record.size_bytes if record else 0

    def present_bytes(self, key: str) -> int:
        return sum(run.length for run in self._records.runs(key)) * self._pool.extent_bytes

    @contextmanager
    def placed(self, key: str, size_bytes: int, present_bytes: int) -> Iterator[Placement]:
        with self.space_map.placed(key, size_bytes, present_bytes, self.devices.max_runs) as taken:
            yield taken

    @contextmanager
    def extended(self, record: VolumeRecord, size_bytes: int) -> Iterator[Placement]:
        runs = self._records.runs(record.key)
        if not record.thick:  # it grows when it is written to
            yield Taken(record.key, len(runs), [])
            return
        with self.space_map.extended(record.key, runs, size_bytes, self.devices.max_runs) as taken:
            yield taken

    def lengthen(self, key: str, present_bytes: int) -> int:
        """Let an elastic volume have ``present_bytes``, at most its claimed size; answer what it has and shows now.

        Raises:
            NotFound: no such volume.
            NoSpace: the pool is full; nothing was changed.
        """
        with self._growing:
            record = self._records.volume(key)
            if record is None:
                raise NotFound(f"pool {self._name} has no volume {key}")
            runs = self._records.runs(key)
            wanted_bytes = min(present_bytes, record.size_bytes)
            with self.space_map.extended(key, runs, wanted_bytes, self.devices.max_runs) as taken:
                fault("extents.lengthen.before_commit")
                self._database.write(lambda connection: self._lengthened(connection, key, taken))
                fault("extents.lengthen.after_commit")
            self.fit(record)
            return min(record.size_bytes, self.present_bytes(key))

    def _lengthened(self, connection: sqlite3.Connection, key: str, taken: Taken) -> None:
        if not connection.execute("SELECT 1 FROM volume WHERE key = ?", (key,)).fetchone():
            raise NotFound(f"volume {key} of pool {self._name} was deleted just now")
        taken.record(connection)

    def refresh(self) -> bool:
        """Take up segments that were added or made longer (csi-core pool grow); answer whether there were any.

        Raises:
            DataLoss: as when the pool is opened.
        """
        with self._growing:
            grown = False
            pool = self.space_map.pool
            for segment in self._records.segments():
                if segment.state != "ready":
                    continue
                if segment.number not in self._segments:
                    self._open(segment)
                    pool.add_segment(segment.extents)
                elif segment.extents > pool.segment_extents(segment.number):
                    pool.grow_segment(segment.number, segment.extents)
                else:
                    continue
                grown = True
                _log.info("pool has grown", pool=self._name, segment=segment.path, extents=segment.extents)
            return grown

    def ensure(self, key: str, size_bytes: int, *, thick: bool) -> None:
        """Its extents were taken with the commit, and read as zeros."""

    def own(self, key: str) -> None:
        """Copies never share extents."""

    def exists(self, key: str) -> bool:  # noqa: ARG002 - asked only of what was never attached
        return False

    def snapshot_charge(self, ledger: Ledger, volume: VolumeRecord) -> int:
        return ledger.charge(thin=False, size_bytes=self.present_bytes(volume.key))

    def abandon(self, key: str) -> None:
        """It was written into room of its own, which takes none away from pool.db."""

    def seal(self, key: str) -> None:
        """Nothing but this process maps it."""

    # -- what is deleted ----------------------------------------------------------------------------

    def retire(self, keys: Sequence[str]) -> None:
        # Before the commit: from then on the trash may free them at any moment. Where the commit fails they stay out of
        # use until it is repeated, or until the next start.
        for key in keys:
            runs = self._records.runs(key)
            with self._mutex:
                if runs and key not in self._retired:
                    self.space_map.quarantine(runs)
                    self._retired[key] = runs

    def free(self, key: str, stopping: Callable[[], bool], urgent: Callable[[], bool]) -> None:
        runs = self._records.runs(key)
        pace = Pace(self.devices.writes, urgent)
        fault("extents.zero.before_first")
        for run in runs:
            segment = self._segments[run.segment]
            length_bytes = run.length * self._pool.extent_bytes
            zero(segment.descriptor, segment.offset_of(run.start), length_bytes, pace=pace, stopping=stopping)
        fault("extents.zero.before_flush")
        for number in {run.segment for run in runs}:
            self._segments[number].flush()
        fault("extents.zero.after_flush")

    def sync(self) -> None:
        """There are no names; each range was flushed by who wrote it."""

    def forgotten(self, keys: Sequence[str]) -> None:
        for key in keys:
            with self._mutex:
                runs = self._retired.pop(key, [])
            self.space_map.reclaim(runs)

    # -- devices of this node -----------------------------------------------------------------------

    def attach(self, record: VolumeRecord, *, read_only: bool) -> Mapped:
        if not record.thick and not record.formatted:
            self._make_room_for_its_first_writer(record)
        runs = self._records.runs(record.key)
        if not runs:
            raise DataLoss(f"pool.db knows no place of {record.key}; restore pool.db from a copy")
        with images.storage_errors(f"segment of {record.key}"):
            size_bytes, elastic = self._shown_bytes(record, runs), not record.thick
            device = self.devices.attach(record.key, runs, size_bytes, read_only=read_only, elastic=elastic)
        if self._grower and not record.thick:
            self._grower.watch(record.key, device.node)
        return device

    def _make_room_for_its_first_writer(self, record: VolumeRecord) -> None:
        """What the grower would take as soon as it is mounted: then a growth would race the first writer."""
        if self.present_bytes(record.key) < min(record.size_bytes, growth.first_bytes()):
            with suppress(NoSpace):
                self.lengthen(record.key, growth.first_bytes())

    def device(self, key: str) -> Mapped | None:
        return self.devices.find(key, self._records.runs(key))

    def fit(self, record: VolumeRecord) -> None:
        runs = self._records.runs(record.key)
        self.devices.fit(record.key, runs, self._shown_bytes(record, runs))

    def detach(self, key: str) -> None:
        device = self.device(key)
        watched = self._grower is not None and self._grower.forget(key)
        try:
            with images.storage_errors(f"segment of {key}"):
                self.devices.detach(key, self._records.runs(key))
        except CallError:
            if watched and device and self._grower:  # it is still in use, and still written to
                self._grower.watch(key, device.node)
            raise

    def attached(self, keys: Sequence[str]) -> set[str]:
        return {key for key in keys if key in self.held or self.device(key)}

    # -- content ------------------------------------------------------------------------------------

    @contextmanager
    def copying(self, copy: Copy) -> Iterator[CopyUnderWay]:
        find_source = partial(self.content, copy.source_key) if copy.source_key else None
        pace = Pace(self.devices.writes)
        yield ContentCopy(find_source, self.content(copy.target_key), copy.size_bytes, pace)

    def data_ranges(self, key: str, start_bytes: int) -> Iterator[tuple[int, int]]:
        with images.storage_errors(f"snapshot {key}"):
            yield from self.content(key).data_ranges(start_bytes)

    def differing(self, base_key: str, target_key: str, start_bytes: int) -> Iterator[tuple[int, int]]:
        with images.storage_errors("comparing snapshots"):
            yield from self.content(target_key).differing(self.content(base_key), start_bytes)

    # -- care ---------------------------------------------------------------------------------------

    def volume_problems(self, record: VolumeRecord) -> Iterator[HealthProblem]:
        if problem := self.snapshot_problem(record.key, record.size_bytes if record.thick else 1):
            yield HealthProblem(HealthKind.DATA_LOSS, "ExtentsMissing", problem)
        if self._grower and (error := self._grower.problem(record.key)):
            reason = "PoolFull" if isinstance(error, NoSpace) else "GrowthFailed"
            yield HealthProblem(HealthKind.DEGRADED, reason, str(error))

    def snapshot_problem(self, key: str, size_bytes: int) -> str:
        present_bytes = self.present_bytes(key)
        if present_bytes < min(size_bytes, 1):
            return f"pool.db knows no place of {key}; restore pool.db from a copy"
        return ""

    def findings(self) -> Iterator[Finding]:
        if contradiction := self.space_map.pool.check():
            yield Finding(f"pool {self._name}", "free map contradicts itself", f"{contradiction}; restart the server")

    def repair(self, finding: Finding) -> bool:  # noqa: ARG002 - there is nothing that is safe to repair
        return False

    def fill_holes(self, record: VolumeRecord) -> bool:  # noqa: ARG002 - done when it is attached
        return False

    def _open(self, segment: SegmentRecord) -> None:
        label = Label(self._pool.uuid, segment.number, self._pool.extent_bytes)
        self._segments[segment.number] = Segment(Path(segment.path), label, segment.extents)

    def content(self, key: str) -> Content:
        """What lies in a volume or snapshot."""
        return Content(self._segments, self._records.runs(key), self._pool.extent_bytes)

    def _shown_bytes(self, record: VolumeRecord, runs: Sequence[RunRecord]) -> int:
        """What the device shows: all of the claim, or as much as an elastic volume has so far."""
        return min(record.size_bytes, sum(run.length for run in runs) * self._pool.extent_bytes)
