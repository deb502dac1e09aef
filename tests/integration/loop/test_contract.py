"""The loop backend keeps the contract. The host filesystem has reflinks; test_copies.py covers one without."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from backends.loop.plugin import LoopBackend
from csi_core.testing.contract import BackendCase, BackendContract
from csi_core.testing.devices import xfs_filesystem


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
