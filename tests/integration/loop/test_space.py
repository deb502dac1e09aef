"""The ledger and the filesystem: nothing is promised that cannot be kept, and admission stops before the brim."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from backends.loop import image_layout, images
from backends.loop.options import LoopParameters
from backends.loop.plugin import LoopBackend
from csi_core.errors import ConfigError, NoSpace, Unavailable
from csi_core.health import HealthKind
from csi_core.model import CapacityQuery, SizeRange
from csi_core.testing.devices import ext4_filesystem

from .cluster import MIB, Cluster, NodeHost


def available(cluster: Cluster, provisioning: str = "thin") -> int:
    query = CapacityQuery(LoopParameters.model_validate({"provisioning": provisioning}))
    return cluster.backend.get_capacity(query).available_bytes


def promised(cluster: Cluster) -> int:
    return cluster.pool.ledger.snapshot().promised_bytes


def test_thin_volumes_are_promised_up_to_the_capacity(make_cluster: Callable[..., Cluster]) -> None:
    cluster = make_cluster(capacity="100Mi")
    for number in range(10):
        cluster.create(f"v{number}", 10 * MIB)
    assert available(cluster) == 0
    with pytest.raises(NoSpace, match="over-commit"):
        cluster.create("one more", 10 * MIB)
    assert cluster.create("v3", 10 * MIB).name == "v3"


def test_overcommit_lets_thin_volumes_exceed_the_capacity_and_thick_ones_not(
    make_cluster: Callable[..., Cluster],
) -> None:
    cluster = make_cluster(capacity="100Mi", overcommit=4)
    assert available(cluster) == 400 * MIB
    cluster.create("thin", 200 * MIB)
    assert promised(cluster) == 50 * MIB
    assert available(cluster, "thick") == 50 * MIB
    with pytest.raises(NoSpace):
        cluster.create("thick", 60 * MIB, provisioning="thick")
    cluster.create("fits", 50 * MIB, provisioning="thick")
    cluster.restart()
    assert promised(cluster) == 100 * MIB


def test_every_kind_of_record_is_charged_and_given_back(cluster: Cluster) -> None:
    volume = cluster.create("a", 10 * MIB)
    snapshot = cluster.snapshot("snap", volume)
    cluster.create("copy", 20 * MIB, source=snapshot, provisioning="thick")
    cluster.backend.expand_volume(volume.handle, SizeRange(15 * MIB))
    assert promised(cluster) == (15 + 10 + 20) * MIB
    cluster.restart()
    assert promised(cluster) == (15 + 10 + 20) * MIB
    for entry in cluster.backend.list_volumes("", 10).entries:
        cluster.delete(entry)
    cluster.settled()
    assert promised(cluster) == 10 * MIB


def test_an_expansion_that_does_not_fit_changes_nothing(make_cluster: Callable[..., Cluster]) -> None:
    cluster = make_cluster(capacity="100Mi")
    volume = cluster.create("a", 60 * MIB)
    with pytest.raises(NoSpace):
        cluster.backend.expand_volume(volume.handle, SizeRange(120 * MIB))
    assert cluster.backend.get_volume(volume.handle).size_bytes == 60 * MIB
    assert promised(cluster) == 60 * MIB
    assert cluster.backend.expand_volume(volume.handle, SizeRange(100 * MIB)) == 100 * MIB


def test_space_of_a_volume_just_deleted_can_be_had_at_once(make_cluster: Callable[..., Cluster]) -> None:
    cluster = make_cluster(capacity="100Mi")
    for number in range(5):
        volume = cluster.create(f"v{number}", 100 * MIB, provisioning="thick")
        cluster.delete(volume)


def test_a_thick_volume_that_the_filesystem_cannot_hold_leaves_nothing(make_cluster: Callable[..., Cluster]) -> None:
    cluster = make_cluster("ext4", host_bytes=128 * MIB, capacity="1Gi", stopAt=1, warnAt=1)
    with (cluster.pool.options.path.parent / "foreign").open("wb") as foreign:
        os.posix_fallocate(foreign.fileno(), 0, 60 * MIB)
        # Taken behind the ledger's back: its reading of the filesystem is up to a second old.
        cluster.pool.ledger._reading = (float("inf"), (1 << 30, 1 << 30))
        with pytest.raises(NoSpace, match="No space left"):
            cluster.create("thick", 100 * MIB, provisioning="thick")
    cluster.settled()
    assert promised(cluster) == 0
    assert list(cluster.pool.layout.directory.iterdir()) == []


@pytest.mark.parametrize("fs_type", ["ext4", "xfs"])
def test_what_others_take_of_the_filesystem_is_promised_to_nobody(
    make_cluster: Callable[..., Cluster], monkeypatch: pytest.MonkeyPatch, fs_type: str
) -> None:
    """At over-commit 1 all that was promised can be written, also what was promised before others came."""
    monkeypatch.setattr(image_layout, "_OTHERS_EVERY_S", 0.1)
    cluster = make_cluster(fs_type, host_bytes=512 * MIB, ballast="16Mi")
    volumes = [cluster.create("before", 150 * MIB)]
    left = available(cluster)
    with (cluster.pool.options.path.parent / "foreign").open("wb") as foreign:
        os.posix_fallocate(foreign.fileno(), 0, 100 * MIB)
    deadline = time.monotonic() + 10
    while available(cluster) > left - 90 * MIB and time.monotonic() < deadline:
        time.sleep(0.05)
    left = available(cluster) // MIB * MIB
    assert 100 * MIB < left < 250 * MIB
    with pytest.raises(NoSpace, match="others have"):
        cluster.create("too much", left + 2 * MIB)
    volumes.append(cluster.create("after", left))
    for volume in volumes:
        device = os.open(cluster.attach(volume).device, os.O_WRONLY | os.O_DSYNC)
        try:
            for offset in range(0, volume.size_bytes, MIB):
                os.pwrite(device, os.urandom(MIB), offset)
        finally:
            os.close(device)
    cluster.restart()
    assert available(cluster) < 2 * MIB
    assert cluster.pool.ledger.snapshot().free_bytes >= 0


def test_filled_to_the_brim_admission_has_stopped_and_health_says_so(make_cluster: Callable[..., Cluster]) -> None:
    """Sparse images over-committed, written until the host is full: the pool still answers and still deletes."""
    cluster = make_cluster("ext4", host_bytes=256 * MIB, overcommit=10, warnAt=0.6, stopAt=0.8)
    volumes = [cluster.create(f"v{number}", 128 * MIB) for number in range(4)]
    assert cluster.backend.storage_health() == ()
    seen: list[str] = []
    for volume in volumes:
        device = os.open(cluster.attach(volume).device, os.O_WRONLY | os.O_DSYNC)
        try:
            for offset in range(0, 128 * MIB, 4 * MIB):
                os.pwrite(device, os.urandom(4 * MIB), offset)
                cluster.pool.ledger._reading = None
                seen += [problem.reason for problem in cluster.backend.storage_health()]
                if "PoolFull" in seen:
                    with pytest.raises(NoSpace, match="too full"):
                        cluster.create("late", 4 * MIB)
        except OSError:
            break
        finally:
            os.close(device)
    assert list(dict.fromkeys(seen)) == ["PoolNearlyFull", "PoolFull"]
    assert {problem.kind for problem in cluster.backend.storage_health()} == {HealthKind.DEGRADED}
    assert available(cluster) == 0
    assert cluster.create("v1", 128 * MIB) == volumes[1], "a repeated call is answered even now"
    for volume in volumes:
        cluster.detach(volume)
        cluster.delete(volume)
    cluster.settled()
    cluster.pool.ledger._reading = None
    assert cluster.backend.storage_health() == ()
    cluster.create("late", 4 * MIB)


@pytest.mark.parametrize("fs_type", ["ext4", "xfs"])
def test_a_server_that_is_started_on_a_full_filesystem_waits_for_room(
    make_cluster: Callable[..., Cluster], fs_type: str
) -> None:
    cluster = make_cluster(fs_type, 400 * MIB)
    volume = cluster.create("a", 16 * MIB, provisioning="thick")
    filler = cluster.pool.options.path / "filler"
    cluster.backend.stop()
    with filler.open("wb", buffering=0) as file:
        for block in (bytes(MIB), bytes(4096)):
            with suppress(OSError):
                while True:
                    file.write(block)
        os.fsync(file)
    with pytest.raises(Unavailable, match="is full; delete its file ballast"):
        cluster.start()
    filler.unlink()
    cluster.start()
    assert cluster.backend.list_volumes("", 2).entries == (volume,)


def test_the_ballast_is_set_aside_and_stays_away_when_released(make_cluster: Callable[..., Cluster]) -> None:
    cluster = make_cluster(ballast="16Mi")
    ballast = cluster.pool.options.path / "ballast"
    assert ballast.stat().st_blocks * 512 == 16 * MIB


def test_two_pools_on_one_filesystem_must_share_it_out() -> None:
    with ext4_filesystem(64 * MIB) as host:
        for name in ("one", "two"):
            (host / name).mkdir()
        pools = {name: {"path": str(host / name), "allowLoopHost": True} for name in ("one", "two")}
        with pytest.raises(ConfigError, match="set capacity for both"):
            LoopBackend({"pools": pools, "defaultPool": "one"}).start(NodeHost())
        for pool in pools.values():
            pool["capacity"] = "20Mi"
        backend = LoopBackend({"pools": pools, "defaultPool": "one"})
        backend.start(NodeHost())
        backend.stop()


def test_a_pool_on_a_loop_device_is_refused_unless_allowed(tmp_path: Path) -> None:
    with ext4_filesystem(64 * MIB) as host:
        with pytest.raises(ConfigError, match="allowLoopHost"):
            LoopBackend({"pools": {"local": {"path": str(host)}}}).start(NodeHost())
        LoopBackend({"pools": {"local": {"path": str(host), "allowLoopHost": True}}})
    with pytest.raises(ConfigError, match="make it or mount it"):
        LoopBackend({"pools": {"local": {"path": str(tmp_path / "missing")}}}).start(NodeHost())


def test_growth_that_finds_the_filesystem_full_gives_back_what_it_took(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Thin volumes lose data on a full filesystem; what nobody was given must not fill it."""
    volume = cluster.create("thick", provisioning="thick")
    before = cluster.image(volume).stat()
    allocate = images.allocate

    def run_full(image: int, size_bytes: int) -> None:
        allocate(image, size_bytes - 16 * MIB)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(images, "allocate", run_full)
    with pytest.raises(NoSpace):
        cluster.backend.expand_volume(volume.handle, SizeRange(128 * MIB))
    after = cluster.image(volume).stat()
    assert (after.st_size, after.st_blocks) == (before.st_size, before.st_blocks)
