"""Mode export by the conformance kit, over real mounts from the kernel's server, on every filesystem with quotas."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest
from export_server import Disks, local_server

from backends.nfs.plugin import NfsBackend
from csi_core.model import SourceKind, VolumeMode
from csi_core.testing.contract import BackendCase
from csi_core.testing.contract.attach import AttachTests
from csi_core.testing.contract.clones import CloneTests
from csi_core.testing.contract.concurrency import ConcurrencyTests
from csi_core.testing.contract.expansion import ExpansionTests
from csi_core.testing.contract.publish import PublishTests
from csi_core.testing.contract.restart import RestartTests
from csi_core.testing.contract.snapshots import SnapshotTests

pytestmark = pytest.mark.needs_kernel("nfs")

_NUMBERS = itertools.count()


@pytest.fixture(scope="module")
def disks(scratch_disks: tuple[Path, ...]) -> Iterator[Disks]:
    with local_server(dict(zip(("xfs", "ext4", "btrfs"), scratch_disks[2:], strict=False))) as disks:
        yield disks


class Sized:
    """What all of these have in common; ``fs_type`` and ``squash`` differ."""

    plugin = NfsBackend
    volume_modes = (VolumeMode.FILESYSTEM,)
    sources = tuple(SourceKind)
    fs_type = "xfs"
    squash = "none"

    @pytest.fixture
    def case(self, disks: Disks):
        root = disks[self.fs_type] / f"root-{next(_NUMBERS)}"
        root.mkdir()
        export = {
            "root": str(root),
            "squash": self.squash,
            "capacity": "4Gi",
            "first_project_id": 1_000_000 * (next(_NUMBERS) + 1),
            "node_addresses": {"node-a": "127.0.0.1", "node-b": "127.0.0.2"},
            "resolve_nodes": False,
        }
        options = {"mode": "export", "server": "127.0.0.1", "export": export}
        with BackendCase(lambda: NfsBackend(options)) as case:
            yield case


class TestOnXfs(
    Sized, AttachTests, CloneTests, ConcurrencyTests, ExpansionTests, PublishTests, RestartTests, SnapshotTests
):
    """Everything that mounts; names, listings, books and health are those of tests/unit/nfs/test_contract.py."""


class TestOnExt4(Sized, ExpansionTests, CloneTests):
    """What is its own: limits, and copies without reflink."""

    fs_type = "ext4"
    squash = "all"


class TestOnBtrfs(Sized, ExpansionTests, CloneTests):
    """What is its own: subvolumes and their limits."""

    fs_type = "btrfs"
