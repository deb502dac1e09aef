"""The life of volumes, from claim to deletion, with everything checked on the way."""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from csi_core._proto import csi_pb2 as pb
from csi_core.cli.demo.changes import compare_snapshots
from csi_core.cli.demo.client import Client, MismatchError
from csi_core.cli.demo.cluster import Claim, Cluster
from csi_core.cli.demo.content import Content
from csi_core.cli.demo.report import Report
from csi_core.node.growth import lacks_cap_sys_resource

__all__ = ["Shape", "Walk"]

GROWTH_BYTES = 64 << 20


@dataclass(frozen=True, slots=True)
class Shape:
    """One kind of volume, and what its pods write on it.

    ``fs_type`` is "" for raw block and where the backend's volumes are directories.
    """

    name: str
    block: bool
    fs_type: str
    size_bytes: int
    parameters: Mapping[str, str]
    content: Content

    @property
    def capability(self) -> pb.VolumeCapability:
        """ReadWriteOnce, as Kubernetes asks for it."""
        return self._capability(pb.VolumeCapability.AccessMode.SINGLE_NODE_MULTI_WRITER)

    @property
    def exclusive(self) -> pb.VolumeCapability:
        """ReadWriteOncePod."""
        return self._capability(pb.VolumeCapability.AccessMode.SINGLE_NODE_SINGLE_WRITER)

    def _capability(self, mode: pb.VolumeCapability.AccessMode.Mode.ValueType) -> pb.VolumeCapability:
        access_mode = pb.VolumeCapability.AccessMode(mode=mode)
        if self.block:
            return pb.VolumeCapability(block=pb.VolumeCapability.BlockVolume(), access_mode=access_mode)
        mount = pb.VolumeCapability.MountVolume(fs_type=self.fs_type)
        return pb.VolumeCapability(mount=mount, access_mode=access_mode)


class Walk:
    """Walks volumes of each shape through their life.

    Args:
        client, cluster, report: the driver, the cluster around it, and where to show it all.
        real_mounts: whether volumes are mounted by the kernel; simulated ones share a filesystem with the host, so
            their size and read-only cannot be proved.
    """

    def __init__(self, client: Client, cluster: Cluster, report: Report, *, real_mounts: bool) -> None:
        self._client = client
        self._cluster = cluster
        self._report = report
        self._real_mounts = real_mounts

    def life_of(self, shape: Shape) -> None:
        """One volume's whole life."""
        self._report.title(f"A volume: {shape.name}")
        cluster, content = self._cluster, shape.content
        claim = cluster.provision(shape.name, shape.size_bytes, shape.capability, shape.parameters, times=2)
        cluster.refuse_other_size(claim)
        with cluster.pod(claim, times=2) as path:
            written = content.fill(path)
            before = content.checksums(path)
            self._report.check(f"{shape.name}: wrote {written >> 20} MiB in {len(before)} parts, SHA-256 recorded")
            if not shape.block:
                with cluster.second_pod(claim, "reader", read_only=True) as view:
                    self._prove_read_only(shape, view, before)
            small = self._size_bytes(claim, path)
            grown = self._expand(claim, path, shape, small)
        if shape.block:  # a device is read-only for all of its pods or for none
            with cluster.pod(claim, "reader", read_only=True) as view:
                self._prove_read_only(shape, view, before)
        with cluster.pod(claim) as path:
            if not grown:
                self._check_growth(claim, path, small, shape.size_bytes + GROWTH_BYTES, "grown before it was mounted")
            large = self._size_bytes(claim, path)
            self._verify(shape, path, before, "the volume after growing")
            first = cluster.snapshot(claim, "first", times=2)
            content.change(path)
            after = content.checksums(path)
            if before.items() <= after.items():
                raise MismatchError(f"{shape.name}: nothing changed on the volume")
            second = cluster.snapshot(claim, "second")
            copy = self._provision_copy(
                shape, "clone", pb.VolumeContentSource.VolumeSource(volume_id=claim.volume.volume_id)
            )
        cluster.delete(claim, times=2)
        self._report.say("          the source is deleted; its snapshots and its clone must not mind")
        with cluster.pod(copy) as path:
            self._verify(shape, path, after, "the clone")
        restored = self._provision_copy(
            shape, "restored", pb.VolumeContentSource.SnapshotSource(snapshot_id=first.snapshot_id)
        )
        with cluster.pod(restored) as path:
            self._verify(shape, path, before, "the first snapshot, restored")
            self._check_growth(
                restored, path, large, shape.size_bytes + 2 * GROWTH_BYTES, "made larger than its source"
            )
            if shape.block:
                self._compare(shape, path, first, second)
        for volume in (copy, restored):
            cluster.delete(volume)
        for snapshot in (first, second):
            cluster.delete_snapshot(snapshot, times=2)

    def life_of_group(self, shapes: tuple[Shape, Shape]) -> None:
        """A group snapshot of two volumes, and both restored from it."""
        self._report.title(f"A group snapshot: {' and '.join(shape.name for shape in shapes)}")
        cluster = self._cluster
        one, two = (cluster.provision(f"{s.name}-member", s.size_bytes, s.capability, s.parameters) for s in shapes)
        with cluster.pod(one) as first_path, cluster.pod(two) as second_path:
            paths = (first_path, second_path)
            for shape, path in zip(shapes, paths, strict=True):
                shape.content.fill(path)
            before = [shape.content.checksums(path) for shape, path in zip(shapes, paths, strict=True)]
            group = cluster.group_snapshot((one, two), "both", times=2)
            for shape, path in zip(shapes, paths, strict=True):
                shape.content.change(path)
        snapshot_ids = {snapshot.source_volume_id: snapshot.snapshot_id for snapshot in group.snapshots}
        for shape, claim, sums in zip(shapes, (one, two), before, strict=True):
            source = pb.VolumeContentSource.SnapshotSource(snapshot_id=snapshot_ids[claim.volume.volume_id])
            copy = self._provision_copy(shape, "from-group", source)
            with cluster.pod(copy) as path:
                self._verify(shape, path, sums, "its member of the group, restored")
            cluster.delete(copy)
            cluster.delete(claim)
        cluster.delete_group_snapshot(group, times=2)

    def exclusive(self, shape: Shape) -> None:
        """ReadWriteOncePod: the second pod is refused."""
        self._report.title(f"ReadWriteOncePod: {shape.name}")
        cluster = self._cluster
        claim = cluster.provision(f"{shape.name}-rwop", shape.size_bytes, shape.exclusive, shape.parameters)
        with cluster.pod(claim):
            cluster.refuse_second_pod(claim)
        cluster.delete(claim)

    def inline(self, shape: Shape) -> None:
        """An ephemeral volume, which lives as long as its pod."""
        self._report.title(f"An inline ephemeral volume: {shape.name}")
        attributes = {**shape.parameters, "size": str(shape.size_bytes)}
        with self._cluster.inline_pod(f"{shape.name}-inline", shape.capability, attributes) as path:
            shape.content.fill(path)
            sums = shape.content.checksums(path)
            self._verify(shape, path, sums, "an inline volume")
        if path.exists():
            raise MismatchError(f"{shape.name}: the inline volume is still there after its pod")

    def _provision_copy(
        self,
        shape: Shape,
        name: str,
        source: pb.VolumeContentSource.SnapshotSource | pb.VolumeContentSource.VolumeSource,
    ) -> Claim:
        """A volume, larger than its source is by now, filled from it."""
        if isinstance(source, pb.VolumeContentSource.SnapshotSource):
            content = pb.VolumeContentSource(snapshot=source)
        else:
            content = pb.VolumeContentSource(volume=source)
        size_bytes = shape.size_bytes + 2 * GROWTH_BYTES
        subject = f"{shape.name}-{name}"
        claim = self._cluster.provision(
            subject, size_bytes, shape.capability, shape.parameters, source=content, times=2
        )
        if claim.volume.content_source != content:
            raise MismatchError(f"{subject}: the answer names another content source than the request")
        return claim

    def _verify(self, shape: Shape, path: Path, sums: Mapping[str, str], what: str) -> None:
        found = shape.content.checksums(path)
        wrong = sorted(part for part in sums if found.get(part) != sums[part])
        extra = sorted(found.keys() - sums.keys()) if not shape.block else []
        if wrong or extra:
            raise MismatchError(
                f"{shape.name}, {what}: {len(wrong)} of {len(sums)} checksums differ, {len(extra)} files too many"
            )
        self._report.check(f"{shape.name}: {what}: all {len(sums)} checksums are right")

    def _prove_read_only(self, shape: Shape, path: Path, sums: Mapping[str, str]) -> None:
        self._verify(shape, path, sums, "seen by a read-only pod")
        if not self._real_mounts:
            return  # a symbolic link keeps nobody from writing
        try:
            if shape.block:
                with path.open("r+b", buffering=0) as device:
                    device.write(bytes(512))
            else:
                (path / "new").touch()
        except OSError as error:
            if error.errno not in (errno.EROFS, errno.EACCES, errno.EPERM):
                raise
            self._report.check(f"{shape.name}: the read-only pod cannot write: {error.strerror}")
        else:
            raise MismatchError(f"{shape.name}: the read-only pod could write")

    def _expand(self, claim: Claim, path: Path, shape: Shape, small_bytes: int) -> bool:
        """Grow the volume while the pod runs; False where this kernel does not let the filesystem follow."""
        size_bytes = shape.size_bytes + GROWTH_BYTES
        may_fail = shape.fs_type == "ext4" and self._real_mounts and lacks_cap_sys_resource()
        if not self._cluster.expand(claim, path, size_bytes, may_fail=may_fail):
            self._report.say(
                "          This machine cannot grow a mounted ext4: that needs CAP_SYS_RESOURCE, which this process\n"
                "          has not got. The device is larger now; the filesystem must follow at the next stage."
            )
            return False
        self._check_growth(claim, path, small_bytes, size_bytes, "grown while the pod runs")
        return True

    def _size_bytes(self, claim: Claim, path: Path) -> int:
        """The size of a published volume as the kernel sees it, which the driver's stats must agree with."""
        said = self._cluster.stats(claim, path).total
        if claim.capability.HasField("block"):
            with path.open("rb") as device:
                found = device.seek(0, os.SEEK_END)
        else:
            filesystem = os.statvfs(path)
            found = filesystem.f_blocks * filesystem.f_frsize
        if said != found:
            raise MismatchError(f"{claim.subject}: stats say {said} bytes, the kernel {found}")
        return said

    def _check_growth(self, claim: Claim, path: Path, small_bytes: int, size_bytes: int, what: str) -> None:
        """Prove that a volume is ``size_bytes`` large now; filesystems keep some of that for themselves."""
        if not self._real_mounts and not claim.capability.HasField("block"):
            return  # a directory: its filesystem is the host's
        found = self._size_bytes(claim, path)
        if found > size_bytes or found - small_bytes < GROWTH_BYTES * 3 // 4:
            raise MismatchError(
                f"{claim.subject}: {small_bytes} bytes became {found} where {size_bytes} were asked for"
            )
        self._report.check(
            f"{claim.subject}: {what}: {small_bytes >> 20} MiB became {found >> 20} MiB of {size_bytes >> 20} MiB"
        )

    def _compare(self, shape: Shape, first_path: Path, first: pb.Snapshot, second: pb.Snapshot) -> None:
        """Changed blocks between the snapshots against a byte comparison of both, restored."""
        if "SNAPSHOT_METADATA_SERVICE" not in self._cluster.services:
            self._report.say("          the driver does not serve changed blocks here; not compared")
            return
        source = pb.VolumeContentSource.SnapshotSource(snapshot_id=second.snapshot_id)
        other = self._provision_copy(shape, "restored-second", source)
        with self._cluster.pod(other) as second_path:
            self._report.check(compare_snapshots(self._client, shape.name, (first, first_path), (second, second_path)))
        self._cluster.delete(other)
