"""Options and parameters that are refused, and why."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from backends.lvm.options import ClassOptions, LvmOptions, LvmParameters, LvmSnapshotParameters, cow_bytes
from backends.lvm.plugin import LvmBackend
from csi_core.errors import ConfigError, InvalidArgument
from csi_core.parameters import parse_parameters

ONE = {"fast": {"volumeGroup": "vg0"}}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"classes": {}}, "classes"),
        ({"classes": {"Fast": {"volumeGroup": "vg0"}}}, "class name"),
        ({"classes": {"a": {"volumeGroup": "vg0"}, "b": {"volumeGroup": "vg0"}}, "defaultClass": "a"}, "share"),
        ({"classes": {"a": {"volumeGroup": "vg0"}, "b": {"volumeGroup": "vg1"}}}, "defaultClass"),
        ({"classes": ONE, "defaultClass": "slow"}, "defaultClass"),
        ({"classes": {"fast": {"volumeGroup": "--force"}}}, "no name"),
        ({"classes": {"fast": {"volumeGroup": "v" * 110}}}, "too long"),
        ({"classes": {"fast": {"volumeGroup": "vg0", "thinPools": {"-x": {}}}}}, "no name"),
        ({"classes": {"fast": {"volumeGroup": "vg0", "defaultThinPool": "p"}}}, "defaultThinPool"),
        ({"classes": {"fast": {"volumeGroup": "vg0", "thinPools": {"p": {"warnAt": 0.9, "stopAt": 0.8}}}}}, "warnAt"),
        ({"classes": {"fast": {"volumeGroup": "vg0", "createOptions": ["--zero=y"]}}}, "not allowed"),
        ({"classes": {"fast": {"volumeGroup": "vg0", "createOptions": ["--alloc=x;y"]}}}, "does not take"),
        ({"classes": {"fast": {"volumeGroup": "vg0", "createOptions": ["--addtag=csi.name=x"]}}}, "does not take"),
        ({"classes": ONE, "deviceFilter": ['a|x|", "r|y|']}, "not a filter"),
        ({"classes": {"fast": {"volumeGroup": "vg0", "volumeGrup": "x"}}}, "volumeGrup"),
    ],
)
def test_options_refused(options, said):
    with pytest.raises(ConfigError, match=said):
        LvmBackend(options)


def test_options_accepted():
    options = LvmOptions.model_validate(
        {
            "classes": {
                "fast": {
                    "volumeGroup": "vg-0_a.b+c",
                    "spare": "10Gi",
                    "createOptions": ["--alloc=cling", "--addtag=backup", "--readahead=auto"],
                    "thinPools": {"pool0": {"overcommit": 2}},
                }
            },
            "deviceFilter": ["a|/dev/nvme.*|", "r|.*|"],
        }
    )
    assert options.default == "fast"
    assert options.classes["fast"].spare == 10 << 30


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"type": "mirror"}, "type"),
        ({"stripes": "3"}, "striped"),
        ({"type": "striped", "mirrors": "2"}, "raid1"),
        ({"type": "striped", "stripeSize": "100Ki"}, "power of two"),
        ({"type": "striped", "stripes": "1"}, "stripes"),
        ({"thinPool": "p"}, "thin"),
        ({"wipe": "maybe"}, "wipe"),
        ({"wype": "zero"}, "did you mean 'wipe'"),
    ],
)
def test_parameters_refused(given, said):
    with pytest.raises(InvalidArgument, match=said):
        parse_parameters(LvmParameters, given, "parameter")


@pytest.mark.parametrize(("size", "expected"), [("100%", None), ("20%", 200), ("1Gi", None), ("500", 500)])
def test_room_of_a_copy_on_write_snapshot(size, expected):
    assert LvmSnapshotParameters(cow_size=size).cow_size == size
    assert cow_bytes(size, 1000) == expected


@pytest.mark.parametrize("size", ["0%", "101%", "", "0", "x", "-1"])
def test_room_refused(size):
    with pytest.raises(ValidationError):
        LvmSnapshotParameters(cow_size=size)


def test_a_default_is_not_shared():
    assert ClassOptions(volume_group="a").thin_pools is not ClassOptions(volume_group="b").thin_pools
