"""Names of LVs and devices."""

from __future__ import annotations

from backends.lvm import names

KEY = names.make_key("v", "pvc-1")


def test_lv_names():
    assert names.key_of(names.lv_name(KEY)) == KEY
    for foreign in ("root", "csi-", "csi-v-", f"x{names.lv_name(KEY)}", f"{names.lv_name(KEY)}_rimage_0", KEY):
        assert names.key_of(foreign) is None


def test_dm_names():
    assert names.dm_name("my-vg", "csi-v-1") == "my--vg-csi--v--1"
    assert names.front_name("vg", "csi-v-1") == "vg-csi--v--1-csi"
