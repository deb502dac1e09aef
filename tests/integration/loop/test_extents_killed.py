"""The backend is killed at every fault point of every act on a pool of the layout extents, started again, and the
act repeated. In the end everything that can be given out reads as zeros."""

from __future__ import annotations

import functools
import os
import shutil
import signal
import tempfile
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from backends.loop import loopdev
from backends.loop.extents.defragmenting import defragment
from backends.loop.extents.layout import ExtentsLayout
from backends.loop.options import SegmentOptions
from backends.loop.plugin import LoopBackend
from csi_core import faults
from csi_core.model import ContentSource, GroupSnapshotSpec, SourceKind
from csi_core.testing.devices import scratch_directory, xfs_filesystem
from csi_core.testing.fault_points import fault_points

from . import acts
from .acts import GROWN_BYTES, SIZE_BYTES, started
from .cluster import MIB, NO_SECRETS, RAW, Cluster, read_block, write_block
from .extent_pools import cloned_pool, create, free_bytes_are_zeros, grow, made_pool

DATA = {"origin": b"o" * 8192, "other": b"x" * 8192}
SEGMENT_BYTES = 129 * MIB
ELASTIC_BYTES = 16 * MIB
LENGTHENED_BYTES = 12 * MIB


def clone(backend: LoopBackend) -> None:
    acts.create(backend, "thick", ContentSource(SourceKind.VOLUME, acts.volume(backend, "origin")))


def lengthen(backend: LoopBackend) -> None:
    pool = next(iter(backend._pools))
    assert pool.layout.lengthen(acts.volume(backend, "elastic").split(":")[1], LENGTHENED_BYTES) >= LENGTHENED_BYTES


def defrag(backend: LoopBackend) -> None:
    pool = next(iter(backend._pools))
    assert isinstance(pool.layout, ExtentsLayout)
    defragment(pool, pool.layout, lambda key: None)


ACTS: dict[str, Callable[[LoopBackend], None]] = {
    "start": acts.settle,
    "create-thick": lambda backend: acts.create(backend, "thick"),
    "restore-thick": lambda backend: acts.restore(backend, "thick"),
    "clone-attached": clone,
    "snapshot": acts.take_snapshot,
    "group": acts.take_group,
    "attach-first": lambda backend: acts.attach(backend, "fresh"),
    "attach-again": lambda backend: acts.attach(backend, "other"),
    "expand-attached": lambda backend: acts.expand(backend, "origin"),
    "expand-fresh": lambda backend: acts.expand(backend, "fresh"),
    "lengthen": lengthen,
    "defrag": defrag,
    "mark-formatted": acts.mark,
    "detach": acts.detach,
    "delete-used": lambda backend: acts.delete_volume(backend, "other"),
    "delete-fresh": lambda backend: acts.delete_volume(backend, "fresh"),
    "delete-snapshot": acts.delete_snapshot,
    "delete-group": acts.delete_group,
}


@pytest.fixture(scope="module")
def host() -> Iterator[Path]:
    """A filesystem with a pool that is cloned for every kill: used, fresh, elastic volumes, snapshot, group."""
    with xfs_filesystem(1 << 30) as host, scratch_directory() as scratch:
        (host / "new").mkdir()
        cluster = Cluster({"pools": {"local": made_pool(host / "new", SEGMENT_BYTES)}}, scratch)
        origin, other, _ = (
            cluster.create(name, SIZE_BYTES, capability=RAW, provisioning="thick")
            for name in ("origin", "other", "fresh")
        )
        cluster.create("elastic", ELASTIC_BYTES, initialSize="4Mi")
        for volume in (origin, other):
            write_block(cluster.attach(volume).device, 4096, DATA[volume.name])
            cluster.detach(volume)
        cluster.snapshot("snap", origin)
        cluster.backend.create_group_snapshot(GroupSnapshotSpec("group", (origin.handle, other.handle)))
        cluster.backend.stop()
        yield host


@contextmanager
def prepared(host: Path) -> Iterator[Cluster]:
    """A stopped copy of the pool, with ``origin`` attached."""
    pool = cloned_pool(host / "new", host / "pool")
    with scratch_directory() as scratch:
        cluster = Cluster({"pools": {"local": pool}}, scratch)
        cluster.attach(next(v for v in cluster.backend.list_volumes("", 10).entries if v.name == "origin"))
        cluster.backend.stop()
        try:
            yield cluster
        finally:
            shutil.rmtree(host / "pool")


def in_child(act: Callable[[], None], *, kill_at: str = "", trace: str = "") -> int:
    """Perform an act in a fork, to be killed or watched; answers the wait status."""
    child = os.fork()
    if child == 0:
        faults._armed, faults._name, faults._left, faults._trace = True, kill_at, 1, trace  # type: ignore[misc]
        try:
            act()
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
            assert in_child(lambda: ACTS[act](started(cluster.options)), trace=trace.name) == 0
            verify(cluster, act)
        return [p for p in dict.fromkeys(trace.read().split()) if p.startswith(("loop.", "extents."))]


def verify(cluster: Cluster, act: str) -> None:
    """Start, repeat the act, look at everything, delete everything; nothing may be left, and nothing to be read."""
    cluster.backend = backend = started(cluster.options)
    try:
        ACTS[act](backend)
        ACTS[act](backend)
        layout = cluster.pool.layout
        assert free_bytes_are_zeros(layout)
        volumes = {volume.name: volume for volume in backend.list_volumes("", 100).entries}
        assert not list(backend.diagnose())
        grown = {"expand-attached": "origin", "expand-fresh": "fresh"}.get(act)
        for name, volume in volumes.items():
            wanted = GROWN_BYTES if name == grown or (name == "made" and volume.source) else SIZE_BYTES
            assert volume.size_bytes == (wanted if name != "elastic" else ELASTIC_BYTES)
            if name != "elastic":
                assert cluster.attach(volume).size_bytes == wanted
        for name in {"origin", "other"} & volumes.keys():
            assert read_block(cluster.attach(volumes[name]).device, 4096, 8192) == DATA[name]
        if "made" in volumes and volumes["made"].source:
            assert read_block(cluster.attach(volumes["made"]).device, 0, 12288) == bytes(4096) + DATA["origin"]
        for volume in volumes.values():
            cluster.detach(volume)
            cluster.delete(volume)
        for snapshot in backend.list_snapshots("", 100, "").entries:
            content = layout.content(snapshot.handle.split(":")[1])
            assert content.read(4096, 8192) in DATA.values()
            if snapshot.group_handle:
                backend.delete_group_snapshot(snapshot.group_handle, NO_SECRETS)
            else:
                backend.delete_snapshot(snapshot.handle, NO_SECRETS)
        cluster.settled()
        assert cluster.pool.ledger.snapshot().promised_bytes == cluster.pool.records.promised_bytes() == 0
        assert layout.space()[0] == layout.space()[1] == SEGMENT_BYTES - MIB
        assert cluster.pool.database.row("SELECT count(*) FROM run") == (0,)
        assert free_bytes_are_zeros(layout)
    finally:
        for device in loopdev.attached():
            if str(cluster.pool.options.path) in device.backing_path:
                loopdev.detach(device)
        backend.stop()


@pytest.mark.parametrize("act", ACTS)
def test_killed_at_each_step_and_repeated(act: str, host: Path) -> None:
    # What every start goes through is killed at once, under the act "start".
    already = [] if act == "start" else points_of("start", host)
    points = [point for point in points_of(act, host) if point not in already]
    assert points
    for point in points:
        with prepared(host) as cluster:
            status = in_child(lambda cluster=cluster: ACTS[act](started(cluster.options)), kill_at=point)
            assert os.WIFSIGNALED(status), f"{point} was not reached"
            assert os.WTERMSIG(status) == signal.SIGKILL
            verify(cluster, act)


def traced(act: Callable[[], object]) -> list[str]:
    with tempfile.NamedTemporaryFile("r") as trace:
        assert in_child(act, trace=trace.name) == 0
        return [point for point in dict.fromkeys(trace.read().split()) if point.startswith("extents.")]


MADE: set[str] = set()
ELSEWHERE = ("extents.join.", "extents.grow.before_filesystem", "extents.grow.after_filesystem")
"""Killed at where the kernel has device-mapper, in tests/kernel/test_packed_joined.py; and in test_elastic.py."""


def test_making_and_growing_a_pool_is_killed_at_each_step(host: Path) -> None:
    """The same command again finishes what was begun; a pool that is half made holds nothing yet."""
    directory = host / "young"
    segments = [SegmentOptions(path=directory / f"segment-{n}", size=3 * MIB) for n in range(2)]

    def make() -> None:
        create(directory, segments[:1])
        grow(directory, *segments)

    def fresh() -> None:
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir()

    fresh()
    points = traced(make)
    MADE.update(points)
    for point in points:
        fresh()
        assert os.WIFSIGNALED(in_child(make, kill_at=point)), f"{point} was not reached"
        make()
        options = {"pools": {"local": {"path": str(directory), "layout": "extents", "allowLoopHost": True}}}
        cluster = Cluster(options, directory)
        assert cluster.pool.layout.space() == (4 * MIB, 4 * MIB)
        assert free_bytes_are_zeros(cluster.pool.layout)
        cluster.backend.stop()
    shutil.rmtree(directory)


def test_every_fault_point_of_the_layout_is_killed_at(host: Path) -> None:
    """A new one that no act reaches fails here."""
    reached = {point for act in ACTS for point in points_of(act, host)} | MADE
    expected = {point for point in fault_points(["backends.loop"]) if point.startswith("extents.")}
    assert expected - {point for point in expected if point.startswith(ELSEWHERE)} <= reached
