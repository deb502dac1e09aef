"""NFS volumes, mode export, beside the same by hand: a directory, a quota and an export; a copy; a mount."""

from __future__ import annotations

import itertools
import json
import statistics
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from export_server import local_server

from benches.ratios import Bound, Findings
from benches.scale import FULL, SCALE
from benches.timing import alternate, milliseconds, p50, timed
from csi_core._proto import csi_pb2 as pb
from csi_core.testing.harness import AccessMode, ServerProcess, create_request, mounted

pytestmark = pytest.mark.needs_kernel("nfs")

MIB = 1 << 20
NODE = "node-a"
ADDRESS = "127.0.0.1"
RWO = mounted(mode=AccessMode.SINGLE_NODE_MULTI_WRITER)
ROUNDS = SCALE.heavy_rounds
EXPORTS = 1_000 if SCALE is FULL else 100
FILES = 10_000 if SCALE is FULL else 1_000


def command(*argv: str) -> None:
    """Run to its end."""
    subprocess.run(argv, check=True, stdin=subprocess.DEVNULL, capture_output=True)


@dataclass
class Exporter:
    """A driver in mode export on this machine's server, and the same disk for what is done by hand."""

    disk: Path
    server: ServerProcess
    kubelet: Path
    numbers: Iterator[int] = field(default_factory=itertools.count)

    def create(self) -> pb.Volume:
        """A volume that one node may mount: CreateVolume and ControllerPublishVolume."""
        request = create_request(f"volume-{next(self.numbers)}", 64 * MIB, capability=RWO)
        volume = self.server.controller.CreateVolume(request).volume
        publish = pb.ControllerPublishVolumeRequest(volume_id=volume.volume_id, node_id=NODE, volume_capability=RWO)
        self.server.controller.ControllerPublishVolume(publish)
        return volume

    def delete(self, volume_id: str) -> None:
        """Take it back."""
        unpublish = pb.ControllerUnpublishVolumeRequest(volume_id=volume_id, node_id=NODE)
        self.server.controller.ControllerUnpublishVolume(unpublish)
        self.server.controller.DeleteVolume(pb.DeleteVolumeRequest(volume_id=volume_id))

    def by_hand(self) -> Path:
        """mkdir, a project quota, exportfs: three commands, and a flush."""
        number = next(self.numbers)
        path = self.disk / f"hand-{number}"
        command("mkdir", str(path))
        setup = (f"project -s -p {path} {number + 10}", f"limit -p bhard=64m {number + 10}")
        command("xfs_quota", "-x", *(word for line in setup for word in ("-c", line)), str(self.disk))
        command("sync", str(path))
        command("exportfs", "-o", f"rw,no_root_squash,no_subtree_check,fsid={number + 100_000}", f"{ADDRESS}:{path}")
        return path


@pytest.fixture(scope="module")
def exporter(scratch_disks: tuple[Path, ...], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Exporter]:
    """The server has an XFS with project quotas."""
    directory = tmp_path_factory.mktemp("nfs")
    with local_server({"xfs": scratch_disks[5]}) as disks:
        (disks["xfs"] / "root").mkdir()
        export = {"root": str(disks["xfs"] / "root"), "nodeAddresses": {NODE: ADDRESS}, "overcommit": 1000}
        options = {"mode": "export", "server": ADDRESS, "export": export}
        config = {"driver": {"nodeId": NODE}, "backends": {"nfs": {"options": options}}}
        with ServerProcess(config, directory) as server:
            yield Exporter(disks["xfs"], server, directory)


def test_create(benchmark, exporter: Exporter, findings: Findings) -> None:
    found = alternate(benchmark, exporter.create, {"by hand": exporter.by_hand}, rounds=ROUNDS, warm_up=2)
    findings.add(
        "nfs-create",
        "NFS: create a volume and let a node in",
        found["subject"] / found["by hand"],
        Bound(high=1.3, gate_high=4),
        subject=f"p50 {milliseconds(found['subject'])}",
        floor=f"mkdir, xfs_quota, sync, exportfs by hand {milliseconds(found['by hand'])}",
    )


def test_create_beside_many(benchmark, exporter: Exporter, findings: Findings) -> None:
    few = [timed(exporter.create) for _ in range(ROUNDS)]
    while next(exporter.numbers) < EXPORTS:
        exporter.create()
    many = benchmark.pedantic(lambda: [timed(exporter.create) for _ in range(ROUNDS)], rounds=1)
    findings.add(
        "nfs-create-many",
        f"NFS: the same beside {EXPORTS:,} exports, against beside a few",
        p50(many) / p50(few),
        Bound(high=1.3, gate_high=10),
        subject=f"p50 {milliseconds(p50(many))}",
        floor=f"beside a few {milliseconds(p50(few))}",
        note="exportfs(8) reads and writes its whole table for each entry",
    )


def test_snapshot(benchmark, exporter: Exporter, findings: Findings) -> None:
    volume = exporter.create()
    content = exporter.disk / Path(volume.volume_context["share"]).relative_to(exporter.disk)
    for number in range(FILES):
        directory = content / str(number // 100)
        directory.mkdir(exist_ok=True)
        (directory / str(number)).write_bytes(b"x" * 4096)
    command("sync", "-f", str(content))
    copies = itertools.count()

    def snapshot() -> None:
        request = pb.CreateSnapshotRequest(name=f"snapshot-{next(copies)}", source_volume_id=volume.volume_id)
        while True:  # a copy of many files may outlive a call; the retry joins it
            try:
                return exporter.server.controller.CreateSnapshot(request)
            except Exception as error:
                if "DEADLINE_EXCEEDED" not in str(error):
                    raise

    def by_hand() -> None:
        command("cp", "-a", "--reflink=always", str(content), str(exporter.disk / f"copy-{next(copies)}"))
        command("sync", "-f", str(exporter.disk))

    found = alternate(benchmark, snapshot, {"by hand": by_hand}, rounds=max(3, ROUNDS // 5), warm_up=1)
    findings.add(
        "nfs-snapshot",
        f"NFS: snapshot of {FILES:,} files on reflink",
        found["subject"] / found["by hand"],
        Bound(high=1.1, gate_high=3),
        subject=f"p50 {milliseconds(found['subject'])}",
        floor=f"cp -a --reflink, sync {milliseconds(found['by hand'])}",
    )


def test_io(benchmark, exporter: Exporter, findings: Findings) -> None:
    volume = exporter.create()
    staging, target, hand = (exporter.kubelet / name for name in ("staging", "target", "hand"))
    staging.mkdir()
    hand.mkdir()
    node = exporter.server.node
    where = {"volume_id": volume.volume_id, "staging_target_path": str(staging), "volume_capability": RWO}
    node.NodeStageVolume(pb.NodeStageVolumeRequest(volume_context=volume.volume_context, **where))
    node.NodePublishVolume(pb.NodePublishVolumeRequest(target_path=str(target), **where))
    command("mount", "-t", "nfs4", "-o", "vers=4.2,hard", f"{ADDRESS}:{exporter.by_hand()}", str(hand))
    try:
        ours, theirs = [], []

        def pair() -> None:
            sides = [(theirs, hand), (ours, target)]
            for found, path in sides if len(ours) % 2 else reversed(sides):
                found.append(bytes_per_second(path))

        benchmark.pedantic(pair, rounds=SCALE.fio_pairs, warmup_rounds=1)
    finally:
        command("umount", str(hand))
        node.NodeUnpublishVolume(pb.NodeUnpublishVolumeRequest(volume_id=volume.volume_id, target_path=str(target)))
        node.NodeUnstageVolume(
            pb.NodeUnstageVolumeRequest(volume_id=volume.volume_id, staging_target_path=str(staging))
        )
    ours, theirs = ours[1:], theirs[1:]
    findings.add(
        "nfs-fio",
        "NFS: fio, 1 MiB sequential writes",
        statistics.median(our / their for our, their in zip(ours, theirs, strict=True)),
        Bound(low=0.95, high=1.05, gate_low=0.5),
        subject=f"{statistics.median(ours) / MIB:,.0f} MiB/s",
        floor=f"{statistics.median(theirs) / MIB:,.0f} MiB/s on a mount by hand",
        note="over the loopback interface; the ratio is the median over pairs of runs, one after the other",
    )


def bytes_per_second(path: Path) -> float:
    """fio, sequential, on a file of 32 MiB, durable in the end."""
    argv = ["fio", "--name=bench", f"--filename={path}/data", "--size=32m", "--rw=write", "--bs=1m", "--end_fsync=1"]
    argv += ["--ioengine=psync", "--output-format=json", "--time_based", f"--runtime={SCALE.fio_seconds}"]
    done = subprocess.run(argv, check=True, capture_output=True, text=True)
    return float(json.loads(done.stdout)["jobs"][0]["write"]["bw_bytes"])
