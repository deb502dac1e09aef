"""The backend is killed at every fault point of every act, started again, and the act repeated.

The server's own crash tier kills whole servers; this one forks, so it can afford every point.
"""

from __future__ import annotations

import functools
import os
import shutil
import signal
import sqlite3
import tempfile
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from backends.loop import loopdev
from csi_core import faults
from csi_core.model import GroupSnapshotSpec
from csi_core.testing.devices import ext4_filesystem, scratch_directory, xfs_filesystem
from csi_core.testing.fault_points import fault_points

from .acts import ACTS, GROWN_BYTES, SIZE_BYTES, started
from .cluster import NO_SECRETS, Cluster, read_block, write_block

DATA = {"origin": b"o" * 8192, "other": b"x" * 8192}
HALF = "v-" + "f" * 20
COPYING = ["restore-thick", "clone-attached", "group"]
KILLED = [("xfs", act) for act in ACTS] + [("ext4", act) for act in COPYING]


@pytest.fixture(scope="module")
def hosts() -> Iterator[dict[str, Path]]:
    """A filesystem that copies by reflink, and one that has to read and write."""
    with xfs_filesystem(1 << 30) as xfs, ext4_filesystem(1 << 30) as ext4:
        yield {"xfs": xfs, "ext4": ext4}


@contextmanager
def prepared(host: Path) -> Iterator[Cluster]:
    """A stopped pool with one of each: used, attached, fresh, thick volume, snapshot, group, stranger's file."""
    directory = host / "pool"
    directory.mkdir()
    with scratch_directory() as scratch:
        cluster = Cluster({"pools": {"local": {"path": str(directory), "allowLoopHost": True}}}, scratch)
        origin, other = cluster.create("origin", SIZE_BYTES), cluster.create("other", SIZE_BYTES)
        cluster.create("fresh", SIZE_BYTES)
        cluster.create("thick", SIZE_BYTES, provisioning="thick")
        for volume in (origin, other):
            write_block(cluster.attach(volume).device, 4096, DATA[volume.name])
        cluster.detach(other)
        cluster.snapshot("snap", origin)
        cluster.backend.create_group_snapshot(GroupSnapshotSpec("group", (origin.handle, other.handle)))
        (cluster.pool.layout.directory / "stranger").write_text("not ours")
        # Half of a create of another name, which every start has to roll back.
        cluster.pool.layout.ensure(HALF, SIZE_BYTES, thick=False)
        cluster.pool.database.execute(
            "INSERT INTO volume VALUES (?, 'half', 'creating', ?, 0, ?, '', '', '', '{}', 0)",
            (HALF, SIZE_BYTES, SIZE_BYTES),
        )
        cluster.backend.stop()
        try:
            yield cluster
        finally:
            shutil.rmtree(directory)


def in_child(cluster: Cluster, act: str, *, kill_at: str = "", trace: str = "") -> int:
    """Start the backend in a fork and perform the act there, to be killed or watched; answers the wait status."""
    child = os.fork()
    if child == 0:
        faults._armed, faults._name, faults._left, faults._trace = True, kill_at, 1, trace  # type: ignore[misc]
        try:
            ACTS[act](started(cluster.options))
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    return os.waitpid(child, 0)[1]


@functools.cache
def points_of(act: str, host: Path) -> list[str]:
    """The backend's fault points that ``act``, the start before it included, goes through."""
    with tempfile.NamedTemporaryFile("r") as trace:
        with prepared(host) as cluster:
            assert in_child(cluster, act, trace=trace.name) == 0
            verify(cluster, act)
        return [point for point in dict.fromkeys(trace.read().split()) if point.startswith("loop.")]


def verify(cluster: Cluster, act: str) -> None:
    """Start, repeat the act, look at everything, delete everything; nothing may be left."""
    cluster.backend = backend = started(cluster.options)
    try:
        ACTS[act](backend)
        ACTS[act](backend)
        volumes = {volume.name: volume for volume in backend.list_volumes("", 100).entries}
        assert "half" not in volumes
        assert [p.name.split(".")[0] for p in cluster.pool.layout.quarantine.iterdir()] == ["stranger"]
        assert not [finding for finding in backend.diagnose() if finding.problem != "quarantined file"]
        check_sizes(cluster, act)
        for name in {"origin", "other"} & volumes.keys():
            assert read_block(cluster.attach(volumes[name]).device, 4096, 8192) == DATA[name]
        if act in ("restore-thin", "restore-thick", "clone-attached"):
            device = cluster.attach(volumes["made"]).device
            assert read_block(device, 0, 12288) == bytes(4096) + DATA["origin"]
        for volume in volumes.values():
            cluster.detach(volume)
            cluster.delete(volume)
        snapshots = backend.list_snapshots("", 100, "").entries
        for snapshot in snapshots:
            check_snapshot(cluster, snapshot.handle)
        for snapshot in snapshots:
            if snapshot.group_handle:
                backend.delete_group_snapshot(snapshot.group_handle, NO_SECRETS)
            else:
                backend.delete_snapshot(snapshot.handle, NO_SECRETS)
        cluster.settled()
        assert cluster.pool.ledger.snapshot().promised_bytes == cluster.pool.records.promised_bytes() == 0
        assert list(cluster.pool.layout.directory.iterdir()) == []
        assert sorted(path.name for path in cluster.pool.options.path.iterdir()) == [
            *("images", "pool.db", "pool.db-shm", "pool.db-wal", "pool.lock", "quarantine"),
        ]
    finally:
        for device in loopdev.attached():
            if str(cluster.pool.layout.directory) in device.backing_path:
                loopdev.detach(device)
        backend.stop()


def check_snapshot(cluster: Cluster, handle: str) -> None:
    image = cluster.pool.layout.path(handle.split(":")[1]).read_bytes()
    assert len(image) == SIZE_BYTES
    assert image[4096:12288] in DATA.values()


def check_sizes(cluster: Cluster, act: str) -> None:
    grown = {"expand-attached": "origin", "expand-thick": "thick", "expand-fresh": "fresh"}.get(act)
    for volume in cluster.backend.list_volumes("", 100).entries:
        wanted = GROWN_BYTES if volume.name == grown or (volume.name == "made" and volume.source) else SIZE_BYTES
        assert volume.size_bytes == wanted
        assert cluster.attach(volume).size_bytes == wanted


@pytest.mark.parametrize(("fs_type", "act"), KILLED)
def test_killed_at_each_step_and_repeated(fs_type: str, act: str, hosts: dict[str, Path]) -> None:
    host = hosts[fs_type]
    # What every start goes through is killed at once, under the act "start".
    already = [] if act == "start" else points_of("start", host)
    points = [point for point in points_of(act, host) if point not in already]
    assert points
    for point in points:
        with prepared(host) as cluster:
            status = in_child(cluster, act, kill_at=point)
            assert os.WIFSIGNALED(status), f"{point} was not reached"
            assert os.WTERMSIG(status) == signal.SIGKILL
            verify(cluster, act)


NEW_POOL = ("loop.pool.before_schema", "loop.pool.after_schema", "loop.probe.after_bind")


@pytest.mark.parametrize("point", NEW_POOL)
def test_killed_while_a_pool_is_made(point: str, hosts: dict[str, Path]) -> None:
    directory = hosts["xfs"] / "new"
    directory.mkdir()
    cluster = Cluster({"pools": {"local": {"path": str(directory), "allowLoopHost": True}}}, directory, running=False)
    assert os.WIFSIGNALED(in_child(cluster, "start", kill_at=point))
    cluster.start()
    assert cluster.attach(cluster.create("first")).size_bytes
    cluster.detach(cluster.create("first"))
    assert not list(directory.glob("probe*"))
    cluster.backend.stop()
    shutil.rmtree(directory)


MIGRATION = ("loop.pool.before_migration", "loop.pool.after_migration")


@pytest.mark.parametrize("point", MIGRATION)
def test_killed_while_a_pool_of_the_first_release_is_migrated(point: str, hosts: dict[str, Path]) -> None:
    with prepared(hosts["xfs"]) as cluster:
        with sqlite3.connect(f"{cluster.options['pools']['local']['path']}/pool.db") as database:
            for table in ("extent_pool", "segment", "run"):
                database.execute(f"DROP TABLE {table}")
            database.execute("PRAGMA user_version = 1")
        database.close()
        assert os.WIFSIGNALED(in_child(cluster, "start", kill_at=point))
        verify(cluster, "start")


def test_every_fault_point_of_the_backend_is_killed_at(hosts: dict[str, Path]) -> None:
    """A new one that no act reaches fails here."""
    reached = {point for act in ACTS for point in points_of(act, hosts["xfs"])} | {*NEW_POOL, *MIGRATION}
    assert {point for point in fault_points(["backends.loop"]) if point.startswith("loop.")} == reached
