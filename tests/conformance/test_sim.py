"""The simulator keeps the contract: with its records in a file, and bound to one node."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import pytest

from backends.sim.plugin import SimBackend
from csi_core.testing.contract import BackendCase, BackendContract


class TestSim(BackendContract):
    """A network backend that serves everything."""

    plugin = SimBackend
    options: ClassVar[dict[str, object]] = {"nodes": ["node-b"], "secretKey": "open sesame"}

    @pytest.fixture
    def case(self, tmp_path: Path) -> Iterator[BackendCase]:
        options = {"directory": str(tmp_path), **self.options}
        with BackendCase(
            lambda: SimBackend(options),
            mutable=({"iops": "1000"}, {"tier": "fast"}),
            secrets={"secretKey": "open sesame"},
            inventory=lambda: map(str, tmp_path.rglob("*")),
        ) as case:
            yield case


class TestSimNodeLocal(TestSim):
    """The same, with volumes bound to the node, and thick provisioning."""

    options: ClassVar[dict[str, object]] = {
        "reach": "node-local",
        "nodes": ["node-b"],
        "secretKey": "open sesame",
        "overcommit": 3.0,
    }
