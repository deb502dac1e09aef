"""Loop volumes behind a real server, with the kernel's mounts.

Images: ext4 on a host with reflinks, XFS on one without. Packed: ext4 in a preallocated file.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import pytest

from backends.loop.database import PoolDatabase
from backends.loop.extents import preparing
from backends.loop.options import SegmentOptions
from backends.loop.plugin import LoopBackend
from csi_core.testing.devices import ext4_filesystem, leak_check, xfs_filesystem
from csi_core.testing.driver import DriverCase, DriverContract
from csi_core.testing.harness import ServerProcess

pytestmark = pytest.mark.needs_root


class TestExt4OnXfs(DriverContract):
    """Copies share blocks."""

    plugin = LoopBackend
    host: ClassVar = staticmethod(xfs_filesystem)
    fs_type: ClassVar = "ext4"
    size_bytes: ClassVar = 64 << 20
    parameters: ClassVar[dict[str, str]] = {}

    @classmethod
    def made_pool(cls, path: Path) -> dict[str, object]:
        return {"path": str(path), "allowLoopHost": True, "overcommit": 20}

    @pytest.fixture(scope="class")
    @classmethod
    def server(cls, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
        directory = tmp_path_factory.mktemp("server")
        with leak_check(directory), cls.host(4 << 30) as host:
            (host / "pool").mkdir()
            pool = cls.made_pool(host / "pool")
            with ServerProcess({"backends": {"loop": {"options": {"pools": {"test": pool}}}}}, directory) as server:
                yield server

    @pytest.fixture
    def case(self, server: ServerProcess, tmp_path_factory: pytest.TempPathFactory) -> DriverCase:
        # Short paths: the kernel's mount table shows them, and so does a failure.
        directory = tmp_path_factory.mktemp("kubelet").resolve()
        return DriverCase(
            server,
            directory,
            backend="loop",
            fs_type=self.fs_type,
            parameters=self.parameters,
            size_bytes=self.size_bytes,
        )


class TestXfsOnExt4(TestExt4OnXfs):
    """Copies are read and written. A restart in order is tried above: a kill asks for more."""

    test_restarted_after_every_step = None
    host: ClassVar = staticmethod(ext4_filesystem)
    fs_type: ClassVar = "xfs"
    size_bytes: ClassVar = 320 << 20


class TestPackedExt4(TestExt4OnXfs):
    """One file holds all of them, and copies are read and written."""

    test_restarted_after_every_step = None
    size_bytes: ClassVar = 16 << 20
    parameters: ClassVar = {"provisioning": "thick"}

    @classmethod
    def made_pool(cls, path: Path) -> dict[str, object]:
        database = PoolDatabase(path / "pool.db")
        segment = SegmentOptions(path=path / "segment", size=3 << 30)
        preparing.create(database, [segment], 1 << 20, force=False, progress=lambda *_: None)
        database.close()
        return {"path": str(path), "allowLoopHost": True, "layout": "extents"}
