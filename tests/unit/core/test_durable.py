"""Files and directories brought to the disk."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from csi_core.durable import sync, write


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """What was synced, and how many bytes of it the kernel had by then."""
    found: list[tuple[str, int]] = []

    def fsync(descriptor: int) -> None:
        found.append((str(Path(f"/proc/self/fd/{descriptor}").readlink()), os.fstat(descriptor).st_size))

    monkeypatch.setattr(os, "fsync", fsync)
    return found


def test_a_file_is_synced_with_all_of_its_content(tmp_path: Path, synced: list[tuple[str, int]]) -> None:
    (tmp_path / "record").write_text("something longer that was there before")
    write(tmp_path / "record", b"content")
    assert (tmp_path / "record").read_bytes() == b"content"
    assert synced == [(str(tmp_path / "record"), 7)]


def test_a_directory_is_synced_itself(tmp_path: Path, synced: list[tuple[str, int]]) -> None:
    sync(tmp_path)
    assert [path for path, _ in synced] == [str(tmp_path)]


def test_what_is_not_there_cannot_be_synced(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        sync(tmp_path / "gone")
