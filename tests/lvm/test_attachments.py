"""Volumes as devices of this node: after a boot, beside an administrator, beneath LVM's own eyes."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from group_case import BLOCK, Open, lv_of, thin_pool
from volume_group import MIB, lvm, volumes

from backends.lvm import devicemapper, names
from csi_core.node import filesystems

pytestmark = pytest.mark.needs_kernel("device-mapper")


def test_after_a_reboot_nothing_is_active_until_it_is_attached(opened: Open, group: str) -> None:
    case = opened()
    volume = case.create("data", BLOCK)
    before = case.write(volume, BLOCK, "data")
    assert volumes(group)[lv_of(volume)]["lv_attr"][4] == "-"
    lvm("vgchange", "-aay", group)  # what a boot does
    assert volumes(group)[lv_of(volume)]["lv_attr"][4] == "-"
    assert case.backend.find_source(volume.handle) is None
    assert case.checksum(volume, BLOCK) == before


def test_active_by_hand_is_not_attached(opened: Open, group: str) -> None:
    """An administrator looked into it: it can be deleted all the same."""
    case = opened()
    volume = case.create("data", BLOCK)
    lvm("lvchange", "-ay", "-K", f"{group}/{lv_of(volume)}")
    case.delete(volume)
    assert volumes(group) == {}


def test_what_was_left_held_is_let_go(opened: Open, group: str) -> None:
    """A driver that is killed while writers stand still: the next one lets them go."""
    case = opened()
    volume = case.create("data", BLOCK)
    with case.attached(volume, BLOCK) as content:
        front = names.front_name(group, lv_of(volume))
        devicemapper.suspend(front)
        case.reopen()
        found = devicemapper.find(front)
        assert found is not None
        assert not found.suspended
        content.write("data")


def test_what_lvm_left_suspended_is_let_go(opened: Open, group: str) -> None:
    """A command of LVM's that dies while it changes an LV that is in use: the next start lets the LV go."""
    with thin_pool(group, 64) as settings:
        case = opened({"type": "thin"}, **settings)
        volume = case.create("data", BLOCK)
        with case.attached(volume, BLOCK) as content:
            held = names.dm_name(group, lv_of(volume)), f"{names.dm_name(group, 'pool')}-tpool"
            for name in held:
                devicemapper.suspend(name)
            case.reopen()
            for name in held:
                found = devicemapper.find(name)
                assert found is not None
                assert not found.suspended
            content.write("data")


def test_what_is_on_an_attached_volume_is_seen(opened: Open) -> None:
    """By blkid, on which it depends that nothing is formatted over. Of LVM's inner layers it says nothing."""
    case = opened()
    volume = case.create("data", BLOCK)
    with case.attached(volume, BLOCK) as content:
        assert filesystems.probe(content.path) is None
        subprocess.run(["mkfs.ext4", "-q", content.path], check=True)
        found = filesystems.probe(content.path)
        assert found is not None
        assert found.fs_type == "ext4"


def test_front_devices_are_no_disks_of_lvms(opened: Open, group: str) -> None:
    """Whatever a tenant writes: a label of LVM's on a raw block volume makes no disk of the host's."""
    case = opened()
    volume = case.create("data", BLOCK)
    with case.attached(volume, BLOCK) as content:
        disks = lvm("pvs", "--noheadings", "-o", "pv_name").split()
        with Path(disks[0]).open("rb") as disk:
            head = disk.read(MIB)
        with content.path.open("r+b") as device:
            device.write(head)
            os.fsync(device.fileno())
        assert "duplicate" not in lvm("pvs", "--noheadings", "-o", "pv_name").lower()
        assert "-csi" not in lvm("pvs", "--noheadings", "-a", "-o", "pv_name")
        assert case.create("more", BLOCK)
