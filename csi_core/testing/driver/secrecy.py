"""Secrets stay secret."""

from __future__ import annotations

from csi_core._proto import csi_pb2 as pb
from csi_core.testing.contract.selection import Selection, needs
from csi_core.testing.driver.case import Code, DriverCase, Pod, refused

__all__ = ["SecrecyTests"]

_CANARY = "canary-7f3a91"


class SecrecyTests(Selection):
    """Every message with a secret in it is sent; the log is then searched."""

    def test_secrets_are_not_logged(self, driver: DriverCase) -> None:
        """Neither those of good calls nor those of refused ones, and no error repeats one."""
        mode = self.volume_modes[0]
        pod = Pod(driver, driver.create("data", mode).volume_id, mode)
        pod.start()
        pod.stop()
        bad = {**driver.secrets, "noSuchKey": _CANARY}
        requests = (
            (driver.server.controller.CreateVolume, driver.request("other", mode)),
            (driver.server.controller.DeleteVolume, pb.DeleteVolumeRequest(volume_id=pod.volume_id)),
            (
                driver.server.node.NodeStageVolume,
                pb.NodeStageVolumeRequest(
                    volume_id=pod.volume_id,
                    staging_target_path=str(pod.staging_path),
                    volume_capability=driver.capability(mode),
                ),
            ),
            (
                driver.server.node.NodePublishVolume,
                pb.NodePublishVolumeRequest(
                    volume_id=pod.volume_id,
                    staging_target_path=str(pod.staging_path),
                    target_path=str(pod.target_path),
                    volume_capability=driver.capability(mode),
                ),
            ),
        )
        for send, request in requests:
            request.secrets.update(bad)
            with refused(Code.INVALID_ARGUMENT):
                driver.call(send, request)  # type: ignore[arg-type]
        self.search(driver)

    @needs("create_snapshot")
    def test_snapshot_secrets_are_not_logged(self, driver: DriverCase) -> None:
        """The same for snapshots."""
        volume = driver.create("data", self.volume_modes[0])
        driver.delete_snapshot(driver.snapshot("snap", volume.volume_id).snapshot_id)
        request = pb.CreateSnapshotRequest(
            name="snap", source_volume_id=volume.volume_id, secrets={**driver.secrets, "noSuchKey": _CANARY}
        )
        with refused(Code.INVALID_ARGUMENT):
            driver.call(driver.server.controller.CreateSnapshot, request)
        self.search(driver)

    def search(self, driver: DriverCase) -> None:
        """Look for every secret in everything that was logged."""
        log = driver.server.log_text()
        assert "CreateVolume" in log, "the log has no calls in it; set log.level to info"
        for secret in (_CANARY, *driver.secrets.values()):
            assert secret not in log
