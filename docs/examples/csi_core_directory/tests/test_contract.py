"""csi-core's conformance kit, run on this backend: that is all the testing it needs to begin with."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from csi_core_directory import DirectoryBackend

from csi_core.model import VolumeMode
from csi_core.testing.contract import BackendCase, BackendContract


class TestDirectory(BackendContract):
    """Directories only, filled from nothing."""

    plugin = DirectoryBackend
    volume_modes = (VolumeMode.FILESYSTEM,)
    sources = ()

    @pytest.fixture
    def case(self, tmp_path: Path) -> Iterator[BackendCase]:
        """Empty storage for each test."""
        options = {"path": str(tmp_path), "capacity": "100Gi"}
        with BackendCase(lambda: DirectoryBackend(options), inventory=lambda: map(str, tmp_path.rglob("*"))) as case:
            yield case
