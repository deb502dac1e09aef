"""Mode export by the conformance kit, without a kernel's NFS server: what of it is no networking."""

from __future__ import annotations

import pytest
from fake_server import FakeServer, LocalNfs, case_on

from csi_core.model import SourceKind, VolumeMode
from csi_core.testing.contract import BackendContract


class TestUnsized(BackendContract):
    plugin = LocalNfs
    volume_modes = (VolumeMode.FILESYSTEM,)
    sources = tuple(SourceKind)

    @pytest.fixture
    def case(self, tmp_path):
        with case_on(tmp_path, FakeServer(), size_enforcement="none", capacity="8Gi") as case:
            yield case
