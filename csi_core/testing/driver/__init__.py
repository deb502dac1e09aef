"""The calls of CSI as tests: a real server, a real socket, a client in the place of Kubernetes.

::

    class TestMyDriver(DriverContract):
        plugin = MyBackend
        volume_modes = (VolumeMode.FILESYSTEM,)
        sources = ()

        @pytest.fixture(scope="class")
        @classmethod
        def server(cls, tmp_path_factory):
            config = {"backends": {"mine": {"options": {"directory": str(tmp_path_factory.mktemp("storage"))}}}}
            with ServerProcess(config, tmp_path_factory.mktemp("server")) as server:
                yield server

        @pytest.fixture
        def case(self, server, tmp_path):
            return DriverCase(server, tmp_path, backend="mine")

The tests are chosen as in :mod:`csi_core.testing.contract`. One server serves all of them: each test begins and ends
without volumes. They need the log at level ``info``, and ``kernel_mounts = False`` where ``node.mounts`` is
``simulated``.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

_MODULES = ("case", "pods", "requests", "rush", "secrecy", "volumes", "walk")
# The asserts in these modules are to explain themselves as those in a test file do.
pytest.register_assert_rewrite(*(f"{__name__}.{module}" for module in _MODULES))

from csi_core.testing.driver.case import DriverCase, Pod, refused  # noqa: E402
from csi_core.testing.driver.pods import PodTests  # noqa: E402
from csi_core.testing.driver.requests import RequestTests  # noqa: E402
from csi_core.testing.driver.rush import RushTests  # noqa: E402
from csi_core.testing.driver.secrecy import SecrecyTests  # noqa: E402
from csi_core.testing.driver.volumes import CallTests  # noqa: E402
from csi_core.testing.driver.walk import WalkTests  # noqa: E402

__all__ = ["DriverCase", "DriverContract", "Pod", "refused"]


class DriverContract(RequestTests, CallTests, PodTests, RushTests, SecrecyTests, WalkTests):
    """Everything that CSI asks of a driver over the wire. See the module's documentation for how to use it."""

    @pytest.fixture
    def driver(self, case: DriverCase) -> Iterator[DriverCase]:
        """The driver, cleared after each test: whatever a test made must be possible to take down."""
        yield case
        if not case.server.running:
            case.server.restart()
        case.clear()
        assert case.volume_ids() == []
        assert case.snapshots() == []
