"""Random lives of simulated volumes, compared with a model."""

from __future__ import annotations

from pathlib import Path

from hypothesis import HealthCheck, settings

from backends.sim.plugin import SimBackend
from csi_core.model import VolumeMode
from csi_core.testing.contract import BackendCase
from csi_core.testing.stateful import BackendMachine

QUICK = settings(
    max_examples=20, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True
)


class DirectoryMachine(BackendMachine):
    plugin = SimBackend

    def open_case(self, directory: Path) -> BackendCase:
        options = {"directory": str(directory), "reach": "node-local", "capacity": "1Ti"}
        return BackendCase(lambda: SimBackend(options), size_bytes=1 << 20)


class RawBlockMachine(DirectoryMachine):
    mode = VolumeMode.BLOCK


TestDirectoryMachine = DirectoryMachine.TestCase
TestDirectoryMachine.settings = QUICK
TestRawBlockMachine = RawBlockMachine.TestCase
TestRawBlockMachine.settings = QUICK
