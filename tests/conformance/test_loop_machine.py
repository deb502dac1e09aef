"""Random lives of loop volumes, images and packed, compared with a model."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from backends.loop.database import PoolDatabase
from backends.loop.extents import preparing
from backends.loop.options import SegmentOptions
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


class PackedMachine(LoopMachine):
    def open_case(self, directory: Path) -> BackendCase:
        pool_path = self.host / directory.name
        pool_path.mkdir()
        self._stack.callback(shutil.rmtree, pool_path, ignore_errors=True)
        segment = SegmentOptions(path=pool_path / "segment", size=200 << 20)
        database = PoolDatabase(pool_path / "pool.db")
        preparing.create(database, [segment], 1 << 20, force=False, progress=lambda *_: None)
        database.close()
        pool = {"path": str(pool_path), "allowLoopHost": True, "layout": "extents"}
        thick = {"provisioning": "thick"}

        def opened() -> LoopBackend:
            self.backend = LoopBackend({"pools": {"test": pool}})
            return self.backend

        return BackendCase(opened, parameters=thick, size_bytes=2 << 20)

    def available_bytes(self) -> int:
        """Once what was deleted is zeroed: it takes room until then."""
        assert all(pool.trash.emptied(30) for pool in self.backend._pools)
        return super().available_bytes()


@pytest.mark.needs_root
@pytest.mark.usefixtures("host")
class TestPackedMachine(PackedMachine.TestCase):  # type: ignore[name-defined,misc]
    settings = settings(
        max_examples=8, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck),
        derandomize=True,
    )  # fmt: skip

    @pytest.fixture(scope="class")
    @classmethod
    def host(cls):
        with xfs_filesystem(3 << 30) as path:
            PackedMachine.host = path
            yield path
