"""How full a thin pool may be until health says so."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from backends.lvm import diagnosis
from backends.lvm.pools import PoolStatus
from csi_core.health import HealthKind

POOL = SimpleNamespace(warn_at=0.8, stop_at=0.95)


@pytest.mark.parametrize(
    ("data", "metadata", "reasons"),
    [
        (0.79, 0.79, []),
        (0.8, 0.1, ["ThinPoolDataNearlyFull"]),
        (0.1, 0.94, ["ThinPoolMetadataNearlyFull"]),
        (0.1, 0.95, ["ThinPoolMetadataFull"]),
        (1.0, 1.0, ["ThinPoolDataFull", "ThinPoolMetadataFull"]),
    ],
)
def test_data_and_metadata(data: float, metadata: float, reasons: list[str]) -> None:
    found = list(diagnosis._filled("vg0/pool", POOL, PoolStatus(1 << 30, data, metadata, "rw", queues_when_full=True)))
    assert [problem.reason for problem in found] == reasons
    assert all(problem.kind is HealthKind.DEGRADED for problem in found)
    assert all("lvextend" in problem.message for problem in found)


@pytest.mark.parametrize("mode", ["ro", "Fail", "needs_check"])
def test_a_pool_that_takes_no_writes(mode: str) -> None:
    (problem,) = diagnosis._filled("vg0/pool", POOL, PoolStatus(1 << 30, 0.1, 1.0, mode, queues_when_full=True))
    assert (problem.kind, problem.reason) == (HealthKind.INACCESSIBLE, "ThinPoolFailed")
