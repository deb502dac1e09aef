"""Health, diagnosis and repair of storage that is in order."""

from __future__ import annotations

import pytest

from csi_core.errors import NotFound
from csi_core.testing.contract.case import BackendCase
from csi_core.testing.contract.selection import Selection, needs

__all__ = ["CareTests"]


class CareTests(Selection):
    """Health and diagnosis. What a backend finds in broken storage only its own tests can know."""

    def use(self, case: BackendCase) -> None:
        """Create, write, delete: after that everything must still be in order."""
        for mode in self.volume_modes:
            volume = case.create(mode.value, mode)
            case.write(volume, mode, "data")
            if "create_snapshot" in case.backend.hooks:
                case.snapshot(mode.value, volume)
            case.delete(case.create("gone", mode))

    @needs("volume_health")
    def test_healthy_volume(self, case: BackendCase) -> None:
        """Nothing is wrong; a volume that is not there has no health."""
        self.use(case)
        for volume in case.volumes():
            assert case.backend.volume_health(volume.handle) == ()
        with pytest.raises(NotFound):
            case.backend.volume_health("no-such-handle")

    @needs("storage_health")
    def test_healthy_storage(self, case: BackendCase) -> None:
        """Nothing is wrong with storage that is nearly empty."""
        self.use(case)
        assert case.backend.storage_health() == ()

    @needs("diagnose")
    def test_nothing_to_find(self, case: BackendCase) -> None:
        """A life in order leaves nothing behind, also after a restart, and diagnosing changes nothing."""
        self.use(case)
        before = case.volumes()
        for _ in range(2):
            assert list(case.backend.diagnose()) == []
            assert case.volumes() == before
            case.reopen()
