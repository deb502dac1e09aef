"""Mode share by the conformance kit, as far as no network is needed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from local_share import LocalShare, share_case

from csi_core.model import SourceKind, VolumeMode
from csi_core.testing.contract import BackendCase, BackendContract


class TestShare(BackendContract):
    """All hooks; the capacity is one that the kit can fill."""

    plugin = LocalShare
    volume_modes = (VolumeMode.FILESYSTEM,)
    sources = tuple(SourceKind)

    @pytest.fixture
    def case(self, tmp_path: Path) -> Iterator[BackendCase]:
        with share_case(tmp_path / "share", capacity="8Gi", overcommit=1.0) as case:
            yield case
