"""Volumes that are directories: the smallest backend for csi-core.

A volume is ``<path>/<handle>/``, with its data in ``data`` and, written last, its record in ``record.json``.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Mapping
from pathlib import Path

from pydantic import Field, ValidationError

from csi_core.durable import sync, write
from csi_core.errors import ConfigError, DataLoss, FailedPrecondition, InvalidArgument, NoSpace, NotFound
from csi_core.hookspecs import Host, hookimpl
from csi_core.locks import Key, KeyedLocks
from csi_core.model import (
    AccessMode,
    AttachRequest,
    Created,
    Description,
    DirectorySource,
    Existing,
    Outcome,
    Page,
    Reach,
    Volume,
    VolumeMode,
    VolumeSpec,
)
from csi_core.parameters import Parameters, SizeBytes, explain, keys
from csi_core.sizes import choose_size

HANDLE = re.compile(r"dir-[0-9a-f]{32}")
BLOCK_BYTES, MINIMUM_BYTES, DEFAULT_BYTES = 4 << 10, 1 << 20, 1 << 30


class DirectoryOptions(Parameters):
    """The ``options`` in csi-core's configuration."""

    path: Path = Field(description="An existing directory for the volumes.")
    capacity: SizeBytes = Field(description="The largest volume. Directories have no quota: nothing holds a pod to it.")


class DirectoryBackend:
    """Seven required hooks, and ``start``."""

    csi_core_api = 1

    def __init__(self, options: Mapping[str, object]) -> None:
        try:
            self._options = DirectoryOptions.model_validate(options)
        except ValidationError as error:
            raise ConfigError(explain(error, keys(DirectoryOptions), "option")) from None
        self._locks = KeyedLocks()

    @hookimpl
    def start(self, host: Host) -> None:
        """Refuse a path that is not there: it may be a mount that has not come up."""
        if not self._options.path.is_dir():
            raise ConfigError(f"backend {host.backend_name!r}: path {self._options.path} is not a directory; create it")

    @hookimpl
    def describe(self) -> Description:
        """Directories for one node, no raw block."""
        return Description(
            summary=f"directories in {self._options.path}",
            reach=Reach.NODE_LOCAL,
            access={VolumeMode.FILESYSTEM: frozenset(m for m in AccessMode if not m.multi_node)},
            size_granularity_bytes=BLOCK_BYTES,
            minimum_size_bytes=MINIMUM_BYTES,
            default_size_bytes=DEFAULT_BYTES,
        )

    @hookimpl
    def create_volume(self, spec: VolumeSpec) -> Outcome[Volume]:
        """Make the data, then the record; the same name finds both again."""
        handle = f"dir-{hashlib.sha256(spec.name.encode()).hexdigest()[:32]}"
        with self._locks.hold("create_volume", Key("directory", handle)):
            if volume := self._read(handle):
                return Existing(volume)
            size_bytes = choose_size(
                spec.size, granularity_bytes=BLOCK_BYTES, minimum_bytes=MINIMUM_BYTES, default_bytes=DEFAULT_BYTES
            )
            if size_bytes > self._options.capacity:
                raise NoSpace(f"{size_bytes} bytes are more than the option capacity allows, {self._options.capacity}")
            volume = Volume(handle, spec.name, size_bytes, dict(spec.recorded))
            directory = self._options.path / handle
            shutil.rmtree(directory, ignore_errors=True)  # a create or delete that was interrupted
            (directory / "data").mkdir(parents=True)
            record = {"name": volume.name, "size_bytes": size_bytes, "recorded": dict(volume.recorded)}
            write(directory / "record.new", json.dumps(record).encode())
            (directory / "record.new").rename(directory / "record.json")
            sync(directory)
            sync(self._options.path)
            return Created(volume)

    @hookimpl
    def delete_volume(self, handle: str) -> None:
        """Remove the record, then the data; both may be gone already."""
        if not HANDLE.fullmatch(handle):
            return
        with self._locks.hold("delete_volume", Key("directory", handle)):  # a create is locked by its name only
            directory = self._options.path / handle
            if (directory / "attached").exists():
                raise FailedPrecondition(f"volume {handle} is in use; unstage it before it is deleted")
            if directory.exists():
                (directory / "record.json").unlink(missing_ok=True)
                sync(directory)
                shutil.rmtree(directory)

    @hookimpl
    def get_volume(self, handle: str) -> Volume | None:
        """Read the record."""
        return self._read(handle)

    @hookimpl
    def list_volumes(self, cursor: str, limit: int) -> Page[Volume]:
        """By handle; the cursor is the last one of the page before."""
        if cursor and not HANDLE.fullmatch(cursor):
            raise InvalidArgument(f"{cursor!r} is not a cursor of this listing")
        handles = sorted(path.parent.name for path in self._options.path.glob("dir-*/record.json"))
        after = [handle for handle in handles if handle > cursor]
        volumes = tuple(volume for handle in after[:limit] if (volume := self._read(handle)))
        return Page(volumes, after[limit - 1] if len(after) > limit else "")

    @hookimpl
    def attach_volume(self, request: AttachRequest) -> DirectorySource:
        """Answer the data, and note that it is in use."""
        if self._read(request.handle) is None:
            raise NotFound(f"there is no volume {request.handle!r}")
        directory = self._options.path / request.handle
        if not (directory / "data").is_dir():
            raise DataLoss(f"{directory / 'data'} is missing; restore it from a backup")
        (directory / "attached").touch()
        return DirectorySource(directory / "data")

    @hookimpl
    def detach_volume(self, handle: str) -> None:
        """Note that it is no longer in use."""
        if HANDLE.fullmatch(handle):
            (self._options.path / handle / "attached").unlink(missing_ok=True)

    def _read(self, handle: str) -> Volume | None:
        if not HANDLE.fullmatch(handle):  # handles come from outside: judge them before they become paths
            return None
        try:
            record = json.loads((self._options.path / handle / "record.json").read_bytes())
        except FileNotFoundError:
            return None
        return Volume(handle, record["name"], record["size_bytes"], record["recorded"])
