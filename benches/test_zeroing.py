"""What the neighbours in a packed pool feel while a deleted volume's extents are filled with zeros."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from backends.loop.database import PoolDatabase
from backends.loop.extents import preparing
from backends.loop.options import LoopParameters, SegmentOptions
from backends.loop.plugin import LoopBackend
from benches.ratios import Bound, Findings
from benches.scale import SCALE
from csi_core.model import AccessMode, AttachRequest, SizeRange, VolumeCapability, VolumeMode, VolumeSpec
from csi_core.parameters import Parameters

MIB = 1 << 20
NEIGHBOUR_BYTES = 128 * MIB
RUNTIME_S = min(SCALE.fio_seconds, 2)
DELETED_BYTES = 256 * MIB * RUNTIME_S
"""Not zeroed at a fifth of the time before the run is over."""
RAW = VolumeCapability(VolumeMode.BLOCK, AccessMode.SINGLE_NODE_WRITER)
THICK = LoopParameters.model_validate({"provisioning": "thick"})
NEIGHBOURS = {"direct": ("4 KiB writes, direct", []), "durable": ("4 KiB writes, each durable", ["--sync=1"])}


class NodeHost:
    """Nothing is frozen or grown here."""

    node_id = "bench-node"
    backend_name = "loop"


@pytest.fixture(scope="module")
def backend(directory: Path) -> Iterator[LoopBackend]:
    """A pool of one segment in a file, written with zeros as ``csi-core pool create`` does it."""
    path = directory / "zeroing"
    path.mkdir()
    database = PoolDatabase(path / "pool.db")
    segment = SegmentOptions(path=path / "segment", size=NEIGHBOUR_BYTES + DELETED_BYTES + 8 * MIB)
    preparing.create(database, [segment], MIB, force=False, progress=lambda *_: None)
    database.close()
    pool = {"path": str(path), "layout": "extents", "stopAt": 1.0, "warnAt": 1.0}
    backend = LoopBackend({"pools": {"bench": pool}})
    backend.start(NodeHost())  # type: ignore[arg-type]
    yield backend
    backend.stop()


@contextmanager
def attached(backend: LoopBackend, name: str, size_bytes: int) -> Iterator[Path]:
    """A raw block volume; deleted in the end."""
    volume = backend.create_volume(VolumeSpec(name, SizeRange(size_bytes), (RAW,), THICK)).value
    try:
        yield backend.attach_volume(AttachRequest(volume.handle, RAW)).device
    finally:
        backend.detach_volume(volume.handle)
        backend.delete_volume(volume.handle, Parameters())


def fill(device: Path) -> None:
    """With something that is not zero, or there is nothing to do afterwards."""
    block = os.urandom(MIB)
    with device.open("rb+", buffering=0) as file:
        while file.write(block):
            if file.tell() == DELETED_BYTES:
                break
        os.fsync(file.fileno())


@pytest.mark.parametrize("key", NEIGHBOURS)
def test_zeroing_beside_a_neighbour(benchmark, backend: LoopBackend, key: str, findings: Findings) -> None:
    title, options = NEIGHBOURS[key]
    (pool,) = backend._pools
    beside_s, alone_s = [], []
    with attached(backend, f"neighbour-{key}", NEIGHBOUR_BYTES) as neighbour:

        def turn() -> None:
            with attached(backend, f"deleted-{key}-{len(alone_s)}", DELETED_BYTES) as device:
                fill(device)
                alone_s.append(p99_s(neighbour, options))
            beside_s.append(p99_s(neighbour, options))  # it has just been deleted
            assert not pool.trash.emptied(0), "it was zeroed before the neighbour had written enough"
            assert pool.trash.emptied(60)

        benchmark.pedantic(turn, rounds=SCALE.fio_pairs)
    assert pool.trash.emptied(60)  # of the neighbour, too
    findings.add(
        f"zeroing-{key}",
        f"p99 beside zeroing, {title}",
        statistics.median(beside / alone for beside, alone in zip(beside_s, alone_s, strict=True)),
        Bound(high=2.0, gate_high=6.0),
        subject=f"{statistics.median(beside_s) * 1e3:.3g} ms",
        floor=f"{statistics.median(alone_s) * 1e3:.3g} ms with nothing to zero",
        note="the ratio is the median over pairs of runs, one after the other",
    )


def p99_s(device: Path, options: list[str]) -> float:
    """Of the writes of one neighbour that writes one after the other, in seconds."""
    argv = ["fio", "--name=bench", f"--filename={device}", "--rw=randwrite", "--bs=4k", "--direct=1"]
    argv += ["--ioengine=psync", "--time_based", f"--runtime={RUNTIME_S}", "--output-format=json"]
    done = subprocess.run([*argv, *options], check=True, capture_output=True, text=True)
    found = json.loads(done.stdout)["jobs"][0]["write"]["clat_ns"]["percentile"]
    return float(found["99.000000"]) / 1e9
