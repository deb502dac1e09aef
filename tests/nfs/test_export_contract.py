"""Mode export by the conformance kit, over real mounts from the kernel's server, on every filesystem with quotas."""

from __future__ import annotations

import errno
import itertools
import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest
from export_server import Disks, local_server
from hosts import until

from backends.nfs import groups
from backends.nfs.mutable import ExportMutable
from backends.nfs.plugin import NfsBackend
from csi_core.errors import Busy, ConfigError, InvalidArgument, NoSpace
from csi_core.model import (
    AccessMode,
    CapacityQuery,
    GroupSnapshotSpec,
    PublishRequest,
    SizeRange,
    SourceKind,
    VolumeCapability,
    VolumeMode,
)
from csi_core.parameters import Parameters
from csi_core.testing.contract import BackendCase
from csi_core.testing.contract.attach import AttachTests
from csi_core.testing.contract.clones import CloneTests
from csi_core.testing.contract.concurrency import ConcurrencyTests
from csi_core.testing.contract.expansion import ExpansionTests
from csi_core.testing.contract.groups import GroupTests
from csi_core.testing.contract.publish import PublishTests
from csi_core.testing.contract.restart import RestartTests
from csi_core.testing.contract.snapshots import SnapshotTests

pytestmark = pytest.mark.needs_kernel("nfs")

_NUMBERS = itertools.count()


@pytest.fixture(scope="module")
def disks(scratch_disks: tuple[Path, ...]) -> Iterator[Disks]:
    with local_server(dict(zip(("xfs", "ext4", "btrfs"), scratch_disks[2:], strict=False))) as disks:
        yield disks


def written_until_full(directory: Path) -> int:
    """Write until the server refuses; answer how many bytes were taken, those of earlier files included."""
    chunk = b"x" * (1 << 20)
    file = os.open(directory / f"file-{next(_NUMBERS)}", os.O_WRONLY | os.O_CREAT)
    try:
        for number in range(96):
            os.pwrite(file, chunk, number << 20)
            os.fsync(file)
    except OSError as error:
        assert error.errno in (errno.ENOSPC, errno.EDQUOT)
    finally:
        with suppress(OSError):
            os.close(file)
    return sum(entry.stat().st_size for entry in directory.iterdir())


def filled_up(stack: ExitStack, filesystem: Path) -> None:
    """Leave no block, until the stack is closed; small files take what a large one cannot."""
    large = filesystem / "of-others"
    stack.callback(large.unlink)
    with large.open("wb") as file:
        offset, step = 0, 1 << 30
        while step >= 4096:
            try:
                os.posix_fallocate(file.fileno(), offset, step)
                offset += step
            except OSError:
                step //= 2
    small = filesystem / "small-ones"
    with suppress(OSError):
        small.mkdir()
        stack.callback(shutil.rmtree, small)
        for number in range(10_000):
            (small / str(number)).write_bytes(b"x" * 4096)
    with pytest.raises(OSError, match="No space"):
        (filesystem / "one-more").write_bytes(b"x" * 4096)
    (filesystem / "one-more").unlink(missing_ok=True)


class Sized:
    """What all of these have in common; ``fs_type`` and ``squash`` differ."""

    plugin = NfsBackend
    volume_modes = (VolumeMode.FILESYSTEM,)
    sources = tuple(SourceKind)
    fs_type = "xfs"
    squash = "none"
    snapshots = 8
    """That many of 32 MiB; they share blocks, and count for more than the filesystem itself takes."""

    @pytest.fixture
    def case(self, disks: Disks):
        root = disks[self.fs_type] / f"root-{next(_NUMBERS)}"
        root.mkdir()
        export = {
            "root": str(root),
            "squash": self.squash,
            "capacity": "4Gi",
            "first_project_id": 1_000_000 * (next(_NUMBERS) + 1),
            "node_addresses": {"node-a": "127.0.0.1", "node-b": "127.0.0.2"},
            "resolve_nodes": False,
        }
        options = {"mode": "export", "server": "127.0.0.1", "export": export}
        with BackendCase(lambda: NfsBackend(options)) as case:
            yield case

    def test_nothing_is_stored_past_the_size(self, case: BackendCase) -> None:
        """By root, over NFS, also after a clone; and deleting makes room again."""
        volume = case.create("data", VolumeMode.FILESYSTEM, 16 << 20)
        with case.attached(volume, VolumeMode.FILESYSTEM) as content:
            assert written_until_full(content.path) <= 17 << 20
        clone = case.clone("clone", VolumeMode.FILESYSTEM, volume, 32 << 20)
        with case.attached(clone, VolumeMode.FILESYSTEM) as content:
            assert 12 << 20 <= written_until_full(content.path) <= 33 << 20
            assert case.backend.expand_volume(clone.handle, SizeRange(64 << 20)) == 64 << 20
            (content.path / "more").write_bytes(b"x" * (8 << 20))

    def test_nodes_leave_and_volumes_go_on_a_full_filesystem(self, case: BackendCase, disks: Disks) -> None:
        """Nothing else makes room there again."""
        volume, other = (case.create(name, VolumeMode.FILESYSTEM, 16 << 20) for name in ("data", "other"))
        both = VolumeCapability(VolumeMode.FILESYSTEM, AccessMode.MULTI_NODE_MULTI_WRITER)
        case.backend.publish_volume(PublishRequest(volume.handle, "node-a", both))
        with ExitStack() as stack:
            filled_up(stack, disks[self.fs_type])
            case.backend.publish_volume(PublishRequest(volume.handle, "node-b", both))
            case.backend.unpublish_volume(volume.handle, "node-a", case.secrets)
            case.reopen()
            assert case.backend.get_volume(volume.handle).published_node_ids == ("node-b",)
            case.backend.unpublish_volume(volume.handle, "", case.secrets)
            case.delete(volume)
            case.delete(other)
            assert case.volumes() == []

    def test_what_was_restored_from_a_backup_is_limited_again_as_a_clone(self, case: BackendCase) -> None:
        """What a backup brings back is in no project and no subvolume of the volume's."""
        volume = case.create("data", VolumeMode.FILESYSTEM, 16 << 20)
        share = Path(volume.context["share"])
        share.rename(share.with_name("lost"))
        share.mkdir()
        (share / "file").write_bytes(b"x" * 100_000)
        case.reopen()
        assert [problem.reason for problem in case.backend.volume_health(volume.handle)] == ["NotLimited"]
        clone = case.clone("clone", VolumeMode.FILESYSTEM, volume)
        assert case.backend.volume_health(clone.handle) == ()
        assert (Path(clone.context["share"]) / "file").read_bytes() == b"x" * 100_000
        share.with_name("lost").rmdir()
        case.delete(volume)
        until(lambda: not share.parent.parent.with_name("trash").joinpath(volume.handle).exists(), "it is removed")
        assert case.backend.volume_health(clone.handle) == ()

    def test_what_others_have_is_promised_to_nobody(self, case: BackendCase, disks: Disks) -> None:
        """Also beside snapshots whose blocks count for each of them; what volumes hold is not taken for others'."""
        storage = case.backend._manager.get_plugin("tested")._mode._opened

        def available_bytes() -> int:
            storage.note_others()
            return case.backend.get_capacity(CapacityQuery(Parameters())).available_bytes

        volume = case.create("data", VolumeMode.FILESYSTEM, 96 << 20)
        empty_bytes = available_bytes()
        (Path(volume.context["share"]) / "file").write_bytes(os.urandom(32 << 20))
        os.sync()
        for number in range(self.snapshots):
            case.snapshot(f"snap-{number}", volume)
        before_bytes = available_bytes()
        assert before_bytes == empty_bytes - self.snapshots * storage.index.all("s")[0].charge_bytes
        file = disks[self.fs_type] / "of-others"
        try:
            with file.open("wb") as others:
                os.posix_fallocate(others.fileno(), 0, 5 << 30)
            os.sync()
            promised_bytes = storage.ledger.snapshot().promised_bytes
            room_bytes = storage._statvfs()[0] - (5 << 30) - promised_bytes
            assert room_bytes < before_bytes
            assert room_bytes - (1 << 30) < available_bytes() <= room_bytes
            with pytest.raises(NoSpace, match="others have"):
                case.create("too-much", VolumeMode.FILESYSTEM, room_bytes + (1 << 20))
        finally:
            file.unlink()
        os.sync()
        until(lambda: available_bytes() == before_bytes, "what others gave back can be had")


class TestOnXfs(
    Sized, AttachTests, CloneTests, ConcurrencyTests, ExpansionTests, PublishTests, RestartTests, SnapshotTests
):
    """Everything that mounts; names, listings, books and health are those of tests/unit/nfs/test_contract.py."""

    def test_a_full_volume_has_copies_of_its_size(self, case: BackendCase) -> None:
        """Large extents ask for more quota while they are shared; further names of a file are kept aside meanwhile."""
        volume = case.create("data", VolumeMode.FILESYSTEM, 16 << 20)
        share = Path(volume.context["share"])
        (share / "first").write_bytes(b"x" * 100_000)
        for number in range(300):
            (share / f"link-{number}").hardlink_to(share / "first")
        for name, piece_bytes in (("large", 1 << 20), ("rest", 4096)):  # to the last block
            with (share / name).open("wb", 0) as file, pytest.raises(OSError, match="No space"):
                for _ in range(1000):
                    file.write(b"x" * piece_bytes)
                    os.fsync(file.fileno())
        copies = (
            case.clone("clone", VolumeMode.FILESYSTEM, volume),
            case.restore("restored", VolumeMode.FILESYSTEM, case.snapshot("snap", volume)),
        )
        for copy in copies:
            assert case.backend.volume_health(copy.handle) == (), "its limit is its size"
            with pytest.raises(OSError, match="No space"):
                (Path(copy.context["share"]) / "more").write_bytes(b"x" * (1 << 20))

    def test_how_it_is_exported_can_be_changed_in_use(self, case: BackendCase) -> None:
        """From the next request on, also of a file that is open."""
        volume = case.create("data", VolumeMode.FILESYSTEM, 16 << 20)
        with case.attached(volume, VolumeMode.FILESYSTEM) as content, (content.path / "open").open("wb", 0) as file:
            os.fchmod(file.fileno(), 0o666)  # root's own file is nobody's to write while root is squashed
            for number, (squash, owner) in enumerate((("all", 65534), ("none", 0), ("root", 65534), ("none", 0))):
                given = {"squash": squash, "writes": "sync" if number % 2 else "async"}
                case.backend.modify_volume(volume.handle, ExportMutable.model_validate(given), given)
                (content.path / str(number)).touch()
                assert (content.path / str(number)).stat().st_uid == owner, squash
                assert file.write(b"on") == 2
            os.fsync(file.fileno())


class TestOnExt4(Sized, ExpansionTests, CloneTests):
    """What is its own: limits, and copies without reflink."""

    fs_type = "ext4"
    squash = "all"
    snapshots = 1

    def test_no_class_lets_root_exceed_it(self, case: BackendCase) -> None:
        """What the option is refused for, a VolumeAttributesClass is, too."""
        volume = case.create("data", VolumeMode.FILESYSTEM, 16 << 20)
        given = {"squash": "none"}
        with pytest.raises(InvalidArgument, match="ext4"):
            case.backend.modify_volume(volume.handle, ExportMutable.model_validate(given), given)
        with pytest.raises(InvalidArgument, match="ext4"):
            case.backend.create_volume(case.spec("more", VolumeMode.FILESYSTEM, mutable=given))

    def test_root_of_a_pod_would_exceed_its_size(self, disks: Disks) -> None:
        """The server keeps CAP_SYS_RESOURCE for uid 0, and ext4 lets that write past a quota."""
        root = disks["ext4"] / f"root-{next(_NUMBERS)}"
        root.mkdir()
        options = {"mode": "export", "server": "127.0.0.1", "export": {"root": str(root), "squash": "none"}}
        with pytest.raises(ConfigError, match="squash: root"):
            BackendCase(lambda: NfsBackend(options))


class TestOnBtrfs(Sized, ExpansionTests, CloneTests, GroupTests):
    """What is its own: subvolumes and their limits, and what a group is judged by."""

    fs_type = "btrfs"

    def test_a_group_of_volumes_that_are_published_and_quiet(self, case: BackendCase) -> None:
        """Their nodes may write, and do not."""
        volumes = [case.create(name, VolumeMode.FILESYSTEM, 16 << 20) for name in ("one", "two")]
        with ExitStack() as stack:
            contents = [stack.enter_context(case.attached(volume, VolumeMode.FILESYSTEM)) for volume in volumes]
            for content in contents:
                (content.path / "file").write_bytes(b"x" * 100_000)
            spec = GroupSnapshotSpec("group", tuple(volume.handle for volume in volumes))
            assert len(case.backend.create_group_snapshot(spec).value.snapshots) == 2

    def test_a_group_of_which_one_is_written_to(self, case: BackendCase, monkeypatch: pytest.MonkeyPatch) -> None:
        """Between its snapshot and the end of the others': the server's disk has not seen it yet."""
        one, two = (case.create(name, VolumeMode.FILESYSTEM, 16 << 20) for name in ("one", "two"))
        with case.attached(one, VolumeMode.FILESYSTEM) as content, (content.path / "file").open("wb", 0) as file:
            real = groups.filled

            def then_written(storage, source, *rest):
                tree_id = real(storage, source, *rest)
                if source.key == one.handle:
                    file.write(b"more")
                    os.fsync(file.fileno())
                return tree_id

            monkeypatch.setattr(groups, "filled", then_written)
            with pytest.raises(Busy, match=one.handle):
                case.backend.create_group_snapshot(GroupSnapshotSpec("group", (one.handle, two.handle)))
            assert case.snapshots() == []
            monkeypatch.undo()
            case.backend.create_group_snapshot(GroupSnapshotSpec("group", (one.handle, two.handle)))
