"""Everything that one root needs, opened once and closed once."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import Final

import structlog

from backends.nfs.btrfs import Subvolumes, on_btrfs
from backends.nfs.exportfs import Server
from backends.nfs.exports import Exports
from backends.nfs.index import Index
from backends.nfs.intents import Intent, read_intent
from backends.nfs.options import ExportOptions
from backends.nfs.others import others_bytes
from backends.nfs.records import Kind, Record, new_key
from backends.nfs.root import Root, place_of, storage_errors
from backends.nfs.sizing import ProjectQuotas, Sizing, Unsized
from backends.nfs.trash import Trash
from csi_core.background import BackgroundWork, Cancelled
from csi_core.errors import ConfigError, DataLoss, NoSpace, Unavailable
from csi_core.ledger import Ledger, Reservation
from csi_core.node.mountinfo import MountTable
from csi_core.watch import Watch

__all__ = ["Storage"]

_log = structlog.get_logger(__name__)
_TRASH_WAIT_S: Final = 2.0
_KEEP_HALF_MADE_S: Final = 900.0
"""Sidecars that want a volume ask for it again within five minutes."""
_OTHERS_EVERY_S: Final = 60.0
_LIMITING: Final = (
    "mount XFS with -o prjquota; make ext4 with `mkfs.ext4 -O quota,project -E quotatype=prjquota` and mount it with "
    "-o prjquota; on btrfs say `btrfs quota enable`; or say sizeEnforcement: none"
)


class Storage:
    """An open root with its books, its trash and its exports.

    Attributes:
        options: the configuration.
        fs_type: what the root lies on.
        root, sizing: where things lie, and how their sizes are enforced.
        index: the records, in memory.
        ledger: capacity, promised and used bytes.
        trash: removes what was deleted.
        work: copies that outlive their calls.
        exports: who may mount what.
    """

    def __init__(
        self, options: ExportOptions, server: Server, backend_name: str, max_volumes_per_node: int = 0
    ) -> None:
        """Open the root, throw away what a crash left half-made, export what is published.

        Raises:
            ConfigError: the root is missing, or cannot keep volumes within their size.
            Unavailable: its filesystem is not mounted yet, or another process still serves it.
        """
        if options.require_mount and not options.root.is_mount():
            raise Unavailable(f"export.root {options.root}: nothing is mounted there yet; mount its disk")
        self.options = options
        self._max_volumes_per_node = max_volumes_per_node
        self._admission = threading.Lock()
        self._half_made: dict[str, tuple[str, Intent]] = {}
        self._half_made_taken = threading.Lock()
        with ExitStack() as undo:
            self.root = self._open_root()
            undo.callback(self.root.close)
            self.fs_type = _fs_type(options.root)
            self.sizing = self._chosen_sizing()
            self.index = Index()
            self.ledger = Ledger(
                capacity_bytes=options.capacity or self._statvfs()[0],
                overcommit_ratio=options.overcommit,
                warn_at=options.warn_at,
                stop_at=options.stop_at,
                physical=self._statvfs,
            )
            self.trash = Trash(self.root, self.sizing, self.ledger)
            self.work = BackgroundWork()
            self.exports = self._open_exports(server, backend_name)
            with storage_errors(f"export.root {options.root}"):
                left = self._recover()
                self.exports.reconcile(self.index.all("v"))
                if self.sizing.counts:
                    self.note_others()
            undo.pop_all()
        self.trash.start(left)
        self._forgetting = threading.Timer(_KEEP_HALF_MADE_S, self._forget_half_made)
        self._forgetting.daemon = True
        if self._half_made:
            self._forgetting.start()
        trouble = "what others have of the root's filesystem cannot be found out"
        self._watch = Watch(self.note_others, _OTHERS_EVERY_S, trouble)
        if self.sizing.counts:
            self._watch.start()

    def close(self) -> None:
        """Stop copies and removal; they are taken up, or thrown away, at the next start. Exports stay."""
        self._watch.stop()
        self._forgetting.cancel()
        if self._forgetting.is_alive():
            self._forgetting.join(_TRASH_WAIT_S)
        self.work.stop()
        self.trash.stop()
        self.root.close()

    def note_others(self) -> None:
        """Tell the ledger what others have of the filesystem; where sizes are counted."""

        def records() -> list[Record]:
            return [*self.index.all("v"), *self.index.all("s")]

        self.ledger.note_others(others_bytes(self.sizing, records, self._statvfs))

    def counted(self, record: Record) -> bool:
        """Whether what a volume holds is counted by the id of its record.

        Not where it was made without quotas, or restored from a backup: then the id may be another's, or everybody's.
        """
        if not (self.sizing.counts and record.tree_id):
            return False
        try:
            with self.root.data("volumes", record.key) as content:
                return self.sizing.tree_id(content) == record.tree_id
        except (DataLoss, OSError):  # health says so; it keeps no other volume from being served
            return False

    def charge(self, size_bytes: int) -> int:
        """What so many bytes cost in the ledger."""
        return self.ledger.charge(thin=True, size_bytes=size_bytes)

    def reserve(self, charge_bytes: int) -> Reservation:
        """Take ``charge_bytes`` from the capacity until the reservation is committed or left.

        Raises:
            NoSpace: no room, also after waiting a moment for what is being removed.
        """
        try:
            return self.ledger.reserve(charge_bytes)
        except NoSpace:
            if not self.trash.emptied(_TRASH_WAIT_S):
                raise
            return self.ledger.reserve(charge_bytes)

    def finish(self, record: Record, *reservations: Reservation) -> None:
        """What was made in ``new`` is a volume or snapshot from now on, or nothing."""
        try:
            self.root.finish(record, self.sizing)
        except BaseException:
            # Whoever asks again makes it anew; a start must not find both.
            self.root.discard(place_of(record.key), record.key)
            raise
        for reservation in reservations:
            reservation.commit()
        self.index.put(record)

    def admit(self, record: Record, node_id: str) -> None:
        """Record a volume with a node that may have it now.

        Raises:
            NoSpace: the node has as many volumes as it may.
        """
        if record == self.index.find("v", record.key):
            return
        limit = self._max_volumes_per_node
        with self._admission if limit else nullcontext():
            others = (other for other in self.index.all("v") if other.key != record.key)
            if limit and sum(node_id in other.publications for other in others) >= limit:
                raise NoSpace(f"node {node_id} has {limit} volumes, as many as maxVolumesPerNode lets it have")
            self.update(record)

    def update(self, record: Record) -> None:
        """Replace a volume's record."""
        with storage_errors(f"volume {record.key}"):
            self.root.update(record)
        self.index.put(record)

    @contextmanager
    def making(self, key: str) -> Iterator[int]:
        """A new object's own directory, open; thrown away where the block does not end well."""
        with storage_errors(f"export.root {self.options.root}"):
            os.mkdir(key, 0o711, dir_fd=self.root.place("new"))
            try:
                with self.root.opened("new", key) as directory:
                    yield directory
            except BaseException:
                self.root.discard("new", key)
                self.trash.add(key, 0)
                raise

    @contextmanager
    def copying(self, work: str, kind: Kind, source_key: str) -> Iterator[tuple[str, int, Intent | None]]:
        """As :meth:`making`, for a copy: its key, its directory, and where an earlier process was with it.

        What a stopping process leaves the next one goes on with; what fails is thrown away.
        """
        with self._half_made_taken:
            key, intent = self._half_made.pop(work, ("", None))
        if intent is None or intent.source_key != source_key:
            if key:
                self._throw_away(key)
            key = new_key(kind)
            with storage_errors(f"export.root {self.options.root}"):
                os.mkdir(key, 0o711, dir_fd=self.root.place("new"))
            intent = None
        with storage_errors(f"export.root {self.options.root}"):
            try:
                with self.root.opened("new", key) as directory:
                    yield key, directory, intent
            except Cancelled:
                raise  # the process ends; a note that is there tells the next one
            except BaseException:
                self._throw_away(key)
                raise

    def _throw_away(self, key: str) -> None:
        self.root.discard("new", key)
        self.trash.add(key, 0)

    def _forget_half_made(self) -> None:
        """Nobody has asked for them again."""
        with self._half_made_taken:
            forgotten, self._half_made = self._half_made, {}
        for work, (key, _) in forgotten.items():
            _log.warning("half-made, and nobody asks for it again; thrown away", key=key, work=work)
            self._throw_away(key)

    def delete(self, record: Record, *, wait: bool = True) -> None:
        """Move an object to the trash, and give its removal a moment where ``wait`` says so.

        Raises:
            Busy: it is being copied.
        """
        # First of all: a copy that begins now would find half of the content, and be taken for all of it.
        self.index.drop(record.key)
        try:
            with storage_errors(f"export.root {self.options.root}"):
                self.root.discard(place_of(record.key), record.key)
        except BaseException:
            self.index.put(record)
            raise
        self.trash.add(record.key, record.charge_bytes)
        if wait:
            self.trash.gone(record.key, _TRASH_WAIT_S)

    def _open_root(self) -> Root:
        return Root(self.options.root)

    def _open_exports(self, server: Server, backend_name: str) -> Exports:
        return Exports(server, self.options, self.root, backend_name)

    def _chosen_sizing(self) -> Sizing:
        options = self.options
        if options.size_enforcement == "none":
            return Unsized()
        sizing: Sizing
        if on_btrfs(self.root.directory):
            sizing = Subvolumes(self.root.directory)
        else:
            sizing = ProjectQuotas(self.root.directory, options.first_project_id)
        if not sizing.enforced():
            raise ConfigError(f"export.root {options.root} is on {self.fs_type} without quotas: {_LIMITING}")
        if self.fs_type == "ext4" and options.squash == "none":
            raise ConfigError(
                f"export.root {options.root} is on ext4, which lets root of a pod exceed the volume's size: say "
                f"squash: root, take XFS or btrfs, or say sizeEnforcement: none"
            )
        return sizing

    def _recover(self) -> dict[str, int]:
        """Take up the records, and put right what a crash left; answer what is in the trash and its charges."""
        for key in self.root.keys("new"):
            with self.root.opened("new", key) as directory:
                intent = read_intent(directory)
            if intent and intent.work not in self._half_made:
                _log.warning("half-made, and kept for who asks for it again", key=key, work=intent.work)
                self._half_made[intent.work] = (key, intent)
            else:
                _log.warning("half-made, and thrown away", key=key)
                self.root.discard("new", key)
        volumes, groups = self.root.records("volumes"), self.root.records("groups")
        known = {"", *self.root.keys("groups")}  # a group whose record cannot be read has its members all the same
        snapshots = []
        for record in self.root.records("snapshots"):
            if record.group_key in known:
                snapshots.append(record)
            else:
                _log.warning("of a group that was not finished, or was deleted; thrown away", key=record.key)
                self.root.discard("snapshots", record.key)
        deleted = self.root.records("trash")
        self.sizing.adopt(record.tree_id for record in (*volumes, *snapshots, *deleted) if record.tree_id)
        self.ledger.load(sum(record.charge_bytes for record in (*volumes, *snapshots, *deleted)))
        for record in (*volumes, *snapshots, *groups):
            self.index.put(record)
        for record in volumes:
            # A process may have been killed between record and limit.
            if self.counted(record) and self.sizing.usage(record.tree_id).limit_bytes != record.size_bytes:
                self.sizing.limit(record.tree_id, record.size_bytes)
        return dict.fromkeys(self.root.keys("trash"), 0) | {record.key: record.charge_bytes for record in deleted}

    def _statvfs(self) -> tuple[int, int]:
        found = os.fstatvfs(self.root.directory)
        return found.f_blocks * found.f_frsize, found.f_bavail * found.f_frsize


def _fs_type(path: Path) -> str:
    resolved = path.resolve()
    around = [mount for mount in MountTable.read().all() if resolved.is_relative_to(mount.path)]
    # The deepest, and of several at one place the one on top, which comes last.
    return max(enumerate(around), key=lambda found: (len(found[1].path.parts), found[0]))[1].fs_type
