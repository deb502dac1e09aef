"""csi-core pool, as an administrator uses it."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from xml.etree import ElementTree

import pytest
import yaml
from click.testing import CliRunner

from backends.loop import pool as pool_module
from backends.loop.extents import preparing
from backends.loop.extents.devices import Devices
from backends.loop.extents.segments import aligned_buffer
from backends.loop.plugin import LoopBackend
from csi_core._allocator import data_ranges, fiemap
from csi_core.cli.main import main
from csi_core.errors import ConfigError, FailedPrecondition, Unavailable
from csi_core.testing.devices import ext4_filesystem, scratch_directory, xfs_filesystem

from .cluster import MIB, RAW, Cluster, NodeHost, read_block, write_block
from .conftest import take_down
from .extent_pools import free_bytes_are_zeros

Run = Callable[..., str]


@pytest.fixture(scope="module")
def host() -> Iterator[Path]:
    with xfs_filesystem(512 * MIB) as host:
        yield host


@pytest.fixture
def directory(host: Path) -> Iterator[Path]:
    directory = host / "pool"
    directory.mkdir()
    yield directory
    shutil.rmtree(directory)


@pytest.fixture
def options(directory: Path) -> dict[str, object]:
    segments = [{"path": str(directory / "one"), "size": "33Mi"}]
    return {"path": str(directory), "layout": "extents", "allowLoopHost": True, "segments": segments}


@pytest.fixture
def pool(options: dict[str, object], tmp_path: Path) -> Run:
    """Run a subcommand with the configuration as it is at that moment."""

    def run(command: str, *arguments: object, code: int = 0) -> str:
        path = tmp_path / "config.yaml"
        path.write_text(
            yaml.safe_dump({"driver": {"name": "a.b"}, "backends": {"loop": {"options": {"pools": {"p": options}}}}})
        )
        argv = ["pool", command, "p", "--config", str(path), *map(str, arguments)]
        result = CliRunner().invoke(main, argv, prog_name="csi-core")
        assert result.exit_code == code, result.output + repr(result.exception)
        return result.output

    return run


@pytest.fixture
def serve(options: dict[str, object]) -> Iterator[Callable[[], Cluster]]:
    """Serve the pool; in the end whatever serves it is taken down."""
    serving: list[Cluster] = []

    def start() -> Cluster:
        with scratch_directory() as mounts:
            serving.append(Cluster({"pools": {"p": options}}, mounts))
        return serving[-1]

    yield start
    for cluster in serving:
        take_down(cluster)


def thick(cluster: Cluster, name: str, size_bytes: int):
    return cluster.create(name, size_bytes, capability=RAW, provisioning="thick")


def test_a_pool_is_made_grown_and_shown(pool: Run, options, directory: Path, serve) -> None:
    assert "32 MiB" in pool("create")
    assert "made already" in pool("create")
    cluster = serve()
    write_block(cluster.attach(thick(cluster, "a", 16 * MIB)).device, 0, b"x" * MIB)
    options["segments"].append({"path": str(directory / "two"), "size": "17Mi"})  # type: ignore[attr-defined]
    assert json.loads(pool("grow", "-o", "json")) == [
        {"segment": f"{directory}/two", "number": 1, "addedBytes": 16 * MIB}
    ]
    shown = json.loads(pool("show", "-o", "json"))[0]
    assert (shown["volumes"], shown["statistics"]["extents"], shown["statistics"]["free_extents"]) == (1, 48, 32)
    text = pool("show")
    assert "16 MiB" in text
    assert "█" in text
    assert "·" in text
    assert "Nothing is wrong" in pool("check")


def test_the_map_is_a_picture(pool: Run, serve, tmp_path: Path) -> None:
    pool("create")
    cluster = serve()
    cluster.snapshot("s", thick(cluster, "a", 8 * MIB))
    gone = cluster.key(thick(cluster, "gone", 8 * MIB))
    cluster.pool.database.execute("INSERT INTO trash VALUES (?, 0)", (gone,))  # not zeroed yet
    text = pool("show", "--image", tmp_path / "map.svg")
    assert {"█", "▓", "▒", "·"} <= set(text.split("█ volume")[0]), "before the legend"
    root = ElementTree.fromstring((tmp_path / "map.svg").read_text())
    colours = [rect.get("fill") for rect in root.iter("{http://www.w3.org/2000/svg}rect")]
    assert {"#3b6ea8", "#6aa84f", "#cc8400", "#e6e6e6"} <= set(colours[:-4]), "before the legend"
    pool("show", "--image", tmp_path / "map.png")
    content = (tmp_path / "map.png").read_bytes()
    assert content.startswith(b"\x89PNG\r\n\x1a\n")
    width, height, depth, colour_type = struct.unpack_from(">2I2B", content, 16)
    assert (depth, colour_type) == (8, 3)
    at = content.index(b"IDAT")
    (length,) = struct.unpack_from(">I", content, at - 4)
    pixels = zlib.decompress(content[at + 4 : at + 4 + length])
    assert len(pixels) == height * (width + 1)
    assert {0, 1, 2, 3} <= set(pixels[1:])
    assert "ends in .svg or .png" in pool("show", "--image", tmp_path / "map.jpeg", code=2)


def test_check_finds_what_is_wrong(pool: Run, serve, directory: Path) -> None:
    pool("create")
    cluster = serve()
    volume = thick(cluster, "a", 8 * MIB)
    assert "served by another process" in pool("check", "--zeros", code=1)
    cluster.backend.stop()
    assert "Nothing is wrong" in pool("check", "--zeros")
    with (directory / "one").open("r+b") as segment:
        segment.seek(32 * MIB + 4096)
        segment.write(b"from outside")
    assert "stale data" in pool("check", "--zeros", code=1)
    cluster.start()
    cluster.pool.database.execute("DELETE FROM run WHERE key = ?", (cluster.key(volume),))
    found = json.loads(pool("check", "-o", "json", code=1))
    assert [(f["subject"], f["problem"]) for f in found] == [(cluster.key(volume), "lost extents")]
    cluster.pool.database.execute("INSERT INTO run VALUES ('v-x', 0, 0, 0, 4)")
    assert "extents of nobody" in pool("check", code=1)
    cluster.pool.database.execute("DELETE FROM run")
    cluster.pool.database.execute("INSERT INTO run VALUES (?, 0, 0, 8, 8)", (cluster.key(volume),))


def test_defrag_moves_volumes_together_and_nothing_of_them_is_lost(pool: Run, serve) -> None:
    pool("create")
    cluster = serve()
    volumes = [thick(cluster, f"v{n}", 4 * MIB) for n in range(8)]
    for number, volume in enumerate(volumes):
        write_block(cluster.attach(volume).device, 0, bytes([number + 1]) * (4 * MIB))
        cluster.detach(volume)
    by_place = sorted(volumes, key=lambda volume: cluster.pool.records.runs(cluster.key(volume)))
    for volume in by_place[::2]:
        cluster.delete(volume)
    cluster.settled()
    assert cluster.pool.layout.largest_free_bytes(thick=True) == 4 * MIB
    attached = cluster.attach(by_place[3])
    assert "served by another process" in pool("defrag", code=1)
    cluster.backend.stop()
    assert "4 MiB before" in pool("defrag")
    cluster.start()
    assert cluster.pool.layout.largest_free_bytes(thick=True) >= 12 * MIB
    assert cluster.attach(by_place[3]) == attached, "what is in use stays where it is"
    for volume in by_place[1::2]:
        number = volumes.index(volume)
        assert set(read_block(cluster.attach(volume).device, 0, 4 * MIB)) == {number + 1}
    assert free_bytes_are_zeros(cluster.pool.layout)


def test_defrag_brings_the_pieces_of_a_volume_together(pool: Run, serve) -> None:
    """So that a kernel without device-mapper can attach what one with it has made."""
    pool("create")
    cluster = serve()
    volumes = [thick(cluster, f"v{n}", 4 * MIB) for n in range(8)]
    by_place = sorted(volumes, key=lambda volume: cluster.pool.records.runs(cluster.key(volume)))
    for volume in by_place[::2]:
        cluster.delete(volume)
    cluster.settled()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Devices, "max_runs", 64)
        large = thick(cluster, "large", 8 * MIB)
    key = cluster.key(large)
    assert len(cluster.pool.records.runs(key)) == 2
    with pytest.raises(FailedPrecondition, match="2 pieces.*csi-core pool defrag"):
        cluster.attach(large)
    content, buffer = cluster.pool.layout.content(key), aligned_buffer(MIB)
    for offset, segment, at, _ in content.slices(0, 8 * MIB):
        buffer[:] = bytes([offset // MIB + 1]) * MIB
        os.pwrite(segment.descriptor, buffer, at)
    cluster.delete(by_place[1])  # now there is room for it in one piece
    cluster.backend.stop()
    pool("defrag")
    cluster.start()
    assert len(cluster.pool.records.runs(key)) == 1
    assert cluster.pool.layout.largest_free_bytes(thick=True) == cluster.pool.layout.space()[1] == 12 * MIB
    found = read_block(cluster.attach(large).device, 0, 8 * MIB)
    assert found == b"".join(bytes([number + 1]) * MIB for number in range(8))
    assert free_bytes_are_zeros(cluster.pool.layout)


def test_every_block_is_written_while_a_bar_shows_how_far_it_is(
    options: dict[str, object], directory: Path, tmp_path: Path
) -> None:
    """Preallocated would not do: the first writes of every volume would change the map of the shared file."""
    config = {"driver": {"name": "a.b"}, "backends": {"loop": {"options": {"pools": {"p": options}}}}}
    path = tmp_path / "config.json"
    path.write_text(json.dumps(config))  # which is YAML, too
    shown = on_a_terminal("pool", "create", "p", "--config", str(path))
    assert f"zeros to {directory}/one" in shown
    assert "33.0/33.0 MiB" in shown
    assert "━━━" in shown
    with (directory / "one").open("rb") as file:
        written = data_ranges(fiemap(file.fileno()))  # without what is only preallocated
        assert sum(length for _, length in struct.iter_unpack("=2Q", written)) == 33 * MIB
        assert not any(file.read()[MIB:])


def on_a_terminal(*arguments: str) -> str:
    """What csi-core shows to somebody who sits before it."""
    ours, theirs = os.openpty()
    environment = {**os.environ, "COLUMNS": "200", "TERM": "xterm"}
    argv = [sys.executable, "-P", "-m", "csi_core.cli.main", *arguments]
    with subprocess.Popen(argv, stdin=theirs, stdout=theirs, stderr=theirs, env=environment) as process:
        os.close(theirs)
        shown = b""
        with suppress(OSError):  # how the end of a terminal is told
            while more := os.read(ours, 4096):
                shown += more
        os.close(ours)
        assert process.wait(10) == 0, shown
    return shown.decode()


def test_a_server_waits_for_its_pool_to_be_made(
    pool: Run, options: dict[str, object], directory: Path, serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It must run for the command to be given in its container; and it may look while the command is at work."""
    with pytest.raises(Unavailable, match="csi-core pool create p"):
        serve()
    assert list(directory.iterdir()) == [], "nothing was written: it may be the mount point of a missing disk"
    tried = []

    def meanwhile(*_: object, real=preparing._zeroed, **__: object) -> None:
        with pytest.raises(Unavailable, match="csi-core pool create p"):
            serve()
        tried.append(pool("create", code=1))
        tried.append(pool("grow", code=1))
        real(*_, **__)

    monkeypatch.setattr(preparing, "_zeroed", meanwhile)
    assert "32 MiB" in pool("create")
    assert len(tried) == 2
    assert all("another csi-core pool create or grow is at work" in said for said in tried)
    thick(serve(), "a", 16 * MIB)
    assert "made already" in pool("create"), "while it is served"


def test_a_segment_that_the_filesystem_cannot_hold_takes_nothing(pool: Run, options: dict[str, object]) -> None:
    with ext4_filesystem(60 * MIB) as other:
        segment = {"path": str(other / "one"), "size": "1Gi"}
        options["segments"] = [segment]
        assert "No space left on device" in pool("create", code=1)
        segment["size"] = "20Mi"
        assert "19 MiB" in pool("create")
        segment["size"] = "1Gi"
        assert "No space left on device" in pool("grow", code=1)
        assert (other / "one").stat().st_size == 20 * MIB
        segment["size"] = "30Mi"
        assert "10 MiB" in pool("grow")


def test_only_create_makes_a_database(pool: Run, options: dict[str, object], directory: Path) -> None:
    """On the mount point of a missing disk it would pass for the pool's."""
    for command in ("grow", "show", "check", "defrag"):
        assert "csi-core pool create" in pool(command, code=1)
    options["requireMount"] = True
    assert "nothing is mounted there" in pool("create", code=1)
    options["requireMount"] = False
    segments = options.pop("segments")
    assert "segments" in pool("create", code=1)
    assert list(directory.iterdir()) == []
    options["segments"] = segments


def test_a_pool_whose_database_is_missing_is_not_made_anew(pool: Run, directory: Path, serve) -> None:
    pool("create")
    cluster = serve()
    volume = thick(cluster, "a", 16 * MIB)
    cluster.backend.stop()
    (directory / "pool.db").rename(directory / "saved")
    with pytest.raises(Unavailable, match="where a disk must be mounted first"):
        LoopBackend(cluster.options).start(NodeHost())
    assert "segment 0 of pool" in pool("create", code=1)
    with pytest.raises(Unavailable, match="where a disk must be mounted first"):
        LoopBackend(cluster.options).start(NodeHost())
    (directory / "saved").rename(directory / "pool.db")
    cluster.start()
    assert cluster.backend.list_volumes("", 2).entries == (volume,)


def test_a_segment_under_a_new_name_is_known_by_its_label(
    pool: Run, options: dict[str, object], directory: Path
) -> None:
    pool("create")
    (directory / "one").rename(directory / "moved")
    options["segments"][0]["path"] = str(directory / "moved")  # type: ignore[index]
    assert "segment 0 of this pool already" in pool("grow", "--force", code=1)
    with closing(sqlite3.connect(directory / "pool.db")) as database, database:
        database.execute("UPDATE segment SET path = ? WHERE number = 0", (str(directory / "moved"),))
    assert "at their full length" in pool("grow")


def test_a_pool_with_images_is_not_made_a_packed_one(
    pool: Run, options: dict[str, object], serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool_module, "_LOCK_WAIT_S", 0.2)
    segments = options.pop("segments")
    options["layout"] = "images"
    cluster = serve()
    packed = {"layout": "extents", "segments": segments}
    options |= packed
    assert "served by another process" in pool("create", code=1), "the server's configuration is the old one"
    volume = cluster.create("a", MIB)
    cluster.snapshot("s", volume)
    cluster.delete(volume)
    cluster.settled()
    cluster.backend.stop()
    assert "this pool holds images" in pool("create", code=1)
    with pytest.raises(ConfigError, match="layout must be images"):
        LoopBackend({"pools": {"p": options}}).start(NodeHost())
    del options["segments"]
    options["layout"] = "images"
    cluster.start()
    assert len(cluster.backend.list_snapshots("", 2, "").entries) == 1


def test_what_is_there_is_not_overwritten_unless_told(pool: Run, directory: Path) -> None:
    (directory / "one").write_bytes(b"precious" * 100)
    assert "--force" in pool("create", code=1)
    assert (directory / "one").read_bytes() == b"precious" * 100
    assert "32 MiB" in pool("create", "--force")
