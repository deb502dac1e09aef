"""The examples of NFS, through both of the chart's drivers for it, on a kernel that serves and mounts it.

The NFS server is this machine, and so is the one node.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import pytest
from export_server import Disks, local_server
from fits import misfits
from image import CHECKOUT, Image
from installed import Driver, installed
from machine import machine
from pods import NODE_ADDRESS
from restarts import published, run_through_ten_restarts
from stories import GIB, applied, command, example, grow, running, stories, values_of

pytestmark = [
    pytest.mark.needs_root,
    pytest.mark.needs_tool("mmdebstrap"),
    pytest.mark.needs_go,
    pytest.mark.needs_kernel("nfs"),
]

INSTALL = CHECKOUT / "docs/install.md"


@pytest.fixture(scope="module")
def disks(scratch_disks: tuple[Path, ...]) -> Iterator[Disks]:
    """One filesystem for the driver that manages exports, one for those that an administrator makes."""
    with local_server({"xfs": scratch_disks[2], "ext4": scratch_disks[3]}) as mounted:
        yield mounted


def exported(directory: Path) -> Path:
    """A directory that the server's administrator exports to the node."""
    directory.mkdir()
    options = "rw,no_root_squash,no_subtree_check"
    command("exportfs", "-i", "-o", options, f"{NODE_ADDRESS}:{directory}")
    return directory


# -- mode export -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def nfs(image: Image, disks: Disks) -> Iterator[Driver]:
    root = str(disks["xfs"])
    written = ("/etc/exports.d", "/var/lib/nfs")
    options = {"server": NODE_ADDRESS, "export": {"root": root}}
    values = {
        "config": {"backends": {"nfs": {"options": options}}},
        "controller": {"hostPaths": [{"path": path} for path in (root, *written)]},
    }
    with (
        machine(root, *written) as host,
        installed(values_of("nfs-export"), host, image, drivers={"nfs": values}) as driver,
    ):
        yield driver


@pytest.mark.parametrize("driver", ["nfs", "nfs_share"])
def test_a_driver_fits_its_object_and_its_sidecars(request: pytest.FixtureRequest, driver: str) -> None:
    running = request.getfixturevalue(driver)
    assert misfits(running) == []
    assert running.node_id == NODE_ADDRESS
    assert not running.topology


@pytest.mark.parametrize("name", stories("nfs", "static-pv", "expansion", "volume-attributes-class"))
def test_an_example_works_and_leaves_nothing(nfs: Driver, name: str) -> None:
    with applied(nfs, name):
        pass


def test_how_a_volume_is_exported_changes_with_its_attributes_class(nfs: Driver, disks: Disks) -> None:
    def writes() -> set[str]:
        table = Path("/var/lib/nfs/etab").read_text(encoding="utf-8").splitlines()
        options = [line.partition("(")[2].rstrip(")").split(",") for line in table if str(disks["xfs"]) in line]
        return {option for line in options for option in line if option in ("sync", "async")}

    with applied(nfs, "nfs/volume-attributes-class") as cluster:
        assert writes() == {"sync"}
        other = cluster.objects["VolumeAttributesClass", "csi-core-nfs-scratch"]
        nfs.sidecars.modify(cluster.volumes["tuned"], other["parameters"])
        assert writes() == {"async"}
        (used,) = cluster.pods["tuned"].values()
        assert used.read() == cluster.contents["tuned"]


def test_an_export_grows_while_a_pod_uses_it(nfs: Driver) -> None:
    grow(nfs, "nfs/expansion")


def use_export_made_by_hand(driver: Driver, kept: Path, edit: Callable[[str], str] = str) -> None:
    """Apply the example of a static volume, with ``kept`` where it says "yours"."""
    objects = example("nfs/static-pv", edit).objects
    (csi,) = (o["spec"]["csi"] for o in objects if o["kind"] == "PersistentVolume")
    assert set(csi["volumeAttributes"]) == {"server", "share"}
    csi["volumeAttributes"] |= {"server": NODE_ADDRESS, "share": str(kept)}
    with running(driver, objects) as cluster:
        assert cluster.volumes["kept"].handle == csi["volumeHandle"]
        written = cluster.contents["kept"]
        cluster.foreign.add("kept")
        with pytest.raises(grpc.RpcError, match="set its reclaim policy to Retain"):
            driver.sidecars.delete(cluster.volumes["kept"])
    assert [path.name for path in kept.iterdir()] == ["data"]
    assert hashlib.sha256((kept / "data").read_bytes()).hexdigest() == written


def test_an_export_that_an_administrator_made_is_used_and_kept(nfs: Driver, disks: Disks) -> None:
    use_export_made_by_hand(nfs, exported(disks["ext4"] / "kept"))


def test_a_writer_to_an_export_runs_through_ten_restarts_without_an_error(nfs: Driver) -> None:
    run_through_ten_restarts(nfs, [published(nfs, "Filesystem")])


# -- mode share ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def share(disks: Disks) -> Path:
    return exported(disks["ext4"] / "share")


@pytest.fixture(scope="module")
def nfs_share(image: Image, share: Path) -> Iterator[Driver]:
    """Its controller sees no more of the server than the volume of its pod."""
    there = {"server": NODE_ADDRESS, "path": str(share)}
    values = {
        "config": {
            "backends": {"nfs": {"options": {"server": there["server"], "share": {"path": there["path"]}}}},
        },
        "controller": {"volumes": [{"path": "/mnt/share", "volume": {"nfs": there}}]},
    }
    with (
        machine() as host,
        installed(values_of("nfs-share"), host, image, drivers={"nfs-share": values}) as driver,
    ):
        yield driver


def for_mode_share(text: str) -> str:
    """An example, edited as docs/install.md says."""
    edit = re.search(r"sed '([^']+)' deploy/examples/nfs/", INSTALL.read_text(encoding="utf-8"))
    assert edit, f"{INSTALL} does not say how the examples of NFS are used in mode share"
    return subprocess.run(["sed", edit[1]], input=text, capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize("name", stories("nfs", "static-pv", "expansion", "volume-attributes-class"))
def test_an_example_works_in_a_directory_of_a_share(nfs_share: Driver, share: Path, name: str) -> None:
    with applied(nfs_share, name, for_mode_share) as cluster:
        directories = {path.name for path in share.iterdir() if not path.name.startswith(".")}
        # A volume's directory has its PersistentVolume's name unless the class says otherwise.
        assert {volume.name for volume in cluster.volumes.values()} <= directories
    assert [path.name for path in share.iterdir() if not path.name.startswith(".")] == []


def test_a_directory_of_a_share_is_promised_more_while_a_pod_uses_it(nfs_share: Driver) -> None:
    with applied(nfs_share, "nfs/expansion", for_mode_share) as cluster:
        (used,) = cluster.pods["grows"].values()
        if nfs_share.sidecars.expand(used.volume, 2 * GIB):
            nfs_share.kubelet.expand(used, 2 * GIB)
        assert used.read() == cluster.contents["grows"]


def test_what_becomes_of_a_directory_changes_with_the_attributes_class(nfs_share: Driver, share: Path) -> None:
    with applied(nfs_share, "nfs-share/volume-attributes-class") as cluster:
        kept = share / cluster.volumes["results"].name
        other = cluster.objects["VolumeAttributesClass", "csi-core-nfs-share-keep"]
        nfs_share.sidecars.modify(cluster.volumes["results"], other["parameters"])
        written = cluster.contents["results"]
    assert hashlib.sha256((kept / "data").read_bytes()).hexdigest() == written
    shutil.rmtree(kept)


def test_mode_share_uses_an_export_that_an_administrator_made(nfs_share: Driver, disks: Disks) -> None:
    use_export_made_by_hand(nfs_share, exported(disks["ext4"] / "kept-too"), for_mode_share)
