"""The binding of FIEMAP and FICLONERANGE, on files of whatever filesystem the temporary directory is."""

from __future__ import annotations

import errno
import os
import struct
from pathlib import Path

import pytest

from csi_core import _allocator

MIB = 1 << 20


def extents(*entries: tuple[int, int, int, int]) -> bytes:
    return b"".join(struct.pack("=4Q", *entry) for entry in entries)


def ranges(buffer: bytes) -> list[tuple[int, int]]:
    return list(struct.iter_unpack("=2Q", buffer))


def combed_file(path: Path, pieces: int) -> Path:
    """Every second MiB begins with 64 KiB of data; the rest are holes."""
    with path.open("wb") as file:
        for piece in range(0, pieces, 2):
            os.pwrite(file.fileno(), b"x" * 65536, piece * MIB)
        file.truncate(pieces * MIB)
    return path


def read(path: Path, start_bytes: int = 0, length_bytes: int | None = None) -> bytes:
    with path.open("rb") as file:
        return _allocator.fiemap(file.fileno(), start_bytes, length_bytes)


def test_reads_what_was_written(tmp_path: Path) -> None:
    found = read(combed_file(tmp_path / "image", 6))
    assert _allocator.allocated_bytes(found) == 3 * 65536
    assert _allocator.shared_bytes(found) == 0
    assert ranges(_allocator.data_ranges(found)) == [(0, 65536), (2 * MIB, 65536), (4 * MIB, 65536)]
    assert list(struct.iter_unpack("=4Q", found))[-1][3] & _allocator.EXTENT_LAST


def test_reads_only_the_range(tmp_path: Path) -> None:
    path = combed_file(tmp_path / "image", 6)
    assert ranges(_allocator.data_ranges(read(path, 2 * MIB + 4096, 8192))) == [(2 * MIB + 4096, 8192)]
    assert read(path, MIB, 4096) == b""


def test_a_closed_descriptor_is_an_oserror() -> None:
    with pytest.raises(OSError) as error:
        _allocator.fiemap(-1)
    assert error.value.errno == errno.EBADF


def test_clone_without_reflink_or_across_filesystems_is_an_oserror(tmp_path: Path) -> None:
    source = combed_file(tmp_path / "source", 2)
    with source.open("rb") as reader, Path("/proc/self/comm").open("rb") as other:  # noqa: SIM117
        with pytest.raises(OSError):
            _allocator.clone_range(reader.fileno(), 0, 4096, other.fileno(), 0)


def test_diff_reports_what_differs_and_what_cannot_be_told() -> None:
    base = extents((0, 100 * MIB, 4 * MIB, 0), (8 * MIB, 200 * MIB, MIB, 0x8))
    target = extents((0, 100 * MIB, MIB, 0x2000), (MIB, 300 * MIB, MIB, 0), (2 * MIB, 102 * MIB, 2 * MIB, 0))
    assert ranges(_allocator.diff_extents(base, target)) == [(MIB, MIB), (8 * MIB, MIB)]
    assert ranges(_allocator.diff_extents(base, base)) == [(8 * MIB, MIB)]


def test_unwritten_is_allocated_without_data() -> None:
    found = extents((0, 4096, 4096, _allocator.EXTENT_UNWRITTEN), (4096, 8192, 4096, _allocator.EXTENT_SHARED))
    assert _allocator.allocated_bytes(found) == 8192
    assert _allocator.shared_bytes(found) == 4096
    assert ranges(_allocator.data_ranges(found)) == [(4096, 4096)]


def test_merging_joins_what_goes_on() -> None:
    split = extents((0, 4096, 4096, 0), (4096, 8192, 4096, _allocator.EXTENT_LAST))
    assert _allocator.merge_extents(split) == extents((0, 4096, 8192, _allocator.EXTENT_LAST))


@pytest.mark.parametrize(
    ("buffer", "said"),
    [
        (b"x" * 31, "31 bytes are not a whole number"),
        (extents((4096, 0, 4096, 0), (0, 0, 4096, 0)), "extent 1 of the list"),
        (extents((0, 0, 4096, 1 << 40)), "not the flags"),
    ],
)
def test_what_is_no_map_is_refused(buffer: bytes, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        _allocator.merge_extents(buffer)
