"""Image files: copies keep data and holes, freeing is repeatable, nothing is followed through a link."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from backends.loop import images
from backends.loop.image_files import ImageFiles
from csi_core.errors import DataLoss, NoSpace, StorageFailure, TimedOut

MIB = 1 << 20


def sparse(path: Path, size_bytes: int, data: dict[int, bytes]) -> Path:
    with path.open("wb") as file:
        file.truncate(size_bytes)
        for offset, content in data.items():
            file.seek(offset)
            file.write(content)
        os.fsync(file.fileno())
    return path


def test_a_copy_has_the_data_and_the_holes(tmp_path: Path) -> None:
    source = sparse(
        tmp_path / "a", 64 * MIB, {MIB: b"one" * 5000, 40 * MIB: b"two" * 5000, 64 * MIB - 4096: b"e" * 4096}
    )
    with images.opened(source, write=False) as one, images.opened(tmp_path / "b", create=True) as two:
        images.copy_data(one, two)
    copy = tmp_path / "b"
    assert copy.read_bytes() == source.read_bytes()
    assert copy.stat().st_blocks * 512 < MIB


def test_a_copy_stops_at_its_time_limit(tmp_path: Path) -> None:
    source = sparse(tmp_path / "a", MIB, {0: b"data" * 4096})
    with (
        images.opened(source, write=False) as one,
        images.opened(tmp_path / "b", create=True) as two,
        pytest.raises(TimedOut),
    ):
        images.copy_data(one, two, give_up_at=time.monotonic() - 1)


def test_data_ranges_see_preallocated_blocks_as_holes_even_after_reading(tmp_path: Path) -> None:
    with images.opened(tmp_path / "a", create=True) as image:
        images.allocate(image, 8 * MIB)
        os.pwrite(image, b"x" * 4096, 4 * MIB)
        os.fsync(image)
        os.pread(image, 8 * MIB, 0)
        ranges = list(images.data_ranges(image))
        assert ranges[0][0] <= 4 * MIB < ranges[-1][1]
        assert sum(end - start for start, end in ranges) <= 128 << 10
        assert list(images.data_ranges(image, 5 * MIB)) == []


def test_ranges_are_sought_where_there_is_no_extent_map() -> None:
    """tmpfs."""
    path = Path("/dev/shm") / f"csi-core-test-{os.getpid()}"
    try:
        sparse(path, MIB, {512 << 10: b"x" * 4096})
        with images.opened(path) as image:
            assert list(images.data_ranges(image)) == [(512 << 10, (512 << 10) + 4096)]
            assert list(images.data_ranges(image, (512 << 10) + 4096)) == []
    finally:
        path.unlink()


def test_owning_blocks_changes_no_byte(tmp_path: Path) -> None:
    source = sparse(tmp_path / "a", 8 * MIB, {MIB: b"data" * 4096})
    before = source.read_bytes()
    with images.opened(source) as image:
        images.own_blocks(image)
    assert source.read_bytes() == before
    assert images.holes_bytes(source.stat()) == 0


def test_freeing_goes_in_slices_and_can_be_repeated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "_FREE_SLICE_BYTES", MIB)
    path = sparse(tmp_path / "a", 5 * MIB, {})
    sizes: list[int] = []
    really = os.ftruncate
    monkeypatch.setattr(os, "ftruncate", lambda fd, size: (sizes.append(size), really(fd, size)))
    images.free(path)
    images.free(path)
    assert sizes == [4 * MIB, 3 * MIB, 2 * MIB, MIB, 0]
    assert not path.exists()


def test_links_are_not_followed(tmp_path: Path) -> None:
    (tmp_path / "target").write_text("precious")
    (tmp_path / "link").symlink_to(tmp_path / "target")
    with pytest.raises(OSError, match="symbolic"), images.opened(tmp_path / "link"):
        pass


def test_errors_of_the_filesystem_are_told_apart() -> None:
    with pytest.raises(NoSpace, match="image: No space left"), images.storage_errors("image"):
        raise OSError(28, "No space left on device")
    with pytest.raises(StorageFailure, match="Input/output"), images.storage_errors("image"):
        raise OSError(5, "Input/output error")


def test_space_set_aside_does_not_show_in_the_size(tmp_path: Path) -> None:
    path = sparse(tmp_path / "a", 4096, {0: b"x" * 4096})
    assert images.set_aside(path, 4 * MIB)
    assert path.stat().st_size == 4096
    assert path.stat().st_blocks * 512 >= 4 * MIB
    assert not images.set_aside(tmp_path / "missing", 4 * MIB)


def test_an_image_is_made_longer_and_never_shorter(tmp_path: Path) -> None:
    layout = ImageFiles(tmp_path)
    layout.prepare()
    for size, shows in ((MIB, MIB), (3 * MIB, 3 * MIB), (2 * MIB, 3 * MIB)):
        layout.ensure("v-" + "0" * 20, size, thick=False)
        found = layout.found("v-" + "0" * 20)
        assert found is not None
        assert found.st_size == shows
    with pytest.raises(DataLoss, match="missing"), layout.opened("v-" + "1" * 20):
        pass


def test_strangers_are_all_that_has_no_record(tmp_path: Path) -> None:
    layout = ImageFiles(tmp_path)
    layout.prepare()
    known = {f"v-{number:020x}" for number in range(1200)}
    for name in known:
        layout.path(name).touch()
    for name in ("v-stray.img", "notes", "v-" + "0" * 20):
        (layout.directory / name).touch()
    found = {path.name for path in layout.strangers(lambda keys: known & set(keys))}
    assert found == {"v-stray.img", "notes", "v-" + "0" * 20}


def test_what_is_deleted_while_strangers_are_looked_for_is_none(tmp_path: Path) -> None:
    layout = ImageFiles(tmp_path)
    layout.prepare()
    deleted, stray = layout.path("v-" + "0" * 20), layout.path("v-" + "1" * 20)
    deleted.touch()
    stray.touch()

    def known(_: list[str]) -> set[str]:
        deleted.unlink()  # and its record, before that was asked for
        return set()

    assert list(layout.strangers(known)) == [stray]
