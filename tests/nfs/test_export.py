"""Mode export between machines: who is let in, who is thrown out, and what is kept within its size.

The controller runs on server ``s``, clients ``a`` and ``b`` mount as a node would.
"""

from __future__ import annotations

from collections.abc import Iterator

import grpc
import pytest
from hosts import Lab
from publishing import MIB, ROX, RWX, Process, create, delete, mount, mounted_at, publish, refused, unpublish

from csi_core._proto import csi_pb2 as pb
from csi_core.testing.harness import ServerProcess, from_volume

pytestmark = pytest.mark.needs_kernel("nfs")

Code = grpc.StatusCode


@pytest.fixture(scope="module")
def controller(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    lab.s.run("mkdir", "/srv/volumes-of-csi")
    export = {
        "root": "/srv/volumes-of-csi",
        "requireMount": False,
        "nodeAddresses": {"node-a": lab.a.address},
        "resolveNodes": False,
    }
    options = {"mode": "export", "server": lab.s.address, "export": export}
    config = {"backends": {"nfs": {"options": options}}}
    with ServerProcess(config, tmp_path_factory.mktemp("controller"), run_on=lab.s.enter) as server:
        yield server


@pytest.fixture
def nodes(lab: Lab) -> dict[str, str]:
    """One by the map, one by an id that is its address."""
    return {"a": "node-a", "b": lab.b.address}


def test_only_published_nodes_can_mount(controller: ServerProcess, lab: Lab, nodes: dict[str, str]) -> None:
    volume = create(controller)
    with pytest.raises(AssertionError, match="denied|No such file|not permitted"):
        mount(lab.a, volume)
    publish(controller, volume, nodes["a"])
    with mounted_at(lab.a, volume) as path:
        lab.a.path(f"{path}/file").write_text("data", encoding="ascii")
        with pytest.raises(AssertionError, match="denied|No such file|not permitted"):
            mount(lab.b, volume)
    with refused(Code.FAILED_PRECONDITION, "one node", "node-a"):
        publish(controller, volume, nodes["b"])
    with refused(Code.FAILED_PRECONDITION, "published"):
        controller.controller.DeleteVolume(pb.DeleteVolumeRequest(volume_id=volume.volume_id))
    delete(controller, volume)


def test_writers_share_and_a_reader_cannot_write(controller: ServerProcess, lab: Lab, nodes: dict[str, str]) -> None:
    volume = create(controller)
    publish(controller, volume, nodes["a"], RWX)
    publish(controller, volume, nodes["b"], ROX)
    with mounted_at(lab.a, volume) as path, mounted_at(lab.b, volume):
        a, b = Process(lab.a), Process(lab.b)
        assert a("open", f"{path}/file") is None
        assert a("write", f"{path}/file", "x", 0, 10) is None
        assert b("fresh", f"{path}/file") == "x" * 10
        assert b("open", f"{path}/other") == "EROFS"
    listed = controller.controller.ListVolumes(pb.ListVolumesRequest()).entries
    found = {entry.volume.volume_id: list(entry.status.published_node_ids) for entry in listed}
    assert found[volume.volume_id] == sorted(nodes.values())
    delete(controller, volume)


def test_a_node_that_is_unpublished_is_fenced(controller: ServerProcess, lab: Lab, nodes: dict[str, str]) -> None:
    """Its open file, its lock and its cache are worth nothing any more, and the next node gets the lock."""
    volume = create(controller)
    publish(controller, volume, nodes["a"])
    with mounted_at(lab.a, volume) as path:
        a = Process(lab.a)
        assert a("open", f"{path}/file") is None
        assert a("lock", f"{path}/file") is None
        assert a("write", f"{path}/file", "a", 0, 4096) is None
        assert a("write", f"{path}/file", "b", MIB, 4096) is None
        unpublish(controller, volume, nodes["a"])
        assert a("write", f"{path}/file", "z", 0, 4096) in ("ESTALE", "EIO", "EACCES")
        assert a("read", f"{path}/file") in ("ESTALE", "EIO", "EACCES")
        assert a("open", f"{path}/new") in ("ESTALE", "EIO", "EACCES")
        publish(controller, volume, nodes["b"])
        with mounted_at(lab.b, volume):
            b = Process(lab.b)
            assert b("open", f"{path}/file") is None
            assert b("lock", f"{path}/file") is None
            assert str(b("fresh", f"{path}/file")).startswith("a" * 4096)
            assert not lab.b.path(f"{path}/new").exists()
    delete(controller, volume)


def test_fencing_leaves_the_other_volumes_of_the_node_alone(
    controller: ServerProcess, lab: Lab, nodes: dict[str, str]
) -> None:
    one, two = create(controller), create(controller)
    for volume in (one, two):
        publish(controller, volume, nodes["a"])
    with mounted_at(lab.a, one) as first, mounted_at(lab.a, two) as second:
        a = Process(lab.a)
        for path in (first, second):
            assert a("open", f"{path}/file") is None
            assert a("lock", f"{path}/file") is None
            assert a("write", f"{path}/file", "a", 0, 4096) is None
        unpublish(controller, one, nodes["a"])
        assert a("write", f"{first}/file", "z", 0, 4096) in ("ESTALE", "EIO", "EACCES")
        assert a("write", f"{second}/file", "b", 4096, 4096) is None
        assert a("fresh", f"{second}/file") == "a" * 4096 + "b" * 4096
    delete(controller, one, two)


def test_a_restarted_server_still_keeps_them_out(controller: ServerProcess, lab: Lab, nodes: dict[str, str]) -> None:
    """What is in exports.d is who is let in after a reboot of the server, before the controller is there."""
    volume, other = create(controller), create(controller)
    publish(controller, volume, nodes["a"])
    publish(controller, other, nodes["b"])
    unpublish(controller, other)
    lab.s.stop_nfsd()
    lab.s.path("/var/lib/nfs/etab").write_text("", encoding="ascii")
    lab.s.start_nfsd()
    with mounted_at(lab.a, volume) as path:
        lab.a.path(f"{path}/file").write_text("data", encoding="ascii")
    with pytest.raises(AssertionError, match="denied|No such file|not permitted"):
        mount(lab.b, other)
    delete(controller, volume, other)


def test_a_start_puts_the_exports_right(controller: ServerProcess, lab: Lab, nodes: dict[str, str]) -> None:
    volume, other = create(controller), create(controller)
    publish(controller, volume, nodes["a"])
    controller.terminate()
    share = volume.volume_context["share"]
    lab.s.run("exportfs", "-u", f"{lab.a.address}:{share}")
    for file in lab.s.path("/etc/exports.d").iterdir():
        file.unlink()
    lab.s.run("exportfs", "-o", "rw,fsid=77", f"{lab.b.address}:{other.volume_context['share']}")
    controller.restart()
    table = lab.s.run("exportfs", "-s")
    assert share in table
    assert other.volume_context["share"] not in table
    assert any(volume.volume_id.rpartition("/")[2] in f.name for f in lab.s.path("/etc/exports.d").iterdir())
    delete(controller, volume, other)


def test_nothing_is_stored_past_the_size(controller: ServerProcess, lab: Lab, nodes: dict[str, str]) -> None:
    """By root of the pod either; df shows the claim; growth is at once."""
    volume, neighbour = create(controller, 16 * MIB), create(controller, 16 * MIB)
    publish(controller, volume, nodes["a"])
    with mounted_at(lab.a, volume) as path:
        a = Process(lab.a)
        size = lab.a.run("df", "--output=size", "-B1", path).split()[-1]
        assert int(size) == 16 * MIB
        assert a("open", f"{path}/file") is None
        assert a("write", f"{path}/file", "x", 0, 40 * MIB) in ("ENOSPC", "EDQUOT")
        content = lab.s.path(volume.volume_context["share"])
        assert sum(file.stat().st_blocks * 512 for file in content.iterdir()) <= 16 * MIB
        assert (
            controller.controller.ControllerExpandVolume(
                pb.ControllerExpandVolumeRequest(
                    volume_id=volume.volume_id, capacity_range=pb.CapacityRange(required_bytes=64 * MIB)
                )
            ).capacity_bytes
            == 64 * MIB
        )
        assert a("open", f"{path}/second") is None
        assert a("write", f"{path}/second", "y", 0, 24 * MIB) is None
    publish(controller, neighbour, nodes["b"])
    with mounted_at(lab.b, neighbour) as path:
        b = Process(lab.b)
        assert b("open", f"{path}/file") is None
        assert b("write", f"{path}/file", "x", 0, 8 * MIB) is None
    delete(controller, volume, neighbour)


def test_a_clone_has_its_own_limit(controller: ServerProcess, lab: Lab, nodes: dict[str, str]) -> None:
    volume = create(controller, 16 * MIB)
    publish(controller, volume, nodes["a"])
    with mounted_at(lab.a, volume) as path:
        a = Process(lab.a)
        assert a("open", f"{path}/file") is None
        assert a("write", f"{path}/file", "x", 0, 10 * MIB) is None
    unpublish(controller, volume)
    clone = create(controller, 16 * MIB, source=from_volume(volume.volume_id))
    publish(controller, clone, nodes["a"])
    with mounted_at(lab.a, clone) as path:
        a = Process(lab.a)
        assert a("open", f"{path}/file") is None
        assert a("open", f"{path}/more") is None
        assert a("write", f"{path}/more", "y", 0, 10 * MIB) in ("ENOSPC", "EDQUOT")
    delete(controller, volume, clone)


def test_what_a_tenant_puts_in_leads_nobody_out(controller: ServerProcess, lab: Lab, nodes: dict[str, str]) -> None:
    """Links, device nodes, odd names, and depth: copied as they are, deleted without a trace, followed never."""
    victim = lab.s.path("/srv/victim")
    victim.mkdir()
    (victim / "precious").write_text("precious", encoding="ascii")
    volume = create(controller)
    publish(controller, volume, nodes["a"])
    with mounted_at(lab.a, volume) as path:
        script = f"""
            cd {path}; ln -s /srv/victim/precious link; ln -s ../../../../victim up; ln -s /etc directory
            mknod device b 7 0; mkfifo pipe; touch "$(printf 'new\\nline')" -- '-rf' '..x' "$(printf '\\377')"
            mkdir -p sub/sub; echo content > sub/sub/file; ln sub/sub/file hard; chmod 4755 sub/sub/file
        """
        lab.a.run("sh", "-ec", script)
    unpublish(controller, volume)
    clone = create(controller, source=from_volume(volume.volume_id))
    original, copied = (lab.s.path(v.volume_context["share"]) for v in (volume, clone))
    assert sorted(path.name for path in copied.iterdir()) == sorted(path.name for path in original.iterdir())
    assert str((copied / "link").readlink()) == "/srv/victim/precious"
    assert (copied / "hard").stat().st_ino == (copied / "sub/sub/file").stat().st_ino
    assert (copied / "hard").stat().st_nlink == 2
    assert (copied / "device").lstat().st_rdev == (original / "device").lstat().st_rdev
    delete(controller, volume, clone)
    assert (victim / "precious").read_text(encoding="ascii") == "precious"
    assert not list(lab.s.path("/srv/volumes-of-csi/trash").iterdir())
