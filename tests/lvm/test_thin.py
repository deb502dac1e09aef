"""Thin pools: the books, and what is refused."""

from __future__ import annotations

import os
import time

import pytest
from group_case import BLOCK, Open, thin_pool
from volume_group import MIB, lvm

from csi_core.errors import FailedPrecondition, NoSpace
from csi_core.health import HealthKind
from csi_core.model import SizeRange

pytestmark = pytest.mark.needs_kernel("device-mapper")


def test_thin_accounting(opened: Open, group: str) -> None:
    """Promised by the ratio, and after a restart the same; snapshots are charged as their volumes."""
    with thin_pool(group, 64) as settings:
        case = opened({"type": "thin"}, **settings)
        volume = case.create("data", BLOCK, 128 * MIB)
        case.snapshot("snap", volume)
        with pytest.raises(NoSpace, match="over-commit"):
            case.create("more", BLOCK, 16 * MIB)
        case.reopen()
        with pytest.raises(NoSpace, match="over-commit"):
            case.backend.expand_volume(volume.handle, SizeRange(144 * MIB))
        lvm("lvextend", "-L", "128m", f"{group}/pool")
        assert case.backend.expand_volume(volume.handle, SizeRange(144 * MIB)) == 144 * MIB


def test_thin_pool_that_does_not_zero(opened: Open, group: str) -> None:
    with thin_pool(group, 64, "-Zn") as settings:
        with pytest.raises(FailedPrecondition, match="zero"):
            opened({"type": "thin"}, **settings).create("data", BLOCK)
        assert opened({"type": "thin"}, singleTenant=True, **settings).create("data", BLOCK)


def test_thin_pool_that_fills_up(opened: Open, group: str) -> None:
    """Health first, then no admission, long before the last block; a write that does not fit fails, and says so."""
    with thin_pool(group, 64) as settings:
        lvm("lvchange", "--errorwhenfull=y", f"{group}/pool")
        case = opened({"type": "thin"}, **settings)
        volume = case.create("data", BLOCK, 128 * MIB)
        case.backend.attach_volume(case.attach_request(volume, BLOCK))
        source = case.backend.find_source(volume.handle)
        with source.device.open("r+b", buffering=0) as device:
            for written_mib in range(0, 62, 2):
                device.write(os.urandom(2 * MIB))
                os.fsync(device.fileno())
                if written_mib == 54:
                    (problem,) = case.backend.volume_health(volume.handle)
                    assert (problem.kind, problem.reason) == (HealthKind.DEGRADED, "ThinPoolDataNearlyFull")
            (problem,) = case.backend.volume_health(volume.handle)
            assert problem.reason == "ThinPoolDataFull"
            clear_reading()
            with pytest.raises(NoSpace, match="too full"):
                case.create("more", BLOCK)
            with pytest.raises(OSError, match="."):
                for _ in range(4):
                    device.write(os.urandom(2 * MIB))
                    os.fsync(device.fileno())
        case.backend.detach_volume(volume.handle)


def clear_reading() -> None:
    """The ledger reads a pool once a second."""
    time.sleep(1.1)
