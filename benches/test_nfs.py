"""NFS volumes, mode export, beside the same by hand: a directory, a quota and an export; a copy; a mount."""

from __future__ import annotations

import itertools
import statistics
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from export_server import local_server

from benches.fio import in_turns
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
FEW, MANY = 10, 1_000
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
        volume = self.create_only()
        self.let_in(volume)
        return volume

    def create_only(self) -> pb.Volume:
        """CreateVolume: nobody may mount it yet."""
        request = create_request(f"volume-{next(self.numbers)}", 64 * MIB, capability=RWO)
        return self.server.controller.CreateVolume(request).volume

    def let_in(self, volume: pb.Volume) -> None:
        """ControllerPublishVolume."""
        publish = pb.ControllerPublishVolumeRequest(volume_id=volume.volume_id, node_id=NODE, volume_capability=RWO)
        self.server.controller.ControllerPublishVolume(publish)

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
    alone = exporter.disk / "alone"
    alone.mkdir()
    created, let_in, hand = ({FEW: [], MANY: []} for _ in range(3))  # seconds
    with bystanders(exporter.disk) as present:

        def both() -> None:
            for count in (FEW, MANY):
                present(count)
                for _ in range(3):
                    volumes = []
                    created[count].append(timed(lambda volumes=volumes: volumes.append(exporter.create_only())))
                    let_in[count].append(timed(lambda volume=volumes[0]: exporter.let_in(volume)))
                    hand[count].append(timed(lambda: command("exportfs", "-i", "-o", "rw,fsid=99999", there)))
                    command("exportfs", "-u", there)
                    exporter.delete(volumes[0].volume_id)

        there = f"{ADDRESS}:{alone}"
        exporter.delete(exporter.create().volume_id)
        benchmark.pedantic(both, rounds=max(3, ROUNDS // 3), iterations=1)
    both_calls = {
        count: p50([sum(pair) for pair in zip(created[count], let_in[count], strict=True)]) for count in created
    }
    alone_s = {count: p50(hand[count]) for count in hand}
    findings.add(
        "nfs-create-many",
        f"NFS: create beside {MANY:,} exports, against beside {FEW}",
        p50(created[MANY]) / p50(created[FEW]),
        Bound(high=1.3, gate_high=3),
        subject=f"p50 {milliseconds(p50(created[MANY]))}",
        floor=f"beside {FEW} {milliseconds(p50(created[FEW]))}",
        note="CreateVolume alone, which lets nobody in",
    )
    findings.add(
        "nfs-create-let-in-many",
        f"NFS: create and let a node in beside {MANY:,} exports, against beside {FEW}",
        both_calls[MANY] / both_calls[FEW],
        Bound(high=1.3, gate_high=3),
        subject=f"p50 {milliseconds(both_calls[MANY])}",
        floor=f"beside {FEW} {milliseconds(both_calls[FEW])}",
        note=f"exportfs(8) for one entry takes {milliseconds(alone_s[MANY])} and {milliseconds(alone_s[FEW])}, as it "
        "resolves and writes its whole table; to let in a first client does without",
    )


@contextmanager
def bystanders(disk: Path) -> Iterator[Callable[[int], None]]:
    """Exports of nobody's: a call says how many there shall be."""
    file = Path("/etc/exports.d/bystanders.exports")
    directories = [disk / "bystanders" / f"{number:020x}" / "data" for number in range(MANY)]
    for directory in directories:
        directory.mkdir(parents=True)

    def present(count: int) -> None:
        options = "(rw,sync,no_root_squash,no_subtree_check,sec=sys,fsid=00000000-0000-0000-0001-"
        lines = (f"{path} {ADDRESS}{options}{number:012d})\n" for number, path in enumerate(directories[:count]))
        file.write_text("".join(lines), encoding="ascii")
        command("exportfs", "-r")

    try:
        yield present
    finally:
        present(0)
        file.unlink()


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
    # The same directory of the same server, and a mount of its own: without nosharecache it would be the same mount.
    share = volume.volume_context["share"]
    command("mount", "-t", "nfs4", "-o", "vers=4.2,hard,nosharecache", f"{ADDRESS}:{share}", str(hand))
    try:
        assert mount_options(target) == mount_options(hand) - {"nosharecache"}
        # Past the caches: every write has come to the server's disk before the next, whereas writes to a file in the
        # page cache measure when the kernel happens to flush it.
        options = ["rw=write", "bs=1m", "size=16m", "io_size=32m", "ioengine=psync"]
        pairs = benchmark.pedantic(lambda: in_turns(target, hand, options, "bw_bytes", SCALE.fio_pairs), rounds=1)
    finally:
        command("umount", str(hand))
        node.NodeUnpublishVolume(pb.NodeUnpublishVolumeRequest(volume_id=volume.volume_id, target_path=str(target)))
        node.NodeUnstageVolume(
            pb.NodeUnstageVolumeRequest(volume_id=volume.volume_id, staging_target_path=str(staging))
        )
    findings.add(
        "nfs-fio",
        "NFS: fio, 1 MiB sequential writes past the caches",
        statistics.median(our / their for our, their in pairs),
        Bound(low=0.95, high=1.05, gate_low=0.5),
        subject=f"{statistics.median(our for our, _ in pairs) / MIB:,.0f} MiB/s",
        floor=f"{statistics.median(their for _, their in pairs) / MIB:,.0f} MiB/s on a mount by hand",
        note=f"over the loopback interface; the ratio is the median over {len(pairs)} pairs of runs, in turns",
    )


def mount_options(path: Path) -> set[str]:
    """As the kernel has them."""
    lines = Path("/proc/mounts").read_text(encoding="utf-8").splitlines()
    return next(set(fields[3].split(",")) for line in lines if (fields := line.split(" "))[1] == str(path))
