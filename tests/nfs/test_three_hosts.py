"""Mode export on real machines: a controller on server S, nodes on A and B. Access by node, sizes, fencing."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import grpc
import pytest
from hosts import Lab, until
from nfs_kubelet import CALL_S, RWO, RWX, Claim, Kubelet, refused

from csi_core._proto import csi_pb2 as pb
from csi_core.testing.harness import AccessMode, ServerProcess, create_request, from_snapshot, mounted

pytestmark = pytest.mark.needs_kernel("nfs")

Code = grpc.StatusCode
MIB = 1 << 20
SIZE_BYTES = 32 * MIB


@dataclass(frozen=True)
class Cluster:
    """The controller, and the kubelets of both nodes."""

    controller: ServerProcess
    a: Kubelet
    b: Kubelet

    def create(self, name: str, mode: AccessMode.Mode.ValueType, source: pb.VolumeContentSource | None = None) -> Claim:
        """CreateVolume."""
        request = create_request(name, SIZE_BYTES, capability=mounted(mode=mode), source=source)
        volume = self.controller.controller.CreateVolume(request, timeout=CALL_S).volume
        return Claim(volume.volume_id, dict(volume.volume_context), mode)

    def let_in(self, claim: Claim, kubelet: Kubelet, *, read_only: bool = False) -> None:
        """ControllerPublishVolume."""
        request = pb.ControllerPublishVolumeRequest(
            volume_id=claim.volume_id,
            node_id=kubelet.host.name,
            volume_capability=claim.capability,
            readonly=read_only,
        )
        self.controller.controller.ControllerPublishVolume(request, timeout=CALL_S)

    def keep_out(self, claim: Claim, kubelet: Kubelet) -> None:
        """ControllerUnpublishVolume."""
        request = pb.ControllerUnpublishVolumeRequest(volume_id=claim.volume_id, node_id=kubelet.host.name)
        self.controller.controller.ControllerUnpublishVolume(request, timeout=CALL_S)

    def run_pod(self, claim: Claim, kubelet: Kubelet) -> Path:
        """Publish, stage, publish; answer where its files are."""
        self.let_in(claim, kubelet)
        return kubelet.run_pod(claim)

    def stop_pod(self, claim: Claim, kubelet: Kubelet) -> None:
        """The same backwards."""
        kubelet.stop_pod(claim)
        self.keep_out(claim, kubelet)

    def delete(self, claim: Claim) -> None:
        """DeleteVolume."""
        self.controller.controller.DeleteVolume(pb.DeleteVolumeRequest(volume_id=claim.volume_id), timeout=CALL_S)


@pytest.fixture(scope="module")
def cluster(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """One root for all tests; nothing may stay mounted or exported."""
    directory = tmp_path_factory.mktemp("cluster")
    lab.s.run("mkdir", "/srv/root")
    export = {
        "root": "/srv/root",
        "requireMount": False,
        "nodeAddresses": {"a": lab.a.address, "b": lab.b.address},
        "resolveNodes": False,
    }
    options = {"role": "controller", "mode": "export", "server": lab.s.address, "export": export}
    config = {"driver": {"nodeId": "s"}, "backends": {"nfs": {"options": options}}}
    with (
        ServerProcess(config, directory / "s", run_on=lab.s.enter) as controller,
        Kubelet(lab.a, directory) as a,
        Kubelet(lab.b, directory) as b,
    ):
        yield Cluster(controller, a, b)
        assert lab.a.mounts() == lab.b.mounts() == []
        assert "/srv/root" not in lab.s.run("exportfs", "-v")


def test_what_a_writes_b_reads_and_both_see_the_claims_size(cluster: Cluster) -> None:
    claim = cluster.create("rwx", RWX)
    (cluster.run_pod(claim, cluster.a) / "file").write_text("from a", encoding="utf-8")
    assert (cluster.run_pod(claim, cluster.b) / "file").read_text(encoding="utf-8") == "from a"
    for kubelet in (cluster.a, cluster.b):
        assert kubelet.stats(claim).usage[0].total == SIZE_BYTES, "the quota's size, not the disk's"
    for kubelet in (cluster.a, cluster.b):
        cluster.stop_pod(claim, kubelet)
    cluster.delete(claim)


def test_a_node_that_was_not_let_in_cannot_mount(cluster: Cluster) -> None:
    claim = cluster.create("rwo", RWO)
    cluster.run_pod(claim, cluster.a)
    with refused(Code.FAILED_PRECONDITION, "is for one node, and node a has it"):
        cluster.let_in(claim, cluster.b)
    with pytest.raises(grpc.RpcError) as caught:
        cluster.b.stage(claim)
    assert caught.value.code() in (Code.PERMISSION_DENIED, Code.FAILED_PRECONDITION), "the server itself refuses"
    cluster.stop_pod(claim, cluster.a)
    cluster.run_pod(claim, cluster.b)
    cluster.stop_pod(claim, cluster.b)
    cluster.delete(claim)


WRITER = """
import os, sys, time
file = os.open(sys.argv[1] + "/open", os.O_RDWR | os.O_CREAT)
print("open", flush=True)
while True:
    try:
        os.write(file, b"x" * 4096)
        os.fsync(file)
    except OSError as error:
        print(error.errno, flush=True)
        break
    time.sleep(0.05)
"""


def test_what_a_held_open_is_of_no_use_once_it_is_kept_out(cluster: Cluster, lab: Lab, tmp_path: Path) -> None:
    claim = cluster.create("fenced", RWO)
    cluster.run_pod(claim, cluster.a)
    log = tmp_path / "log"
    lab.a.start(sys.executable, "-c", WRITER, str(cluster.a.target(claim)), log=log)
    until(lambda: "open" in log.read_text(encoding="ascii"), "the file is open")
    cluster.keep_out(claim, cluster.a)  # the node is lost, as far as Kubernetes knows: nothing was unstaged there
    files = cluster.run_pod(claim, cluster.b)
    until(lambda: len(log.read_text(encoding="ascii").split()) == 2, "the write fails", timeout_s=30)
    assert int(log.read_text(encoding="ascii").split()[1]) in (errno.ESTALE, errno.EIO, errno.EACCES, errno.EPERM)
    size_bytes = (files / "open").stat().st_size
    (files / "of-b").write_text("b's alone", encoding="utf-8")
    assert (files / "open").stat().st_size == size_bytes
    cluster.a.stop_pod(claim)
    cluster.stop_pod(claim, cluster.b)
    cluster.delete(claim)


def test_nothing_past_the_size_is_stored(cluster: Cluster, lab: Lab) -> None:
    claim = cluster.create("full", RWO)
    cluster.run_pod(claim, cluster.a)
    path = f"{cluster.a.target(claim)}/big"
    said = lab.a.run("dd", "if=/dev/zero", f"of={path}", "bs=1M", "count=40", "conv=fsync", check=False)
    assert os.strerror(errno.EDQUOT) in said or os.strerror(errno.ENOSPC) in said, said
    stored_bytes = int(lab.s.run("sh", "-c", f"du -s --block-size=1 {claim.context['share']} | cut -f1"))
    assert stored_bytes <= SIZE_BYTES
    request = pb.ControllerExpandVolumeRequest(
        volume_id=claim.volume_id, capacity_range=pb.CapacityRange(required_bytes=2 * SIZE_BYTES)
    )
    answer = cluster.controller.controller.ControllerExpandVolume(request, timeout=CALL_S)
    assert (answer.capacity_bytes, answer.node_expansion_required) == (2 * SIZE_BYTES, False)
    lab.a.run("dd", "if=/dev/zero", f"of={path}", "bs=1M", "count=40", "conv=fsync")
    assert cluster.a.stats(claim).usage[0].total == 2 * SIZE_BYTES
    cluster.stop_pod(claim, cluster.a)
    cluster.delete(claim)


def test_read_only_is_kept_by_the_server_too(cluster: Cluster, lab: Lab) -> None:
    claim = cluster.create("reader", RWX)
    cluster.let_in(claim, cluster.a, read_only=True)
    cluster.a.run_pod(claim)
    said = lab.a.run("touch", f"{cluster.a.target(claim)}/file", check=False)
    assert os.strerror(errno.EROFS) in said
    cluster.stop_pod(claim, cluster.a)
    cluster.delete(claim)


def test_a_snapshot_taken_on_s_is_restored_for_b(cluster: Cluster) -> None:
    claim = cluster.create("origin", RWO)
    files = cluster.run_pod(claim, cluster.a)
    (files / "file").write_text("kept", encoding="utf-8")
    cluster.stop_pod(claim, cluster.a)
    request = pb.CreateSnapshotRequest(name="snapshot", source_volume_id=claim.volume_id)
    snapshot = cluster.controller.controller.CreateSnapshot(request, timeout=CALL_S).snapshot
    cluster.delete(claim)
    restored = cluster.create("restored", RWO, from_snapshot(snapshot.snapshot_id))
    assert (cluster.run_pod(restored, cluster.b) / "file").read_text(encoding="utf-8") == "kept"
    cluster.stop_pod(restored, cluster.b)
    cluster.delete(restored)
    delete = pb.DeleteSnapshotRequest(snapshot_id=snapshot.snapshot_id)
    cluster.controller.controller.DeleteSnapshot(delete, timeout=CALL_S)


def test_a_new_controller_process_finds_who_is_let_in(cluster: Cluster) -> None:
    claim = cluster.create("lasting", RWO)
    files = cluster.run_pod(claim, cluster.a)
    cluster.controller.kill()
    (files / "file").write_text("written while the controller is down", encoding="utf-8")
    cluster.controller.restart()
    with refused(Code.FAILED_PRECONDITION, "node a has it"):
        cluster.let_in(replace(claim), cluster.b)
    cluster.stop_pod(claim, cluster.a)
    cluster.delete(claim)


def test_another_host_that_gets_the_disk_finds_everything(cluster: Cluster, lab: Lab, tmp_path: Path) -> None:
    """S is given up, and its disk goes to T: volumes, sizes, snapshots, and who is let in. Then it goes back."""
    claim = cluster.create("moved", RWO)
    (cluster.run_pod(claim, cluster.a) / "file").write_text("kept", encoding="utf-8")
    cluster.a.stop_pod(claim)
    request = pb.CreateSnapshotRequest(name="moved", source_volume_id=claim.volume_id)
    snapshot = cluster.controller.controller.CreateSnapshot(request, timeout=CALL_S).snapshot
    cluster.controller.terminate()
    lab.s.stop_nfsd()
    device = lab.s.run("findmnt", "-no", "SOURCE", "/srv").strip()
    lab.s.run("umount", "/srv")
    lab.t.run("sh", "-ec", f"mkdir /srv/moved; mount -o prjquota {device} /srv/moved")
    try:
        export = {"root": "/srv/moved/root", "nodeAddresses": {"a": lab.a.address}, "resolveNodes": False}
        options = {"role": "controller", "mode": "export", "server": lab.t.address, "export": export}
        config = {"driver": {"nodeId": "t"}, "backends": {"nfs": {"options": options}}}
        with ServerProcess(config, tmp_path / "t", run_on=lab.t.enter) as controller:
            there = replace(cluster, controller=controller)
            (entry,) = controller.controller.ListVolumes(pb.ListVolumesRequest(), timeout=CALL_S).entries
            assert (entry.volume.volume_id, entry.volume.capacity_bytes) == (claim.volume_id, SIZE_BYTES)
            assert list(entry.status.published_node_ids) == ["a"]
            (found,) = controller.controller.ListSnapshots(pb.ListSnapshotsRequest(), timeout=CALL_S).entries
            assert found.snapshot == snapshot
            moved = replace(claim, context=dict(entry.volume.volume_context))
            files = cluster.a.run_pod(moved)
            assert (files / "file").read_text(encoding="utf-8") == "kept"
            big = f"of={cluster.a.target(moved)}/big"
            said = lab.a.run("dd", "if=/dev/zero", big, "bs=1M", "count=40", "conv=fsync", check=False)
            assert os.strerror(errno.EDQUOT) in said or os.strerror(errno.ENOSPC) in said, said
            there.stop_pod(moved, cluster.a)
            there.delete(moved)
            delete = pb.DeleteSnapshotRequest(snapshot_id=snapshot.snapshot_id)
            controller.controller.DeleteSnapshot(delete, timeout=CALL_S)
    finally:
        lab.t.stop_nfsd()
        lab.t.run("umount", "/srv/moved")
        lab.t.start_nfsd()
        lab.s.run("mount", "-o", "prjquota", device, "/srv")
        lab.s.run("sh", "-c", "rm /etc/exports.d/*")
        lab.s.start_nfsd()
        cluster.controller.restart()
    assert not cluster.controller.controller.ListVolumes(pb.ListVolumesRequest(), timeout=CALL_S).entries
