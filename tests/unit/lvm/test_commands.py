"""What LVM says, as errors of the contract; the words are those of LVM 2.03."""

from __future__ import annotations

from pathlib import Path

import pytest

from backends.lvm.commands import LogicalVolumeExists, Lvm
from csi_core import run as run_module
from csi_core.errors import Busy, CommandFailed, DataLoss, FailedPrecondition, NoSpace, NotFound, Unavailable


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A program in lvcreate's place that says what it is told to, and keeps its arguments."""

    def install(said: str, status: int) -> Path:
        script = tmp_path / "lvcreate"
        script.write_text(
            f'#!/bin/sh\nprintf "%s\\n" "$@" > {tmp_path}/arguments\nenv > {tmp_path}/environment\n'
            f"cat >&2 <<'END'\n{said}\nEND\nexit {status}\n"
        )
        script.chmod(0o755)
        monkeypatch.setitem(run_module._paths, "lvcreate", str(script))
        return tmp_path

    return install


@pytest.mark.parametrize(
    ("said", "error"),
    [
        ('  Logical Volume "csi-v-1" already exists in volume group "vg0"', LogicalVolumeExists),
        ('  Volume group "vg0" has insufficient free space (6109 extents): 16777216 required.', NoSpace),
        ("  Insufficient suitable allocatable extents for logical volume csi-v-9: 68 more required", NoSpace),
        ("  Cannot create new thin volume, free space in thin pool vg0/p reached threshold.", NoSpace),
        ("  VG vg0 metadata on /dev/sdb (1044992 bytes) too large for circular buffer (1044992 bytes)", NoSpace),
        ("  VG vg0 14 metadata on /dev/sdb (1045909 bytes) exceeds maximum metadata size (1045760 bytes)", NoSpace),
        ('  Volume group "vg0" not found\n  Cannot process volume group vg0', Unavailable),
        ("  Refusing activation of partial LV vg0/x.  Use '--activationmode partial' to override.", Unavailable),
        ("  Cannot change VG vg0 while PVs are missing.", Unavailable),
        ("  Volume group vg0 is exported", Unavailable),
        ('  Failed to find logical volume "vg0/x"', NotFound),
        ("  Can't get lock for vg0", Busy),
        ("  Logical volume vg0/x is used by another device.", FailedPrecondition),
        ("  Logical volume vg0/x in use.", FailedPrecondition),
        ("  Snapshot origin volumes can be resized only while inactive: try lvchange -an.", FailedPrecondition),
        ("  Unable to merge invalidated snapshot LV x.", DataLoss),
        ("  Something new.", CommandFailed),
    ],
)
def test_meanings(program, said, error):
    program(f"  WARNING: This metadata update is NOT backed up.\n{said}", 5)
    with pytest.raises(error) as caught:
        Lvm("vg0").change("lvcreate", "--name=csi-v-1", "vg0")
    assert type(caught.value) is error
    assert said.split("\n", maxsplit=1)[0].strip() in str(caught.value)
    if error is not CommandFailed:
        assert "NOT backed up" not in str(caught.value)


def test_how_it_is_called(program):
    directory = program("", 0)
    Lvm("vg0", ["a|/dev/sd.*|", "r|.*|"]).change("lvcreate", "vg0")
    arguments = (directory / "arguments").read_text().splitlines()
    assert arguments[0] == "--config"
    assert 'global_filter=["a|/dev/sd.*|", "r|.*|"]' in arguments[1]
    assert "udev_sync=0" in arguments[1]
    assert "archive=0" in arguments[1]
    assert arguments[2:] == ["--yes", "--quiet", "vg0"]
    assert "LC_ALL=C\n" in (directory / "environment").read_text()
