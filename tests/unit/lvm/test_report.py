"""LVM's report read: what is ours, what is foreign, what there is room for."""

from __future__ import annotations

import json

import pytest

from backends.lvm import extents, names, tags
from backends.lvm.options import LvmParameters
from backends.lvm.report import Report, Reports, _metadata_share, parse
from csi_core.errors import OutOfRange, StorageFailure
from csi_core.model import AccessMode, SizeRange, SourceKind, VolumeCapability, VolumeMode, VolumeSpec

MIB, GIB = 1 << 20, 1 << 30
EXTENT = 4 * MIB


def line(name: str, *, lv_tags: str = "", size: int = GIB, attr: str = "-wi------k", **more: str) -> dict[str, str]:
    return {
        "lv_name": name, "lv_uuid": f"u-{name}", "lv_size": str(size), "lv_attr": attr, "lv_tags": lv_tags,
        "origin": "", "pool_lv": "", "lv_layout": "linear", "lv_health_status": "",
        "data_percent": "", "metadata_percent": "", **more,
    }  # fmt: skip


def text_of(
    *lines: dict[str, str],
    free: tuple[int, ...] = (GIB,),
    attrs: tuple[str, ...] = (),
    seqno: int = 7,
    exported: str = "",
) -> str:
    group = {
        "vg_name": "vg0", "vg_uuid": "U", "vg_seqno": str(seqno), "vg_extent_size": str(EXTENT),
        "vg_free": str(sum(free)), "vg_mda_size": "1000", "vg_mda_free": "250", "vg_exported": exported,
    }  # fmt: skip
    disks = [
        {"pv_name": f"/dev/sd{number}", "pv_free": str(size), "pv_attr": attrs[number] if attrs else "a--"}
        for number, size in enumerate(free)
    ]
    return json.dumps({"report": [{"vg": [group], "pv": disks, "lv": list(lines)}]})


def report(
    *lines: dict[str, str],
    free: tuple[int, ...] = (GIB,),
    attrs: tuple[str, ...] = (),
    before: Report | None = None,
) -> Report:
    return parse(text_of(*lines, free=free, attrs=attrs), 0.0, before)


def tagged(**fields: str) -> str:
    return ",".join(tags.encode({"made": "1700000000000000", **fields}))


KEY = names.make_key("v", "data")
SNAP = names.make_key("s", "snap")


def test_only_ours_are_records():
    found = report(
        line(names.lv_name(KEY), lv_tags=tagged(name="data")),
        line("root"),
        line(names.lv_name(names.make_key("v", "untagged"))),
        line("csi-something", lv_tags=tagged(name="x")),
    )
    assert list(found.records) == [KEY]
    assert len(found.volumes) == 4


def test_records_are_taken_over_while_their_lvs_are_as_they_were():
    same, grown = (line(names.lv_name(names.make_key("v", n)), lv_tags=tagged(name=n)) for n in ("same", "grown"))
    tagged_anew = line(names.lv_name(KEY), lv_tags=tagged(name="data"))
    before = report(same, grown, tagged_anew, line(names.lv_name(SNAP), lv_tags=tagged(name="gone")))
    grown = {**grown, "lv_size": str(2 * GIB)}
    tagged_anew = line(names.lv_name(KEY), lv_tags=tagged(name="data", formatted="ext4"))
    foreign = line(names.lv_name(SNAP))
    found = report(same, grown, tagged_anew, foreign, before=before)
    assert found == report(same, grown, tagged_anew, foreign)
    assert found.records != before.records
    key = names.make_key("v", "same")
    assert found.records[key] is before.records[key]


class Group:
    """A volume group of one LV, whose tags can be changed by the driver and by others."""

    volume_group = "vg0"

    def __init__(self) -> None:
        self.seqno, self.asked, self.tags = 7, 0, ["csi.made=1", "csi.blank=1"]

    def report(self, *_: str) -> str:
        self.asked += 1
        return text_of(line(names.lv_name(KEY), lv_tags=",".join(self.tags)), seqno=self.seqno)

    def change(self, *tags: str) -> None:
        self.seqno += 1
        self.tags = list(tags)


@pytest.fixture
def group(monkeypatch: pytest.MonkeyPatch) -> Group:
    made = Group()
    monkeypatch.setattr("backends.lvm.metadata.sequence_number", lambda *_: made.seqno)
    return made


def test_a_change_of_tags_of_ours_takes_no_report(group: Group):
    reports = Reports(group)
    before = reports.current()
    with reports.retagging(names.lv_name(KEY), ["csi.formatted=xfs"], ["csi.blank=1"]):
        group.change("csi.made=1", "csi.formatted=xfs")
    found = reports.current()
    assert group.asked == 1
    assert dict(found.records[KEY].fields) == {"made": "1", "formatted": "xfs"}
    assert dict(before.records[KEY].fields) == {"made": "1", "blank": "1"}
    group.change("csi.made=1")
    assert "formatted" not in reports.current().records[KEY].fields


@pytest.mark.parametrize("others", [(0,), (1,), (0, 1)], ids=["before", "after", "both"])
def test_a_change_beside_another_takes_one(group: Group, others: tuple[int, ...]):
    reports = Reports(group)
    reports.current()
    with reports.retagging(names.lv_name(KEY), ["csi.formatted=xfs"], []):
        for moment in (0, 1):
            if moment in others:
                group.change("csi.made=1", "csi.name=theirs")
            if moment == 0:
                group.change("csi.made=1", "csi.name=theirs", "csi.formatted=xfs")
    assert reports.current().records[KEY].fields == tags.decode(group.tags)
    assert group.asked == 2


def test_a_change_that_was_none_beside_one_of_others(group: Group):
    reports = Reports(group)
    reports.current()
    with reports.retagging(names.lv_name(KEY), ["csi.blank=1"], []):
        group.change("csi.made=1", "csi.blank=1", "csi.name=theirs")
    assert reports.current().records[KEY].name == "theirs"


def test_a_change_that_failed_takes_over_nothing(group: Group):
    reports = Reports(group)
    reports.current()
    with pytest.raises(StorageFailure), reports.retagging(names.lv_name(KEY), ["csi.formatted=xfs"], []):
        raise StorageFailure("no")
    assert "formatted" not in reports.current().records[KEY].fields


def test_a_volume():
    handle = names.join("fast", SNAP)
    fields = {"name": "däta", "source": handle, "param.type": "linear", "param.x": ""}
    found = report(line(names.lv_name(KEY), lv_tags=tagged(**fields))).records[KEY].volume("fast")
    assert (found.handle, found.name, found.size_bytes) == (f"fast:{KEY}", "däta", GIB)
    assert dict(found.recorded) == {"type": "linear", "x": ""}
    assert found.source
    assert found.source.kind is SourceKind.SNAPSHOT


def test_how_full_the_metadata_area_is():
    """LVM 2.03 says of a new group: just under 2 MiB, and 1020 KiB free."""
    assert report().metadata_share == 0.5
    assert _metadata_share(2 * MIB, 1020 << 10) < 0.01
    assert _metadata_share(0, 0) == 0.0


def test_remarks_between_the_lines():
    """As LVM 2.03 words its reports, with a remark on standard output where it has one."""
    text = """  {
      "report": [
  Reading without a lock.
          {
              "vg": [
                  {"vg_name":"vg0", "vg_uuid":"U", "vg_seqno":"7", "vg_extent_size":"4194304", "vg_free":"0",\
 "vg_mda_size":"8", "vg_mda_free":"4", "vg_exported":""}
              ]
              ,
              "pv": [
              ]
          }
      ]
  }
"""
    assert parse(text, 0.0).sequence == 7


def test_states_hide():
    for state in ("creating", "deleting"):
        found = report(line(names.lv_name(KEY), lv_tags=tagged(name="data", state=state)))
        assert found.ready(KEY) is None
        assert KEY in found.records


def test_copy_on_write_snapshots_have_their_volumes_size():
    lv = line(names.lv_name(SNAP), lv_tags=tagged(name="snap", of=KEY, size=str(GIB)), size=100 * MIB, origin="csi-x")
    found = report(lv)
    assert found.records[SNAP].size_bytes == GIB
    assert [record.key for record in found.snapshots_of["csi-x"]] == [SNAP]
    assert found.records[SNAP].snapshot("fast").volume_handle == f"fast:{KEY}"


@pytest.mark.parametrize("text", ["", "{}", '{"report": []}', '{"report": [{"vg": []}]}', '{"report": [{"vg": [{}]}]}'])
def test_what_cannot_be_read(text):
    with pytest.raises(StorageFailure, match="report"):
        parse(text, 0.0)


def available(
    parameters: dict[str, object], *free: int, spare: int = 0, attrs: tuple[str, ...] = ()
) -> tuple[int, int]:
    answer = extents.available(report(free=free, attrs=attrs), LvmParameters.model_validate(parameters), spare)
    assert answer.maximum_volume_bytes is not None
    return answer.available_bytes, answer.maximum_volume_bytes


def test_room_for_linear_volumes():
    assert available({}, 3 * GIB, GIB) == (4 * GIB, 4 * GIB)
    assert available({}, 3 * GIB, GIB, spare=GIB + 1) == (3 * GIB - EXTENT, 3 * GIB - EXTENT)
    assert available({}, GIB, spare=2 * GIB) == (0, 0)
    assert available({}, GIB, GIB, attrs=("u--", "a--")) == (GIB, GIB)


def test_no_room_where_lvm_makes_nothing():
    """A class is not to promise what create then refuses: while a disk is missing, or the group is exported."""
    assert available({}, GIB, GIB, attrs=("a--", "a-m")) == (0, 0)
    assert extents.available(parse(text_of(exported="exported"), 0.0), LvmParameters(), 0).available_bytes == 0


def test_a_thin_volume_is_no_larger_than_lvm_can_make_it():
    promised_bytes = 1 << 60
    answer = extents.available_thin(report(), promised_bytes)
    assert answer.available_bytes == promised_bytes
    assert answer.maximum_volume_bytes is not None
    size = SizeRange(answer.maximum_volume_bytes)
    assert extents.rounded(report(), size, size.required_bytes, 1) == answer.maximum_volume_bytes


def test_room_for_striped_volumes():
    assert available({"type": "striped", "stripes": 2}, 3 * GIB, 2 * GIB, GIB) == (4 * GIB, 4 * GIB)
    assert available({"type": "striped", "stripes": 3}, 3 * GIB, 2 * GIB) == (0, 0)


def test_room_for_mirrors():
    """One extent of each disk is for the mirror's own metadata."""
    assert available({"type": "raid1"}, 3 * GIB, 2 * GIB) == (2 * GIB - EXTENT, 2 * GIB - EXTENT)
    checked = available({"type": "raid1", "integrity": True}, 3 * GIB, 2 * GIB)[1]
    assert 2 * GIB * 0.95 < checked < 2 * GIB - 2 * EXTENT


@pytest.mark.parametrize("integrity", [False, True])
def test_what_a_mirror_takes_beside_its_data_is_not_of_the_spare(integrity: bool):
    parameters = LvmParameters(type="raid1", integrity=integrity)
    for spare in (GIB, 5 * GIB, 6 * GIB - 2 * EXTENT):
        largest = available({"type": "raid1", "integrity": integrity}, 3 * GIB, 3 * GIB, spare=spare)[1]
        assert extents.taken_bytes(report(), parameters, largest) <= 6 * GIB - spare


@pytest.mark.parametrize(
    ("image_mib", "checksums_mib"),
    [(100, 8), (256, 8), (400, 8), (600, 16), (1000, 20), (1400, 44), (3000, 60), (5000, 108)],
)
def test_room_for_checksums(image_mib: int, checksums_mib: int):
    """As LVM 2.03.16 made them. What has room for a little less than an image and its checksums has none for it."""
    free = (image_mib + checksums_mib) * MIB + EXTENT
    fits = available({"type": "raid1", "integrity": True}, free, free)[1]
    assert fits <= image_mib * MIB
    assert fits >= image_mib * MIB * 0.7
    assert available({"type": "raid1", "integrity": True}, free - EXTENT, free)[1] < image_mib * MIB


def spec(size: SizeRange, fs_type: str = "") -> VolumeSpec:
    capability = VolumeCapability(VolumeMode.FILESYSTEM, AccessMode.SINGLE_NODE_WRITER, fs_type)
    return VolumeSpec("data", size, (capability,), LvmParameters())


def test_sizes_are_whole_extents_on_each_stripe():
    found, striped = report(), LvmParameters(type="striped", stripes=3)
    assert extents.chosen_size(found, spec(SizeRange(1)), LvmParameters()) == EXTENT
    assert extents.chosen_size(found, spec(SizeRange(EXTENT + 1)), striped) == 3 * EXTENT
    assert extents.chosen_size(found, spec(SizeRange(), "xfs"), LvmParameters()) == GIB
    assert extents.chosen_size(found, spec(SizeRange(MIB), "xfs"), LvmParameters()) == 300 * MIB
    assert extents.chosen_size(found, spec(SizeRange(0, 10 * MIB)), LvmParameters()) == 8 * MIB
    assert extents.chosen_size(found, spec(SizeRange()), striped) == 1020 * MIB, "the default is rounded down"
    assert extents.chosen_size(found, spec(SizeRange()), LvmParameters(), at_least_bytes=2 * EXTENT) == 2 * EXTENT


def test_sizes_that_cannot_be():
    found = report()
    with pytest.raises(OutOfRange, match="multiples"):
        extents.chosen_size(found, spec(SizeRange(EXTENT + 1, EXTENT + 2)), LvmParameters())
    with pytest.raises(OutOfRange, match="source"):
        extents.chosen_size(found, spec(SizeRange(EXTENT)), LvmParameters(), at_least_bytes=2 * EXTENT)
    with pytest.raises(OutOfRange, match="at most"):
        extents.chosen_size(found, spec(SizeRange(1 << 62 | 1 << 63)), LvmParameters())
