"""The contract of :mod:`csi_core.hookspecs` as tests: subclass one class, give one fixture.

::

    from csi_core.model import VolumeMode
    from csi_core.testing.contract import BackendCase, BackendContract


    class TestMyBackend(BackendContract):
        plugin = MyBackend
        volume_modes = (VolumeMode.FILESYSTEM,)
        sources = ()

        @pytest.fixture
        def case(self, tmp_path):
            with BackendCase(lambda: MyBackend({"directory": str(tmp_path)})) as case:
                yield case

The tests are chosen by the hooks that ``plugin`` implements and by ``volume_modes`` and ``sources``, which a test
compares with what ``describe`` declares. What a backend does not serve is not collected; nothing is ever skipped.

Every call is repeated, before and after a restart, and data is judged by checksums read through the source that
``attach_volume`` answers. Whatever a test makes is in the storage that the fixture gives it: take care that it is empty
and goes away.
"""

from __future__ import annotations

import pytest

_MODULES = (
    "attach",
    "blocks",
    "capacity",
    "care",
    "case",
    "clones",
    "concurrency",
    "content",
    "expansion",
    "groups",
    "leaks",
    "listing",
    "pools",
    "publish",
    "restart",
    "snapshots",
    "volumes",
)
# The asserts in these modules are to explain themselves as those in a test file do.
pytest.register_assert_rewrite(*(f"{__name__}.{module}" for module in _MODULES))

from csi_core.testing.contract.attach import AttachTests  # noqa: E402
from csi_core.testing.contract.blocks import BlockTests  # noqa: E402
from csi_core.testing.contract.capacity import CapacityTests  # noqa: E402
from csi_core.testing.contract.care import CareTests  # noqa: E402
from csi_core.testing.contract.case import BackendCase, KitHost  # noqa: E402
from csi_core.testing.contract.clones import CloneTests  # noqa: E402
from csi_core.testing.contract.concurrency import ConcurrencyTests  # noqa: E402
from csi_core.testing.contract.expansion import ExpansionTests  # noqa: E402
from csi_core.testing.contract.groups import GroupTests  # noqa: E402
from csi_core.testing.contract.leaks import LeakTests  # noqa: E402
from csi_core.testing.contract.listing import ListingTests  # noqa: E402
from csi_core.testing.contract.pools import PoolTests  # noqa: E402
from csi_core.testing.contract.publish import PublishTests  # noqa: E402
from csi_core.testing.contract.restart import RestartTests  # noqa: E402
from csi_core.testing.contract.snapshots import SnapshotTests  # noqa: E402
from csi_core.testing.contract.volumes import VolumeTests  # noqa: E402

__all__ = ["BackendCase", "BackendContract", "KitHost"]


# pytest begins with the last base: the plainest tests, so that `pytest -x` stops at what is wrong first of all.
class BackendContract(
    LeakTests,
    RestartTests,
    ConcurrencyTests,
    PoolTests,
    CareTests,
    BlockTests,
    GroupTests,
    CloneTests,
    SnapshotTests,
    PublishTests,
    AttachTests,
    ExpansionTests,
    CapacityTests,
    ListingTests,
    VolumeTests,
):
    """Everything that the contract asks of a backend. See the module's documentation for how to use it."""
