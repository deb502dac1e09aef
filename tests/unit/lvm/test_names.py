"""Names, handles and what is none."""

from __future__ import annotations

import pytest

from backends.lvm import names

KEY = names.make_key("v", "pvc-1")


def test_a_name_has_one_key():
    assert names.make_key("v", "pvc-1") == KEY
    assert names.make_key("s", "pvc-1")[2:] == KEY[2:]
    assert len({names.make_key("v", name) for name in ("a", "A", "ä", "a\u0308", "", "a ")}) == 6


def test_handles():
    handle = names.join("fast", KEY)
    assert names.split(handle, "v") == ("fast", KEY)
    assert names.split(handle, "s") is None


@pytest.mark.parametrize(
    "handle",
    ["", KEY, f":{KEY}", f"fast:{KEY}0", f"fast:{KEY[:-1]}", f"fast:{KEY.upper()}", f"-f:{KEY}", f"fast:{KEY}\n",
     f"../x:{KEY}", f"fast:{KEY.replace('v-', 'x-')}"],
)  # fmt: skip
def test_malformed_handles(handle):
    assert names.split(handle, "v") is None


def test_lv_names():
    assert names.key_of(names.lv_name(KEY)) == KEY
    for foreign in ("root", "csi-", "csi-v-", f"x{names.lv_name(KEY)}", f"{names.lv_name(KEY)}_rimage_0", KEY):
        assert names.key_of(foreign) is None


def test_dm_names():
    assert names.dm_name("my-vg", "csi-v-1") == "my--vg-csi--v--1"
    assert names.front_name("vg", "csi-v-1") == "vg-csi--v--1-csi"
