"""The LVM backend keeps the contract, with each type of volume."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

import pytest

from backends.lvm.plugin import LvmBackend
from csi_core.testing.contract import BackendCase, BackendContract

pytestmark = pytest.mark.needs_kernel("device-mapper")


class TestLinear(BackendContract):
    """Every hook but those for networks and mutable parameters."""

    plugin = LvmBackend
    parameters: ClassVar[dict[str, str]] = {}

    @pytest.fixture
    def case(self, group: str) -> Iterator[BackendCase]:
        options = {"classes": {"test": {"volumeGroup": group}}}
        with BackendCase(lambda: LvmBackend(options), parameters=self.parameters) as case:
            yield case
