"""Mode share on a real share: the controller has it mounted over NFS, as the pod of a cluster would."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from export_server import Disks, local_server
from hosts import Lab
from nfs_kubelet import CALL_S, RWX, Claim, Kubelet, refused
from nfs_world import options_of

from backends.nfs.copies import moment_ns
from backends.nfs.plugin import NfsBackend
from backends.nfs.trees import newest_change_ns, opened_directory
from csi_core._proto import csi_pb2 as pb
from csi_core.model import SourceKind, VolumeMode
from csi_core.testing.contract import BackendCase
from csi_core.testing.contract.attach import AttachTests
from csi_core.testing.contract.clones import CloneTests
from csi_core.testing.contract.publish import PublishTests
from csi_core.testing.contract.restart import RestartTests
from csi_core.testing.contract.snapshots import SnapshotTests
from csi_core.testing.harness import ServerProcess, create_request, mounted

pytestmark = pytest.mark.needs_kernel("nfs")

Code = grpc.StatusCode


@pytest.fixture(scope="module")
def disks(scratch_disks: tuple[Path, ...]) -> Iterator[Disks]:
    """This machine's own server."""
    with local_server({"xfs": scratch_disks[5]}) as disks:
        yield disks


class TestOverNfs(AttachTests, PublishTests, SnapshotTests, CloneTests, RestartTests):
    """What of the kit touches data, locks or mounts; all of it runs on a directory in tests/unit/nfs."""

    plugin = NfsBackend
    volume_modes = (VolumeMode.FILESYSTEM,)
    sources = tuple(SourceKind)

    @pytest.fixture
    def case(self, disks: Disks, tmp_path: Path) -> Iterator[BackendCase]:
        with options_of("share", disks, tmp_path) as (options, _):
            common = options["share"]
            common["nodeAddresses"] = {"node-a": "127.0.0.1", "node-b": "127.0.0.2"}
            with BackendCase(lambda: NfsBackend(options)) as case:
                yield case


def test_what_another_client_changes_is_seen_at_once(disks: Disks, tmp_path: Path) -> None:
    """A copy is judged by it; the client itself would answer from memory for seconds."""
    with options_of("share", disks, tmp_path) as (options, root):
        here = Path(options["share"]["root"])
        (here / "content").mkdir()
        (here / "content/file").write_text("content", encoding="ascii")
        with opened_directory(str(here)) as top, opened_directory("content", top) as content:
            began_ns = moment_ns(top)
            for _ in range(2):  # from now on the client has it in memory
                assert newest_change_ns(content, lambda: None) < began_ns
            (root / "content/file").write_text("changed", encoding="ascii")  # as it comes to the server from elsewhere
            assert newest_change_ns(content, lambda: None) >= began_ns


def test_a_cluster_on_somebody_elses_share(lab: Lab, tmp_path: Path) -> None:
    """The controller on B has the share mounted; when its server is gone it says so, and goes on when it is back."""
    lab.s.export("/srv/share")
    lab.b.run("mkdir", "-p", "/run/share")
    lab.b.run("mount", "-t", "nfs4", f"{lab.s.address}:/srv/share", "/run/share")
    share = {"root": "/run/share", "path": "/srv/share"}
    options = {"role": "controller", "mode": "share", "server": lab.s.address, "share": share}
    config = {"driver": {"nodeId": "b"}, "backends": {"nfs": {"options": options}}}
    with ServerProcess(config, tmp_path / "controller", run_on=lab.b.enter) as driver, Kubelet(lab.a, tmp_path) as node:
        request = create_request("pvc-1", 1 << 20, capability=mounted(mode=RWX), parameters={"subDir": "team/data"})
        volume = driver.controller.CreateVolume(request, timeout=CALL_S).volume
        claim = Claim(volume.volume_id, dict(volume.volume_context))
        assert claim.context["share"] == "/srv/share/team/data"
        (node.run_pod(claim) / "file").write_text("from a", encoding="utf-8")
        assert lab.s.path("/srv/share/team/data/file").read_text(encoding="utf-8") == "from a"
        node.stop_pod(claim)
        lab.s.cut_off()
        try:
            begun_at = time.monotonic()
            with refused(Code.UNAVAILABLE, "does not answer"):
                driver.controller.CreateVolume(create_request("pvc-2", 1 << 20), timeout=CALL_S)
            assert time.monotonic() - begun_at < 20
            assert driver.identity.Probe(pb.ProbeRequest(), timeout=5).ready.value
        finally:
            lab.s.reconnect()
        kept = driver.controller.CreateVolume(create_request("pvc-2", 1 << 20), timeout=CALL_S).volume
        retain = pb.ControllerModifyVolumeRequest(volume_id=kept.volume_id, mutable_parameters={"onDelete": "retain"})
        driver.controller.ControllerModifyVolume(retain, timeout=CALL_S)
        for volume_id in (claim.volume_id, kept.volume_id):
            driver.controller.DeleteVolume(pb.DeleteVolumeRequest(volume_id=volume_id), timeout=CALL_S)
        assert not lab.s.path("/srv/share/team/data").exists()
        assert lab.s.path(kept.volume_context["share"]).exists(), "its VolumeAttributesClass says retain"
    lab.b.run("umount", "/run/share")
