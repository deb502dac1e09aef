"""Records: what goes in comes out, pages are stable, and discarding keeps the charge."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from backends.loop.database import PoolDatabase
from backends.loop.records import GroupRecord, Records, SnapshotRecord, VolumeRecord, dump, row_of
from csi_core.model import ContentSource, SourceKind


def key(kind: str, number: int) -> str:
    return f"{kind}-{number:020x}"


VOLUME = VolumeRecord(
    key=key("v", 1),
    name="claim-ä",
    state="ready",
    size_bytes=1 << 40,
    thick=True,
    charge_bytes=1 << 40,
    formatted="xfs",
    mkfs_options="-L data",
    source=f"local:{key('s', 9)}",
    recorded=dump({"provisioning": "thick", "b": "ü"}),
    created_us=1,
)
SNAPSHOT = SnapshotRecord(key("s", 1), "snap", "ready", VOLUME.key, "", 4096, 10, "", "{}", 1_700_000_000_123_456)


@pytest.fixture
def database(tmp_path: Path) -> Iterator[PoolDatabase]:
    opened = PoolDatabase(tmp_path / "pool.db")
    yield opened
    opened.close()


@pytest.fixture
def records(database: PoolDatabase) -> Records:
    return Records(database)


def put(database: PoolDatabase, *rows: VolumeRecord | SnapshotRecord | GroupRecord) -> None:
    database.insert([row_of(row) for row in rows])


def test_a_volume_comes_back_as_it_went_in(database: PoolDatabase, records: Records) -> None:
    put(database, VOLUME)
    assert records.volume(VOLUME.key) == records.volume_named("claim-ä") == VOLUME
    public = VOLUME.public("local")
    assert public.handle == f"local:{VOLUME.key}"
    assert public.recorded == {"provisioning": "thick", "b": "ü"}
    assert public.source == ContentSource(SourceKind.SNAPSHOT, VOLUME.source)
    clone = replace(VOLUME, source=f"local:{key('v', 9)}").public("local")
    assert clone.source is not None
    assert clone.source.kind is SourceKind.VOLUME


def test_a_snapshot_comes_back_as_it_went_in(database: PoolDatabase, records: Records) -> None:
    put(database, SNAPSHOT)
    assert records.snapshot(SNAPSHOT.key) == records.snapshot_named("snap") == SNAPSHOT
    public = SNAPSHOT.public("local")
    assert (public.volume_handle, public.group_handle) == (f"local:{VOLUME.key}", "")
    assert public.created_at.isoformat() == "2023-11-14T22:13:20.123456+00:00"


def test_pages_stay_stable_while_rows_come_and_go(database: PoolDatabase, records: Records) -> None:
    put(database, *(replace(VOLUME, key=key("v", n), name=str(n)) for n in range(0, 100, 2)))
    put(database, replace(VOLUME, key=key("v", 3), name="unfinished", state="creating"))
    first = records.volumes_after("", 20)
    records.discard(*(record.key for record in first[:10]))
    put(database, *(replace(VOLUME, key=key("v", n), name=str(n)) for n in range(1, 20, 4)))
    rest = records.volumes_after(first[-1].key, 100)
    assert [record.name for record in first + rest] == [str(n) for n in range(0, 100, 2)]


def test_snapshots_are_listed_by_volume(database: PoolDatabase, records: Records) -> None:
    put(
        database,
        *(
            replace(
                SNAPSHOT, key=key("s", n), name=f"{n}", volume_key=key("v", n % 3), state="ready" if n else "creating"
            )
            for n in range(12)
        ),
    )
    assert [s.name for s in records.snapshots_after("", 100)] == [str(n) for n in range(1, 12)]
    assert [s.name for s in records.snapshots_after("", 100, key("v", 0))] == ["3", "6", "9"]
    assert [s.name for s in records.snapshots_after(key("s", 3), 1, key("v", 0))] == ["6"]


def test_members_of_a_group_need_no_name(database: PoolDatabase, records: Records) -> None:
    group = GroupRecord(key("g", 1), "group", "ready", "{}", 1)
    members = [replace(SNAPSHOT, key=key("s", n), name=None, group_key=group.key) for n in (2, 3)]
    put(database, group, SNAPSHOT, *members)
    assert records.group_named("group") == records.group(group.key) == group
    assert records.members(group.key) == members
    assert records.members("") == []


def test_discarding_moves_the_charge_to_the_trash(database: PoolDatabase, records: Records) -> None:
    group = GroupRecord(key("g", 1), "group", "creating", "{}", 1)
    put(database, VOLUME, replace(SNAPSHOT, group_key=group.key, state="creating"), group)
    assert records.promised_bytes() == (1 << 40) + 10
    assert set(records.unfinished()) == {SNAPSHOT.key, group.key}
    assert records.discard(VOLUME.key, SNAPSHOT.key, group.key, key("v", 77)) == 3
    assert records.promised_bytes() == (1 << 40) + 10
    assert dict(records.trash("", 10)) == {VOLUME.key: 1 << 40, SNAPSHOT.key: 10}
    assert records.images_known([VOLUME.key, SNAPSHOT.key, key("v", 5)]) == {VOLUME.key, SNAPSHOT.key}
    records.forget_trash([VOLUME.key, SNAPSHOT.key])
    assert records.promised_bytes() == 0


def test_discarding_twice_is_harmless(database: PoolDatabase, records: Records) -> None:
    put(database, VOLUME)
    records.discard(VOLUME.key)
    assert records.discard(VOLUME.key) == 0
    assert records.trash("", 10) == [(VOLUME.key, 1 << 40)]
