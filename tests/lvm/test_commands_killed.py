"""LVM's own command is killed half-way, as when the container or the machine dies: what it left is not taken for whole.

The driver that dies alone is in test_killed.py. Between two changes of the group that lvcreate makes lie milliseconds;
so here another lvcreate stands in for it, and leaves what it left where it was killed in between for real.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest
from group_case import BLOCK, Open, lv_of, thin_pool
from volume_group import dmsetup, lvm, volumes

from backends.lvm import names
from backends.lvm.commands import Lvm

pytestmark = pytest.mark.needs_kernel("device-mapper")
_INACTIVE: Final = ("--activate=n", "--zero=n", "--wipesignatures=n")


class Killed(BaseException):
    """The driver went with its command."""


Died = Callable[[Callable[[tuple[str, ...]], list[str]], Callable[[], object]], None]


@pytest.fixture
def died(monkeypatch: pytest.MonkeyPatch) -> Died:
    """Makes a call, of which the first lvcreate has other arguments, and is the last command."""

    def act(instead: Callable[[tuple[str, ...]], list[str]], call: Callable[[], object]) -> None:
        change = Lvm.change

        def killed(self: Lvm, program: str, *arguments: str) -> None:
            change(self, program, *(instead(arguments) if program == "lvcreate" else arguments))
            if program == "lvcreate":
                raise Killed

        with monkeypatch.context() as patched, pytest.raises(Killed):
            patched.setattr(Lvm, "change", killed)
            call()

    return act


def test_a_copy_on_write_snapshot(opened: Open, group: str, died: Died) -> None:
    """Its store alone, which is no snapshot of anything: the data would be lost, and nobody told."""

    def store_alone(arguments: tuple[str, ...]) -> list[str]:
        kept = [each for each in arguments if each.startswith(("--name", "--addtag"))]
        return [*kept, *_INACTIVE, "--size=20m", group]

    case = opened()
    volume = case.create("data", BLOCK)
    before = case.write(volume, BLOCK, "data")
    died(store_alone, lambda: case.snapshot("snap", volume))
    assert case.snapshots() == []
    case.reopen()
    assert case.checksum(case.restore("restored", BLOCK, case.snapshot("snap", volume)), BLOCK) == before


@pytest.mark.usefixtures("no_resync")
def test_a_mirror_with_checksums(opened: Open, group: str, died: Died) -> None:
    """A mirror that has none yet, and beside it an LV that was to hold them."""

    def without_checksums(arguments: tuple[str, ...]) -> list[str]:
        return [each for each in arguments if "integrity" not in each]

    case = opened({"type": "raid1", "integrity": "true"})
    died(without_checksums, lambda: case.create("data", BLOCK))
    assert case.volumes() == []
    (mirror,) = volumes(group)
    lvm("lvcreate", "-y", *_INACTIVE, "--size=8m", "-n", "part", group)
    edit_metadata(group, r"^\t\tpart \{$", f"\t\t{mirror}_rimage_0_imeta {{")
    case.reopen()
    made = case.create("data", BLOCK)
    assert volumes(group, "lv_name,raidintegritymode") == {
        lv_of(made): {"lv_name": mirror, "raidintegritymode": "journal"}
    }


def test_a_thin_volume(opened: Open, group: str) -> None:
    """LVM has noted it, and not told the pool yet."""
    with thin_pool(group, 64) as settings:
        case = opened({"type": "thin"}, **settings)
        with case.attached(case.create("other", BLOCK), BLOCK):
            volume = case.create("data", BLOCK)
            number, made = (
                int(lvm("lvs", "--noheadings", "-o", field, f"{group}/{lv}"))
                for field, lv in (("transaction_id", "pool"), ("thin_id", lv_of(volume)))
            )
            for message in (f"delete {made}", f"set_transaction_id {number} {number - 1}"):
                dmsetup("message", f"{names.dm_name(group, 'pool')}-tpool", "0", message)
            note = f'transaction_id = {number}\nmessage1 {{\ncreate = "{lv_of(volume)}"\n}}\n'
            edit_metadata(group, rf"transaction_id = {number}\n", note)
            case.reopen()
            assert case.write(volume, BLOCK, "data")
            assert {each.name for each in case.volumes()} == {"data", "other"}
            assert not list(case.backend.diagnose())


def edit_metadata(group: str, pattern: str, replacement: str) -> None:
    """Replace the first place in the group's metadata: what LVM itself writes only on its way."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, "metadata")
        lvm("vgcfgbackup", "-f", str(path), group)
        path.write_text(re.sub(pattern, replacement, path.read_text(), count=1, flags=re.MULTILINE))
        lvm("vgcfgrestore", "--force", "-y", "-f", str(path), group)
