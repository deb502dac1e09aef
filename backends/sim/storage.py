"""What the hooks stand on: records, content, ledger and nodes, and the rules for handles and pages."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TypeVar

from backends.sim.content import BLOCK_BYTES, Content
from backends.sim.options import SimOptions, SimSecrets
from backends.sim.records import Records, VolumeRecord
from csi_core.errors import InvalidArgument, NotFound, Unauthenticated
from csi_core.ledger import Ledger
from csi_core.locks import Key, KeyedLocks
from csi_core.model import Page, Snapshot, Volume
from csi_core.parameters import Parameters

__all__ = ["DEFAULT_BYTES", "GRANULARITY_BYTES", "MINIMUM_BYTES", "SimStorage", "handle_of", "page_of"]

GRANULARITY_BYTES = BLOCK_BYTES
MINIMUM_BYTES = 1 << 20
DEFAULT_BYTES = 1 << 30
_HANDLE = re.compile(r"(volume|snapshot|group)-[0-9a-f]{32}")

T = TypeVar("T", Volume, Snapshot)


class SimStorage:
    """The simulated storage, opened.

    Args:
        directory: for content, and for the records where ``options`` keep them.
        options: the backend's.
        node_id: this node, which volumes can be published to beside the configured ones.

    Raises:
        DataLoss: the records cannot be read.
    """

    def __init__(self, directory: Path, options: SimOptions, node_id: str) -> None:
        self.content = Content(directory / "content")
        self.records = Records(directory / "records.json" if options.directory else None)
        self.ledger = Ledger(options.capacity, options.overcommit)
        self.ledger.load(sum(record.charge_bytes for record in self.records.all_volumes()))
        self.nodes = {node_id, *options.nodes}
        self.max_volumes_per_node = options.max_volumes_per_node
        self.locks = KeyedLocks()
        self._secret_key = options.secret_key.get_secret_value()

    def authenticate(self, secrets: Parameters) -> None:
        """Refuse a call without the right secret, where one is configured."""
        given = secrets.secret_key.get_secret_value() if isinstance(secrets, SimSecrets) else ""
        if self._secret_key and given != self._secret_key:
            raise Unauthenticated("the secret secretKey is missing, or is not the one in the backend's options")

    def alone(self, call: str, handle: str) -> AbstractContextManager[object]:
        """Keep a create and a delete apart: handles follow from names here, and the core locks a create by its name.

        Raises:
            Busy: the other one is under way.
        """
        return self.locks.hold(call, Key("content", handle))

    def volume(self, handle: str) -> VolumeRecord:
        """The record of a volume that must be there."""
        record = self.records.volumes.get(handle)
        if record is None:
            raise NotFound(f"there is no volume {handle!r}")
        return record

    def put(self, record: VolumeRecord) -> None:
        """Write one volume's record, durably."""
        with self.records.change():
            self.records.volumes[record.volume.handle] = record

    def remove_content(self, handle: str) -> None:
        """Remove what a handle holds. Handles come from outside: what is none has no content, and is never a path."""
        if _HANDLE.fullmatch(handle):
            self.content.remove(handle)


def handle_of(kind: str, name: str) -> str:
    """One name, one handle: for names of any length, case and script, and safe as a file name."""
    return f"{kind}-{hashlib.sha256(name.encode()).hexdigest()[:32]}"


def page_of(entries: Iterable[T], cursor: str, limit: int) -> Page[T]:
    """At most ``limit`` entries after ``cursor``, by handle: an order that holds while entries come and go."""
    if cursor and not _HANDLE.fullmatch(cursor):
        raise InvalidArgument(f"{cursor!r} is not a cursor of this listing")
    after = sorted((entry for entry in entries if entry.handle > cursor), key=lambda entry: entry.handle)
    page = tuple(after[:limit])
    return Page(page, page[-1].handle if len(after) > limit else "")
