"""Random lives of loop images, compared with a model."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from backends.loop.plugin import LoopBackend
from csi_core.model import VolumeMode
from csi_core.testing.contract import BackendCase
from csi_core.testing.devices import xfs_filesystem
from csi_core.testing.stateful import BackendMachine


class LoopMachine(BackendMachine):
    plugin = LoopBackend
    mode = VolumeMode.BLOCK
    host: Path

    def open_case(self, directory: Path) -> BackendCase:
        pool_path = self.host / directory.name
        pool_path.mkdir()
        pool = {"path": str(pool_path), "allowLoopHost": True, "overcommit": 10}
        return BackendCase(lambda: LoopBackend({"pools": {"test": pool}}), size_bytes=2 << 20)


@pytest.mark.needs_root
@pytest.mark.usefixtures("host")
class TestLoopMachine(LoopMachine.TestCase):  # type: ignore[name-defined,misc]
    settings = settings(
        max_examples=15, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck),
        derandomize=True,
    )  # fmt: skip

    @pytest.fixture(scope="class")
    @classmethod
    def host(cls):
        with xfs_filesystem(2 << 30) as path:
            LoopMachine.host = path
            yield path
