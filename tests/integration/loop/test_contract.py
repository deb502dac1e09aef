"""The loop backend keeps the contract, in both layouts. The host has reflinks; test_copies.py covers one without."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from backends.loop.plugin import LoopBackend
from csi_core.testing.contract import BackendCase, BackendContract
from csi_core.testing.devices import xfs_filesystem

from .extent_pools import MIB, cloned_pool, made_pool


class TestLoop(BackendContract):
    """Every hook but those for networks and mutable parameters."""

    plugin = LoopBackend

    @pytest.fixture
    def case(self) -> Iterator[BackendCase]:
        with xfs_filesystem(2 << 30) as host:
            (host / "pool").mkdir()
            pool = {"path": str(host / "pool"), "allowLoopHost": True, "overcommit": 10}
            with BackendCase(lambda: LoopBackend({"pools": {"local": pool}})) as case:
                yield case


class TestPackedLoop(BackendContract):
    """The same, packed into a preallocated file."""

    plugin = LoopBackend

    @pytest.fixture(scope="class")
    @classmethod
    def host(cls) -> Iterator[Path]:
        """A host filesystem with a new pool, whose segment is written with zeros once for all tests."""
        with xfs_filesystem(4 << 30) as host:
            (host / "new").mkdir()
            made_pool(host / "new", 1200 * MIB)
            yield host

    @pytest.fixture
    def case(self, host: Path) -> Iterator[BackendCase]:
        pool = cloned_pool(host / "new", host / "pool")
        thick = {"provisioning": "thick"}
        with BackendCase(lambda: LoopBackend({"pools": {"local": pool}}), parameters=thick, size_bytes=4 * MIB) as case:
            yield case
        shutil.rmtree(host / "pool")
