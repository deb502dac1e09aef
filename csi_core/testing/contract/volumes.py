"""Creating, finding and deleting volumes."""

from __future__ import annotations

import re
import unicodedata

import pytest

from csi_core.errors import CallError, NoSpace, OutOfRange
from csi_core.model import MAX_HANDLE_BYTES, BlockSource, Created, Existing, SizeRange, VolumeMode
from csi_core.testing.contract.case import BackendCase
from csi_core.testing.contract.selection import Selection, needs

__all__ = ["BAD_HANDLES", "NAMES", "VolumeTests"]

HANDLE = re.compile(rf"[A-Za-z0-9._:-]{{1,{MAX_HANDLE_BYTES}}}")

NAMES = (
    "pvc-6ba7b810-9dad-11d1-80b4-00c04fd430c8",
    "a",
    "ä" * 64,  # 128 bytes
    "x" * 128,
    "𝄞" * 32,
    "MiXeD CaSe",
    "mixed case",
    "padded",
    " padded",
    "padded ",
    "../../etc/passwd",
    "/absolute/name",
    ".",
    "..",
    "-rf",
    "--help",
    "with space, comma; quote ' \" and $(dollar) `tick` \\",
    "percent%s%n{0}",
    "nul-like \\x00",
    "名前・имя・όνομα・שֵׁם",
    unicodedata.normalize("NFC", "Åé"),
    unicodedata.normalize("NFD", "Åé"),
)
"""Every name that a CO may choose: any Unicode but control characters, at most 128 bytes (CSI "Size Limits")."""

BAD_HANDLES = (
    "",
    ".",
    "..",
    "/",
    "../../etc/passwd",
    "a/b",
    "x" * 4096,
    "\0",
    "näme",
    "no-such-handle",
    "-rf",
    "*",
    "%",
)
"""What an administrator or an attacker may write as a handle."""


class VolumeTests(Selection):
    """Creating, finding and deleting volumes (CSI "CreateVolume", "DeleteVolume", "ControllerGetVolume")."""

    def test_description_is_what_is_tested(self, case: BackendCase) -> None:
        """The test class names the volume modes and sources that the backend declares."""
        declared = case.backend.description
        for name, tested, served in (
            ("volume_modes", self.volume_modes, declared.access),
            ("sources", self.sources, declared.sources),
        ):
            members = ", ".join(sorted(map(str, served)))
            assert set(tested) == set(served), f"the backend declares {members or 'none'}: set {name} in the test class"

    def test_description_survives_restart(self, case: BackendCase) -> None:
        """A restart changes nothing that was declared."""
        before = case.backend.description
        case.reopen()
        assert case.backend.description == before

    def test_nothing_at_first(self, case: BackendCase) -> None:
        """The kit gets empty storage; listing that works too."""
        assert case.volumes() == []

    def test_create(self, case: BackendCase, mode: VolumeMode) -> None:
        """A new volume is what was asked for, and is found."""
        outcome = case.backend.create_volume(case.spec("data", mode))
        assert isinstance(outcome, Created)
        volume = outcome.value
        assert HANDLE.fullmatch(volume.handle), f"{volume.handle!r} is no handle"
        assert volume.name == "data"
        assert volume.size_bytes == case.size_bytes
        assert volume.source is None
        assert sum(len(k.encode()) + len(v.encode()) for k, v in volume.context.items()) <= 4096
        assert case.backend.get_volume(volume.handle) == volume
        assert case.volumes() == [volume]

    def test_create_again(self, case: BackendCase, mode: VolumeMode) -> None:
        """The same name gives the same volume, however often and also after a restart."""
        volume = case.create("data", mode)
        for _ in range(2):
            assert case.backend.create_volume(case.spec("data", mode)) == Existing(volume)
        case.reopen()
        assert case.backend.create_volume(case.spec("data", mode)) == Existing(volume)
        assert case.volumes() == [volume]

    def test_create_again_otherwise(self, case: BackendCase, mode: VolumeMode) -> None:
        """The same name with other wishes answers what is there, unchanged: the core tells the CO that it differs."""
        volume = case.create("data", mode)
        other = case.spec("data", mode, SizeRange(4 * case.size_bytes), recorded={"other": "value"})
        assert case.backend.create_volume(other) == Existing(volume)
        assert case.backend.get_volume(volume.handle) == volume

    def test_what_is_recorded_comes_back(self, case: BackendCase) -> None:
        """The strings that the core compares are stored exactly."""
        recorded = {"plain": "value", "empty": "", "ключ": "значение ✓", "spaces": "  a=b, c;d\n\t", "long": "x" * 2048}
        volume = case.backend.create_volume(case.spec("data", self.volume_modes[0], recorded=recorded)).value
        assert dict(volume.recorded) == recorded
        case.reopen()
        found = case.backend.get_volume(volume.handle)
        assert found is not None
        assert dict(found.recorded) == recorded

    def test_every_name(self, case: BackendCase) -> None:
        """Names of any script, case and form are different volumes, each found again."""
        mode = self.volume_modes[0]
        volumes = {name: case.create(name, mode) for name in NAMES}
        assert len({volume.handle for volume in volumes.values()}) == len(NAMES)
        case.reopen()
        for name, volume in volumes.items():
            assert volume.name == name
            assert HANDLE.fullmatch(volume.handle)
            assert case.backend.create_volume(case.spec(name, mode)) == Existing(volume)
        assert {volume.name for volume in case.volumes()} == set(NAMES)

    @needs("find_volume")
    def test_find_by_name(self, case: BackendCase) -> None:
        """A volume is found under exactly its name."""
        volume = case.create("Data", self.volume_modes[0])
        assert case.backend.find_volume("Data") == volume
        for other in ("data", "Data ", "", volume.handle):
            assert case.backend.find_volume(other) is None
        case.delete(volume)
        assert case.backend.find_volume("Data") is None

    def test_odd_sizes_are_rounded_up(self, case: BackendCase, mode: VolumeMode) -> None:
        """Never less than asked for, and a multiple of what is declared."""
        for wanted in (1, case.size_bytes + 1, case.size_bytes + 4097):
            volume = case.create(f"data-{wanted}", mode, wanted)
            assert volume.size_bytes >= max(wanted, case.backend.description.minimum_size_bytes)
            assert volume.size_bytes == case.whole(volume.size_bytes)

    def test_limit_is_kept(self, case: BackendCase, mode: VolumeMode) -> None:
        """The largest size allowed is never passed, exact ranges included (CSI "CapacityRange")."""
        exact = SizeRange(case.size_bytes, case.size_bytes)
        assert case.backend.create_volume(case.spec("exact", mode, exact)).value.size_bytes == case.size_bytes
        for more in (0, 1):  # one byte more is no whole block, and no reason to make none
            at_most = SizeRange(0, case.size_bytes + more)
            made = case.backend.create_volume(case.spec(f"at-most-{more}", mode, at_most)).value
            assert made.size_bytes <= case.size_bytes

    def test_no_size_said(self, case: BackendCase) -> None:
        """A volume of the default size."""
        default_bytes = case.backend.description.default_size_bytes
        volume = case.backend.create_volume(case.spec("data", self.volume_modes[0], SizeRange())).value
        assert volume.size_bytes >= default_bytes

    def test_too_large(self, case: BackendCase, mode: VolumeMode) -> None:
        """No room is an error with nothing left behind, also after a restart."""
        with pytest.raises((NoSpace, OutOfRange)):
            case.create("data", mode, case.whole(1 << 61))
        assert case.volumes() == []
        case.reopen()
        assert case.volumes() == []
        assert case.create("data", mode).size_bytes == case.size_bytes

    def test_delete(self, case: BackendCase, mode: VolumeMode) -> None:
        """What is deleted is gone, and deleting it again is no error."""
        volume, other = case.create("data", mode), case.create("other", mode)
        case.delete(volume)
        case.delete(volume)
        assert case.backend.get_volume(volume.handle) is None
        assert case.volumes() == [other]
        case.reopen()
        case.delete(volume)
        assert case.backend.get_volume(volume.handle) is None
        assert case.volumes() == [other]

    def test_name_is_free_again(self, case: BackendCase, mode: VolumeMode) -> None:
        """A new volume of a deleted one's name is new: nobody reads what was deleted, and no record of it counts."""
        volume = case.create("data", mode)
        case.write(volume, mode, "secret")
        if "mark_formatted" in case.backend.hooks:
            case.backend.mark_formatted(volume.handle, "ext4")
        case.delete(volume)
        again = case.backend.create_volume(case.spec("data", mode, recorded={**case.parameters, "other": "value"}))
        assert isinstance(again, Created)
        assert dict(again.value.recorded) == {**case.parameters, "other": "value"}
        with case.attached(again.value, mode) as content:
            assert content.empty()
            source = case.backend.attach_volume(case.attach_request(again.value, mode))
            assert not isinstance(source, BlockSource) or source.formatted == ""

    def test_unknown_handles(self, case: BackendCase) -> None:
        """Handles come from the outside: what is none is not there, and is deleted and detached without harm."""
        volume = case.create("data", self.volume_modes[0])
        for handle in BAD_HANDLES:
            assert case.backend.get_volume(handle) is None, handle
            case.backend.delete_volume(handle, case.secrets)
            case.backend.detach_volume(handle)
            assert case.volumes() == [volume], handle

    @pytest.mark.parametrize("change", ["upper", "suffix", "prefix", "path"])
    def test_handles_are_exact(self, case: BackendCase, change: str) -> None:
        """A handle that is nearly one is another: no case folding, no trimming, no path arithmetic."""
        volume = case.create("data", self.volume_modes[0])
        nearly = {
            "upper": volume.handle.swapcase(),
            "suffix": volume.handle + "0",
            "prefix": volume.handle[:-1],
            "path": f"./{volume.handle}",
        }[change]
        if nearly != volume.handle:
            assert case.backend.get_volume(nearly) is None
            case.backend.delete_volume(nearly, case.secrets)
        assert case.volumes() == [volume]

    @needs("modify_volume")
    def test_modify(self, case: BackendCase) -> None:
        """Mutable parameters are recorded, repeatedly and after a restart (CSI "ControllerModifyVolume")."""
        mode, description = self.volume_modes[0], case.backend.description
        first, second = case.mutable
        volume = case.backend.create_volume(case.spec("data", mode, mutable=first)).value
        assert dict(volume.recorded_mutable) == dict(first)
        merged = {**first, **second}
        for _ in range(2):
            case.backend.modify_volume(volume.handle, description.mutable.model_validate(merged), merged)
            found = case.backend.get_volume(volume.handle)
            assert found is not None
            assert dict(found.recorded_mutable) == merged
            case.reopen()
        with pytest.raises(CallError):
            case.backend.modify_volume("no-such-handle", description.mutable.model_validate(first), dict(first))
