"""Mode export by the conformance kit, over real mounts from the kernel's server, on every filesystem with quotas."""

from __future__ import annotations

import errno
import itertools
import os
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest
from export_server import Disks, local_server

from backends.nfs import groups
from backends.nfs.mutable import ExportMutable
from backends.nfs.plugin import NfsBackend
from csi_core.errors import Busy, ConfigError, InvalidArgument
from csi_core.model import GroupSnapshotSpec, SizeRange, SourceKind, VolumeMode
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


class Sized:
    """What all of these have in common; ``fs_type`` and ``squash`` differ."""

    plugin = NfsBackend
    volume_modes = (VolumeMode.FILESYSTEM,)
    sources = tuple(SourceKind)
    fs_type = "xfs"
    squash = "none"

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


class TestOnXfs(
    Sized, AttachTests, CloneTests, ConcurrencyTests, ExpansionTests, PublishTests, RestartTests, SnapshotTests
):
    """Everything that mounts; names, listings, books and health are those of tests/unit/nfs/test_contract.py."""

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
