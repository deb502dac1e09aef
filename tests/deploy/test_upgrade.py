"""Restarts and upgrades of the node plugin never disturb a volume that a pod uses."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import helm
import pytest
from image import Image
from installed import Driver, installed
from machine import machine
from restarts import published, run_through_ten_restarts, withdrawn

from csi_core._proto import csi_pb2 as pb

pytestmark = [pytest.mark.needs_root, pytest.mark.needs_tool("mmdebstrap"), pytest.mark.needs_go]

LOOP = helm.CHART / "drivers" / "loop.yaml"


@pytest.fixture
def loop(image: Image) -> Iterator[Driver]:
    with machine() as host, installed(LOOP, host, image) as driver:
        yield driver


def test_writers_with_fsync_run_through_ten_restarts_without_an_error(loop: Driver) -> None:
    run_through_ten_restarts(loop, [published(loop, mode) for mode in ("Filesystem", "Block")])


def test_what_an_uninstalled_driver_has_made_is_there_when_it_is_installed_again(image: Image) -> None:
    with machine() as host:
        with installed(LOOP, host, image) as before:
            used = published(before, "Filesystem")
            written = used.write()
            before.kubelet.unmount(used)
            before.kubelet.unstage(used.volume)
        # What is kept on the node between the two is the pool; kubelet's directory is emptied, too.
        shutil.rmtree(host.host_path("/var/lib/kubelet"))
        with installed(LOOP, host, image) as after:
            again = after.kubelet.mount(used.volume)
            assert again.read() == written
            withdrawn(after, again)


def test_a_new_container_knows_what_a_killed_one_has_made(loop: Driver) -> None:
    claim = {
        "metadata": {"name": "cut"},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "64Mi"}}},
    }
    volume = loop.sidecars.provision(claim, loop.of_kind("StorageClass")[0])
    container = loop.node.started["csi-core"]
    container.kill()
    container.start()
    container.wait_for_answer(loop.node.path("csi-core", "/csi/csi.sock"))
    listed = loop.kubelet.driver.controller.ListVolumes(pb.ListVolumesRequest(), timeout=10).entries
    assert [entry.volume.volume_id for entry in listed] == [volume.handle]
    used = loop.kubelet.mount(volume)
    assert used.write() == used.read()
    withdrawn(loop, used)
