"""A complete backend on a directory: every hook there is.

What to look at when writing one: how a name becomes a handle, so that a repeated call finds what the
first one made (``storage.py``); that the ledger is asked before anything is made, that data is there before the
record that names it and goes after it (``volumes.py``); and that every hook can be called again after a crash.
A backend that does only what is required is in ``docs/examples``.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from pydantic import ValidationError

from backends.sim.injection import Injection, simulated
from backends.sim.options import SimMutable, SimOptions, SimParameters, SimSecrets, SimSnapshotParameters
from backends.sim.records import VolumeRecord
from backends.sim.snapshots import SnapshotHooks
from backends.sim.storage import DEFAULT_BYTES, GRANULARITY_BYTES, MINIMUM_BYTES, SimStorage
from backends.sim.volumes import VolumeHooks
from csi_core.errors import ConfigError
from csi_core.health import Finding, HealthKind, HealthProblem
from csi_core.hookspecs import Host
from csi_core.model import (
    AccessMode,
    AttachRequest,
    BlockSource,
    Description,
    DirectorySource,
    Source,
    SourceKind,
    VolumeMode,
)
from csi_core.parameters import explain, keys

__all__ = ["SimBackend"]

_WARN_AT = 0.85


class SimBackend(VolumeHooks, SnapshotHooks):
    """The simulator. ``options`` are :class:`~backends.sim.options.SimOptions`.

    Raises:
        ConfigError: names the wrong option.
    """

    csi_core_api = 1
    options_model = SimOptions
    declaration = Description(
        summary="simulated volumes in a directory, for tests and examples",
        reach=SimOptions.model_fields["reach"].default,
        access={mode: frozenset(AccessMode) for mode in VolumeMode},
        sources=frozenset(SourceKind),
        parameters=SimParameters,
        mutable=SimMutable,
        secrets=SimSecrets,
        snapshot_parameters=SimSnapshotParameters,
        size_granularity_bytes=GRANULARITY_BYTES,
        minimum_size_bytes=MINIMUM_BYTES,
        default_size_bytes=DEFAULT_BYTES,
        ephemeral=True,
    )

    def __init__(self, options: Mapping[str, object]) -> None:
        try:
            self._options = SimOptions.model_validate(options)
        except ValidationError as error:
            raise ConfigError(explain(error, keys(SimOptions), "option")) from None
        self.injection = Injection(self._options.latency_seconds, self._options.failures)
        self._temporary: tempfile.TemporaryDirectory[str] | None = None

    @simulated
    def start(self, host: Host) -> None:
        """Open the storage; what its records promise is charged again."""
        directory = self._options.directory
        if directory is None:
            self._temporary = tempfile.TemporaryDirectory(prefix="csi-core-sim-")
            directory = Path(self._temporary.name)
        self.storage = SimStorage(directory, self._options, host.node_id)

    @simulated
    def stop(self) -> None:
        """Remove what was only there for this process."""
        if self._temporary:
            self._temporary.cleanup()

    @simulated
    def describe(self) -> Description:
        """Everything that a backend can serve, but a filesystem of its own: directories are bound as they are."""
        return replace(
            self.declaration,
            reach=self._options.reach,
            max_volumes_per_node=self.storage.max_volumes_per_node,
            facts={"directory": str(self._options.directory or "temporary")},
        )

    @simulated
    def attach_volume(self, request: AttachRequest) -> Source:
        """Answer where the content is; note that it is in use."""
        self.storage.authenticate(request.secrets)
        record = self.storage.volume(request.handle)
        if not record.attached:
            self.storage.put(replace(record, attached=True))
        return self._source(record)

    @simulated
    def find_source(self, handle: str) -> Source | None:
        """The same answer, for a volume that is in use."""
        record = self.storage.records.volumes.get(handle)
        return self._source(record) if record and record.attached else None

    @simulated
    def detach_volume(self, handle: str) -> None:
        """Note that it is no longer in use."""
        record = self.storage.records.volumes.get(handle)
        if record and record.attached:
            self.storage.put(replace(record, attached=False))

    @simulated
    def mark_formatted(self, handle: str, fs_type: str) -> None:
        """Never called while ``filesystems`` is empty; recorded for completeness."""
        self.storage.put(replace(self.storage.volume(handle), formatted=fs_type))

    @simulated
    def volume_health(self, handle: str) -> tuple[HealthProblem, ...]:
        """A volume whose content is missing is beyond repair."""
        self.storage.volume(handle)
        if handle in self.storage.content.handles():
            return ()
        return (HealthProblem(HealthKind.DATA_LOSS, "ContentMissing", f"the content of volume {handle} is gone"),)

    @simulated
    def storage_health(self) -> tuple[HealthProblem, ...]:
        """The ledger's watermarks."""
        state = self.storage.ledger.snapshot()
        if state.promised_bytes <= _WARN_AT * state.capacity_bytes:
            return ()
        message = f"{state.promised_bytes} of {state.capacity_bytes} bytes are promised; add capacity or delete volumes"
        return (HealthProblem(HealthKind.DEGRADED, "NearlyFull", message),)

    @simulated
    def diagnose(self) -> Iterator[Finding]:
        """Records without content, content without a record."""
        recorded, found = (
            {*self.storage.records.volumes, *self.storage.records.snapshots},
            self.storage.content.handles(),
        )
        for handle in sorted(recorded - found):
            yield Finding(handle, "its content is missing", "restore it from a backup, or delete it")
        for handle in sorted(found - recorded):
            yield Finding(handle, "content that no record names", "left by a crash; can be removed", repairable=True)

    @simulated
    def repair(self, finding: Finding) -> bool:
        """Remove content that no record names: of a create that was interrupted, or a delete."""
        handle = finding.subject
        if not finding.repairable or handle in self.storage.records.volumes or handle in self.storage.records.snapshots:
            return False
        self.storage.remove_content(handle)
        return True

    def _source(self, record: VolumeRecord) -> Source:
        path = self.storage.content.path(record.volume.handle)
        if record.mode is VolumeMode.BLOCK:
            return BlockSource(path, record.volume.size_bytes, record.formatted)
        return DirectorySource(path)
