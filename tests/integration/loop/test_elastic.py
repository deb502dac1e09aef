"""Elastic volumes: whoever writes to one sees the size that was claimed, as long as the pool has room."""

from __future__ import annotations

import errno
import itertools
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from backends.loop.extents import growth, writeback
from backends.loop.options import SegmentOptions
from csi_core import faults
from csi_core.errors import Busy, InvalidArgument, NoSpace
from csi_core.health import HealthKind
from csi_core.model import AccessMode, SizeRange, VolumeCapability, VolumeMode
from csi_core.node.mounts import KernelMounts
from csi_core.node.stats import usage
from csi_core.testing.devices import scratch_directory, xfs_filesystem

from .cluster import MIB, RAW, Cluster, NodeHost
from .conftest import take_down
from .extent_pools import grow, made_pool

pytestmark = pytest.mark.needs_filesystem("xfs")
XFS = VolumeCapability(VolumeMode.FILESYSTEM, AccessMode.SINGLE_NODE_WRITER, "xfs")
GIB = 1 << 30
STEPS = (
    "extents.lengthen.before_commit",
    "extents.lengthen.after_commit",
    "extents.map.before_fit",
    "extents.map.after_fit",
    "extents.grow.before_filesystem",
    "node.expand.before_grow",
    "node.expand.after_grow",
    "extents.grow.after_filesystem",
)
DISK_WRITER = """
import mmap, os, sys
block = mmap.mmap(-1, 4 << 20)
file = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT | os.O_DIRECT)
offset = 0
while True:
    os.pwrite(file, block, offset)
    offset = (offset + len(block)) % (256 << 20)
"""
MakeElastic = Callable[..., Cluster]


@pytest.fixture
def make_elastic() -> Iterator[MakeElastic]:
    """Clusters over a pool of one segment in a file on XFS."""
    with ExitStack() as stack:

        def make(segment_bytes: int, **options: object) -> Cluster:
            host = stack.enter_context(xfs_filesystem(segment_bytes + 2 * GIB))
            (host / "pool").mkdir()
            pool = {**made_pool(host / "pool", segment_bytes), **options}
            cluster = Cluster({"pools": {"local": pool}}, stack.enter_context(scratch_directory()))
            stack.callback(take_down, cluster)
            return cluster

        yield make


@pytest.fixture
def little_slack(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a few megabytes make a volume grow."""
    monkeypatch.setattr(growth, "_LEAST_SLACK_BYTES", 32 * MIB)


def test_a_writer_at_full_speed_never_sees_the_end(make_elastic: MakeElastic) -> None:
    cluster = make_elastic(10 * GIB)
    volume = cluster.create("db", 9 * GIB, capability=XFS, initialSize="512Mi")
    with cluster.mounted(volume, "xfs") as directory:
        assert free_bytes(directory) < GIB
        write_whole(directory / "data", 8 * GIB)
        assert (directory / "data").stat().st_size == 8 * GIB


def test_nor_beside_neighbours_that_keep_the_disk_busy(make_elastic: MakeElastic) -> None:
    """Each growth then waits for the disk, a second and longer, while memory is as fast as ever."""
    cluster = make_elastic(4 * GIB)
    volume = cluster.create("db", 3 * GIB, capability=XFS)
    with cluster.mounted(volume, "xfs") as directory, busy_disk(cluster.mounts):
        assert free_bytes(directory) < GIB
        write_whole(directory / "data", 2 * GIB)


@pytest.mark.parametrize(("pool_bytes", "shown_bytes"), [(700 * MIB, 512 * MIB), (320 * MIB, 300 * MIB)])
def test_no_growth_races_the_first_writer(make_elastic: MakeElastic, pool_bytes: int, shown_bytes: int) -> None:
    """What is taken for it in any case is there before it is mounted; or not, where the pool has no more."""
    cluster = make_elastic(pool_bytes, overcommit=4)
    volume = cluster.create("db", 600 * MIB, capability=XFS, initialSize="300Mi")
    device = cluster.attach(volume, XFS).device
    assert int((Path("/sys/block") / device.name / "size").read_text()) * 512 == shown_bytes


def test_a_writer_is_held_to_its_disk_while_there_is_more_to_come(make_elastic: MakeElastic) -> None:
    cluster = make_elastic(900 * MIB)
    volume = cluster.create("db", 800 * MIB, capability=XFS, initialSize="320Mi")
    with cluster.mounted(volume, "xfs") as directory:
        device = cluster.attach(volume, XFS).device
        number = device.stat().st_rdev
        held = Path("/sys/class/bdi", f"{os.major(number)}:{os.minor(number)}", "strict_limit")
        if not held.exists():
            pytest.skip("kernels before 6.2 cannot hold the writers to one device")
        assert held.read_text() == "1\n"
        writeback.hold(device, 1 << 60)
        assert held.read_text() == "0\n", "beyond the machine's own limit there is none"
        writeback.hold(device, 64 * MIB)
        assert held.read_text() == "1\n"
        write(directory / "data", 600 * MIB)
        wait_until(lambda: held.read_text() == "0\n")  # it has all that was claimed
    assert not held.exists() or held.read_text() == "0\n", "whatever is attached as this device next is not held"


def test_a_limit_left_on_a_device_that_was_detached_by_hand_goes_with_the_next_start(
    make_elastic: MakeElastic, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A killed server cannot take it away itself; on a device that is bound it may be somebody else's."""
    cluster = make_elastic(64 * MIB)
    bound = cluster.pool.options.path.stat().st_dev
    limits = [tmp_path / f"{os.major(bound)}:{minor}" / "strict_limit" for minor in (os.minor(bound), (1 << 20) - 1)]
    for limit in limits:
        limit.parent.mkdir()
        limit.write_text("1\n")
    monkeypatch.setattr(writeback, "_SYS_BDI", tmp_path)
    cluster.restart()
    assert [limit.read_text() for limit in limits] == ["1\n", "0"]


def test_a_full_pool_is_enospc_and_the_writer_goes_on_when_it_has_grown(make_elastic: MakeElastic) -> None:
    cluster = make_elastic(700 * MIB, overcommit=4)
    volume = cluster.create("db", 1200 * MIB, capability=XFS, initialSize="320Mi")
    with cluster.mounted(volume, "xfs") as directory:
        with pytest.raises(OSError) as seen:
            fill(directory / "data")
        assert seen.value.errno == errno.ENOSPC
        written = (directory / "data").stat().st_size // MIB * MIB
        assert written > 500 * MIB  # all that the pool has, but for what XFS keeps to itself
        with (directory / "data").open("rb+") as file:
            os.fsync(file.fileno())  # what was taken is there
        assert_pattern(directory / "data", written)
        record = cluster.pool.records.volume(cluster.key(volume))
        wait_until(lambda: any(True for _ in cluster.pool.layout.volume_problems(record)))
        (problem,) = cluster.pool.layout.volume_problems(record)
        assert (problem.kind, problem.reason) == (HealthKind.DEGRADED, "PoolFull")

        segment = cluster.pool.options.path / "segment-0"
        grow(cluster.pool.options.path, SegmentOptions(path=segment, size=1500 * MIB))
        wait_until(lambda: free_bytes(directory) > 300 * MIB)
        write(directory / "more", 400 * MIB)
        wait_until(lambda: not list(cluster.pool.layout.volume_problems(record)))
        assert_pattern(directory / "data", written)


@pytest.mark.usefixtures("little_slack")
def test_statistics_tell_the_claim_and_what_is_left_of_it(make_elastic: MakeElastic) -> None:
    cluster = make_elastic(900 * MIB)
    volume = cluster.create("db", 800 * MIB, capability=XFS, initialSize="320Mi")
    with cluster.mounted(volume, "xfs") as directory:
        for written in (0, 400 * MIB):
            if written:
                write(directory / "data", written)
            told = usage(KernelMounts(), Served(cluster), volume.handle, directory)  # type: ignore[arg-type]
            space = next(line for line in told if line.unit == "bytes")
            assert 700 * MIB < space.total <= 800 * MIB
            assert abs(space.available + space.used - space.total) < 32 * MIB
            assert space.used >= written


@pytest.mark.usefixtures("little_slack")
def test_a_volume_that_is_expanded_goes_on_growing(make_elastic: MakeElastic) -> None:
    cluster = make_elastic(900 * MIB)
    volume = cluster.create("db", 340 * MIB, capability=XFS, initialSize="320Mi")
    with cluster.mounted(volume, "xfs") as directory:
        with pytest.raises(OSError, match="No space left"):
            write(directory / "data", 400 * MIB)
        cluster.backend.expand_volume(volume.handle, SizeRange(700 * MIB))
        wait_until(lambda: free_bytes(directory) > 32 * MIB)
        write(directory / "more", 300 * MIB)


@pytest.mark.usefixtures("little_slack")
def test_a_frozen_volume_keeps_no_other_from_growing(make_elastic: MakeElastic) -> None:
    cluster = make_elastic(1500 * MIB)
    frozen, other = (cluster.create(name, 700 * MIB, capability=XFS, initialSize="320Mi") for name in ("a", "b"))
    with cluster.mounted(frozen, "xfs") as first, cluster.mounted(other, "xfs") as second:
        write(first / "data", 200 * MIB)
        source = cluster.attach(frozen, XFS)
        with NodeHost().frozen((source.device,), 30):
            cluster.pool.layout.lengthen(cluster.key(frozen), 400 * MIB)
            write(second / "data", 600 * MIB)
        write(first / "more", 350 * MIB)


@pytest.mark.usefixtures("little_slack")
def test_a_snapshot_holds_all_of_a_volume_that_grows_until_it_is_frozen(
    make_elastic: MakeElastic, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster = make_elastic(1500 * MIB)
    volume = cluster.create("db", 380 * MIB, capability=XFS, initialSize="320Mi")
    key = cluster.key(volume)

    def frozen(_: NodeHost, devices: tuple[Path, ...], limit_s: float, freeze=NodeHost.frozen):
        cluster.pool.layout.lengthen(key, 360 * MIB)
        filesystem = NodeHost().filesystem_on(devices[0])
        assert filesystem
        filesystem.grow()
        return freeze(NodeHost(), devices, limit_s)

    with cluster.mounted(volume, "xfs"):
        monkeypatch.setattr(NodeHost, "frozen", frozen)
        with pytest.raises(Busy, match="has grown"):
            cluster.snapshot("s", volume)
        snapshot = cluster.snapshot("s", volume)
    restored = cluster.create("restored", 380 * MIB, source=snapshot, capability=XFS)
    with cluster.mounted(restored, "xfs") as directory:
        assert free_bytes(directory) > 250 * MIB


@pytest.mark.usefixtures("little_slack")
def test_killed_at_each_step_of_a_growth_it_goes_on_after_the_start(
    make_elastic: MakeElastic, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(growth, "_AHEAD_S", 0.0)  # small steps, so that there is one for each kill
    cluster = make_elastic(2 * GIB)
    volume = cluster.create("db", 1900 * MIB, capability=XFS, initialSize="320Mi")
    with cluster.mounted(volume, "xfs") as directory:
        for number, step in enumerate(STEPS):
            cluster.backend.stop()

            def grow_and_die(number: int = number) -> None:
                cluster.start()
                (directory / f"{number}").write_bytes(b"x" * max(0, free_bytes(directory) - 16 * MIB))
                time.sleep(20)

            killed = killed_at(step, grow_and_die)
            cluster.start()
            assert killed, f"{step} was not reached"
            wait_until(lambda: free_bytes(directory) > 32 * MIB)
            assert not list(cluster.backend.diagnose())
            assert cluster.pool.layout.space()[1] > 0


@pytest.mark.usefixtures("little_slack")
def test_a_volume_that_cannot_be_detached_yet_goes_on_growing(make_elastic: MakeElastic) -> None:
    cluster = make_elastic(900 * MIB)
    volume = cluster.create("db", 800 * MIB, capability=XFS, initialSize="320Mi")
    with cluster.mounted(volume, "xfs") as directory:
        with pytest.raises(Busy):
            cluster.detach(volume)
        write(directory / "data", 500 * MIB)


def test_it_begins_with_a_part_of_what_is_claimed(make_elastic: MakeElastic) -> None:
    cluster = make_elastic(2 * MIB, overcommit=100)
    path = cluster.pool.options.path
    cluster.backend.stop()
    os.truncate(path / "segment-0", 8 * GIB)  # nothing is written, so that it need not be
    with sqlite3.connect(path / "pool.db") as database:
        database.execute("UPDATE segment SET extents = ?", (8 * 1024 - 1,))
    database.close()
    cluster.start()
    for claimed_bytes, fs_type, parameters, begins_bytes in (
        (20 * GIB, "ext4", {}, 256 * MIB),
        (100 * GIB, "ext4", {}, GIB),
        (100 * GIB, "ext4", {"initialSize": "64Mi"}, 64 * MIB),
        (100 * MIB, "ext4", {}, 100 * MIB),
        (20 * GIB, "xfs", {"initialSize": "64Mi"}, 300 * MIB),  # smaller ones cannot be made
    ):
        capability = VolumeCapability(VolumeMode.FILESYSTEM, AccessMode.SINGLE_NODE_WRITER, fs_type)
        volume = cluster.create("db", claimed_bytes, capability=capability, **parameters)
        assert volume.size_bytes == claimed_bytes
        assert cluster.pool.layout.present_bytes(cluster.key(volume)) == begins_bytes
        cluster.delete(volume)


def test_without_overcommit_a_claim_counts_in_full_from_the_start(make_elastic: MakeElastic) -> None:
    """So nobody who was admitted finds the pool full before his claim is."""
    cluster = make_elastic(101 * MIB)
    cluster.create("first", 80 * MIB, initialSize="4Mi")
    assert cluster.pool.layout.space()[1] == 96 * MIB
    with pytest.raises(NoSpace):
        cluster.create("second", 40 * MIB, initialSize="4Mi")
    cluster.options["pools"]["local"]["overcommit"] = 2  # type: ignore[index]
    cluster.restart()
    cluster.create("second", 40 * MIB, initialSize="4Mi")


def test_raw_block_is_refused_and_says_what_to_ask_for(make_elastic: MakeElastic) -> None:
    with pytest.raises(InvalidArgument, match="provisioning: thick"):
        make_elastic(64 * MIB).create("raw", 32 * MIB, capability=RAW)


class Served:
    """As much of a facade as statistics ask."""

    hooks = frozenset({"find_source"})

    def __init__(self, cluster: Cluster) -> None:
        self.find_source = cluster.backend.find_source


def free_bytes(directory: Path) -> int:
    found = os.statvfs(directory)
    return found.f_bavail * found.f_frsize


def wait_until(condition: Callable[[], bool], timeout_s: float = 20) -> None:
    give_up = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < give_up, "it has not happened"
        time.sleep(0.02)


@contextmanager
def busy_disk(directory: Path) -> Iterator[None]:
    """Four processes write past the page cache, to the disk of a directory, as fast as it goes."""
    writers = [subprocess.Popen([sys.executable, "-c", DISK_WRITER, str(directory / f"busy-{n}")]) for n in range(4)]
    try:
        time.sleep(1)
        yield
        assert not [writer for writer in writers if writer.poll() is not None], "a neighbour has given up"
    finally:
        for writer in writers:
            writer.kill()
            writer.wait()


def write_whole(path: Path, size_bytes: int) -> None:
    """Write as fast as this machine can; a write that takes only a part is as bad as one that fails."""
    block = os.urandom(MIB)
    with path.open("ab", buffering=0) as file:
        for number in range(size_bytes // MIB):
            taken_bytes = file.write(block)
            assert taken_bytes == MIB, f"megabyte {number} was not taken whole"
        os.fsync(file.fileno())


def write(path: Path, size_bytes: int) -> None:
    """Write as fast as this machine can. Raises what the writer sees."""
    block = memoryview(os.urandom(MIB))
    with path.open("ab", buffering=0) as file:
        for _ in range(size_bytes // MIB):
            written = 0
            while written < MIB:  # a filesystem that is full takes a part first
                written += file.write(block[written:])
        os.fsync(file.fileno())


def fill(path: Path) -> None:
    """Write the pattern until the filesystem takes no more. Raises what the writer sees then."""
    with path.open("wb", buffering=0) as file:
        for number in itertools.count():
            block, written = pattern(number), 0
            while written < MIB:
                written += file.write(block[written:])


def pattern(number: int) -> bytes:
    """A megabyte that says where it belongs."""
    return number.to_bytes(8) * (MIB // 8)


def assert_pattern(path: Path, size_bytes: int) -> None:
    """Reads it from the device, not from what the page cache still holds."""
    with path.open("rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        for number in range(size_bytes // MIB):
            assert file.read(MIB) == pattern(number), f"megabyte {number}"


def killed_at(step: str, act: Callable[[], None]) -> bool:
    """Do it in a fork that is killed at a fault point; answer whether it was."""
    child = os.fork()
    if child == 0:
        faults._armed, faults._name, faults._left, faults._trace = True, step, 1, ""  # type: ignore[misc]
        try:
            act()
        finally:
            os._exit(1)
    status = os.waitpid(child, 0)[1]
    return os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
