"""Start, diagnosis and repair: nothing unknown is deleted, nothing half-made is kept, nothing is served twice."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import pytest

from backends.loop import loopdev, pool, trash
from backends.loop.plugin import LoopBackend
from csi_core.errors import Busy, ConfigError, DataLoss, Unavailable
from csi_core.health import Finding

from .cluster import MIB, NO_SECRETS, Cluster, NodeHost, command


def problems(cluster: Cluster) -> dict[str, Finding]:
    return {finding.problem: finding for finding in cluster.backend.diagnose()}


def test_a_healthy_pool_has_no_findings(cluster: Cluster) -> None:
    volume = cluster.create("a")
    cluster.attach(volume)
    cluster.snapshot("snap", volume)
    cluster.create("thick", provisioning="thick")
    cluster.delete(cluster.create("gone"))
    assert problems(cluster) == {}
    assert cluster.backend.volume_health(volume.handle) == ()


def test_unknown_files_are_moved_away_and_never_deleted(cluster: Cluster) -> None:
    stranger = cluster.pool.layout.directory / ("v-" + "a" * 20 + ".img")
    stranger.write_text("precious")
    finding = problems(cluster)["unknown file among the images"]
    assert finding.repairable
    assert cluster.backend.repair(finding)
    assert not cluster.backend.repair(finding)
    (cluster.pool.layout.directory / "notes.txt").write_text("precious too")
    cluster.restart()
    kept = sorted(path.read_text() for path in cluster.pool.layout.quarantine.iterdir())
    assert kept == ["precious", "precious too"]
    assert not problems(cluster)["quarantined file"].repairable


def test_missing_images_are_reported_and_not_repairable(cluster: Cluster) -> None:
    volume = cluster.create("thick", provisioning="thick")
    snapshot = cluster.snapshot("snap", volume)
    cluster.image(volume).unlink()
    cluster.image(snapshot).unlink()
    found = problems(cluster)
    assert {"ImageMissing", "lost data"} <= found.keys()
    assert not any(finding.repairable or cluster.backend.repair(finding) for finding in found.values())


def test_holes_in_a_thick_volume_are_filled(cluster: Cluster) -> None:
    volume = cluster.create("thick", provisioning="thick")
    os.truncate(cluster.image(volume), 0)
    os.truncate(cluster.image(volume), volume.size_bytes)
    finding = problems(cluster)["thick volume with holes"]
    assert cluster.backend.repair(finding)
    assert problems(cluster) == {}


def test_a_leaked_loop_device_is_found_and_detached(cluster: Cluster) -> None:
    leaked = cluster.pool.layout.directory / ("v-" + "a" * 20 + ".img")
    leaked.write_bytes(bytes(MIB))
    with leaked.open("r+b") as image:
        device = loopdev.attach(image.fileno(), read_only=False, direct_io=True)
    leaked.unlink()
    finding = problems(cluster)["loop device of a deleted volume"]
    assert finding.subject == str(device.node)
    assert cluster.backend.repair(finding)
    assert device not in list(loopdev.attached())


def test_a_half_made_volume_is_discarded_by_repair_by_name_and_by_start(cluster: Cluster) -> None:
    def half_make(name: str, letter: str) -> None:
        key = f"v-{letter * 20}"
        cluster.pool.layout.ensure(key, MIB, thick=True)
        row = (key, name, "creating", MIB, 1, MIB, "", "", "", "{}", 0)
        cluster.pool.database.execute(f"INSERT INTO volume VALUES ({','.join('?' * 11)})", row)
        with cluster.pool.ledger.reserve(MIB) as reservation:
            reservation.commit()

    half_make("repaired", "a")
    assert cluster.backend.find_volume("repaired") is None
    assert cluster.backend.list_volumes("", 10).entries == ()
    assert cluster.backend.repair(problems(cluster)["half-made by a call that failed"])
    half_make("repeated", "b")
    with cluster.pool.claims.exclusive("v-" + "b" * 20), pytest.raises(Busy):
        cluster.create("repeated", MIB)
    volume = cluster.create("repeated", MIB)
    assert volume.handle != "local:v-" + "b" * 20
    half_make("restarted", "c")
    cluster.restart()
    cluster.settled()
    assert cluster.backend.list_volumes("", 10).entries == (volume,)
    assert list(cluster.pool.layout.directory.iterdir()) == []
    assert cluster.pool.ledger.snapshot().promised_bytes == MIB


def test_a_second_server_is_refused_and_a_fast_restart_waits(xfs: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    second = LoopBackend(xfs.options)
    monkeypatch.setattr(pool, "_LOCK_WAIT_S", 0.2)
    with pytest.raises(ConfigError, match="served by another process"):
        second.start(NodeHost())
    monkeypatch.setattr(pool, "_LOCK_WAIT_S", 5)
    threading.Timer(0.3, xfs.backend.stop).start()
    began = time.monotonic()
    second.start(NodeHost())
    assert time.monotonic() - began > 0.2
    xfs.backend = second


def test_a_pool_whose_disk_is_not_mounted_yet_is_waited_for(xfs: Cluster, tmp_path: Path) -> None:
    mount_point = xfs.pool.options.path
    xfs.backend.stop()
    while not mount_point.is_mount():
        mount_point = mount_point.parent
    (tmp_path / "bare").mkdir()

    def start_on(path: Path) -> LoopBackend:
        options = {"path": str(path), "allowLoopHost": True, "requireMount": True}
        backend = LoopBackend({"pools": {"disk": options}})
        backend.start(NodeHost())
        return backend

    with pytest.raises(Unavailable, match="nothing is mounted there yet"):
        start_on(tmp_path / "bare")
    assert list((tmp_path / "bare").iterdir()) == [], "nothing of a pool was made on the wrong disk"
    start_on(mount_point).stop()
    xfs.start()


def test_a_lost_database_stops_the_start_and_touches_no_image(xfs: Cluster) -> None:
    volume = xfs.create("thick", provisioning="thick")
    image = xfs.image(volume)
    directory = xfs.pool.options.path
    xfs.backend.stop()
    (directory / "pool.db").rename(directory / "saved")
    with pytest.raises(ConfigError, match="no pool.db"):
        LoopBackend(xfs.options).start(NodeHost())
    (directory / "pool.db").touch()  # a copy that was cut off
    with pytest.raises(ConfigError, match="no pool.db"):
        LoopBackend(xfs.options).start(NodeHost())
    (directory / "pool.db").write_bytes(b"SQLite format 3\0" + b"garbage" * 1000)
    with pytest.raises(DataLoss, match="restore it"):
        LoopBackend(xfs.options).start(NodeHost())
    (directory / "saved").rename(directory / "pool.db")
    xfs.start()
    assert image.exists()
    assert xfs.backend.find_volume("thick") == volume


def test_the_trash_is_taken_up_again_and_never_frees_what_is_attached(xfs: Cluster) -> None:
    volume = xfs.create("thick", provisioning="thick")
    image = xfs.image(volume)
    xfs.pool.trash.stop()
    xfs.delete(volume)
    assert xfs.pool.ledger.snapshot().promised_bytes == 64 * MIB, "charged until it is freed"
    with image.open("r+b") as file:
        device = loopdev.attach(file.fileno(), read_only=False, direct_io=True)
    xfs.restart()
    assert not xfs.pool.trash.emptied(0.5)
    assert image.exists()
    loopdev.detach(device)
    xfs.restart()
    xfs.settled()
    assert not image.exists()
    assert xfs.pool.ledger.snapshot().promised_bytes == 0
    xfs.backend.delete_volume(volume.handle, NO_SECRETS)


def test_the_trash_goes_on_after_an_error_nobody_thought_of(xfs: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    freed = xfs.pool.layout.free
    failures = iter([IndexError("list index out of range")])

    def fails_once(*arguments: object) -> None:
        if failure := next(failures, None):
            raise failure
        freed(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(xfs.pool.layout, "free", fails_once)
    xfs.delete(xfs.create("first", provisioning="thick"))
    assert not xfs.pool.trash.emptied(0.5)
    xfs.delete(xfs.create("second", provisioning="thick"))
    xfs.settled()
    assert xfs.pool.ledger.snapshot().promised_bytes == 0


def test_images_that_cannot_be_freed_hinder_no_other(xfs: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trash, "_BATCH", 1)
    volumes = sorted((xfs.create(name, provisioning="thick") for name in "abcd"), key=xfs.key)
    with xfs.image(volumes[0]).open("r+b") as file:
        xfs.pool.trash.stop()
        for volume in volumes[:3]:
            xfs.delete(volume)
        device = loopdev.attach(file.fileno(), read_only=False, direct_io=True)
    command("chattr", "+i", str(xfs.image(volumes[1])))
    try:
        xfs.restart()
        assert not xfs.pool.trash.emptied(0.3)
        assert xfs.pool.ledger.snapshot().promised_bytes == 3 * 64 * MIB, "two are stuck, the third is freed"
        xfs.delete(volumes[3])
        assert not xfs.pool.trash.emptied(0.3)
        assert xfs.pool.ledger.snapshot().promised_bytes == 2 * 64 * MIB, "a later one does not wait for the retry"
    finally:
        command("chattr", "-i", str(xfs.image(volumes[1])))
        loopdev.detach(device)
    xfs.pool.trash.more()
    xfs.settled()
    assert xfs.pool.ledger.snapshot().promised_bytes == 0
