"""What the neighbours in a packed pool feel while a deleted volume's extents are filled with zeros."""

from __future__ import annotations

import json
import os
import signal
import statistics
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Self

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
RUNTIME_S = SCALE.fio_seconds
DELETED_BYTES = 512 * MIB * RUNTIME_S
ENOUGH_WRITES = 200
"""Fewer have no 99th percentile worth the name."""
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
            with ExitStack() as until_zeroed:
                with attached(backend, f"deleted-{key}-{len(alone_s)}", DELETED_BYTES) as device:
                    fill(device)
                    with Writer(neighbour, options) as alone:
                        time.sleep(RUNTIME_S)
                    beside = until_zeroed.enter_context(Writer(neighbour, options))
                end = time.monotonic() + RUNTIME_S
                while not pool.trash.emptied(0) and time.monotonic() < end:  # to wait in it would hurry it
                    time.sleep(0.01)
            alone_s.append(alone.p99_s)
            beside_s.append(beside.p99_s)
            assert pool.trash.emptied(60)

        benchmark.pedantic(turn, rounds=SCALE.bursts)
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


class Writer:
    """A neighbour that writes one block after the other, from the entry of the context to its exit."""

    p99_s: float
    """Of its writes, in seconds; there once the context is left."""

    def __init__(self, device: Path, options: list[str]) -> None:
        argv = ["fio", "--name=bench", f"--filename={device}", "--rw=randwrite", "--bs=4k", "--direct=1"]
        argv += ["--ioengine=psync", "--time_based", "--runtime=60", "--output-format=json"]
        self._argv = argv + options
        self._counts = Path("/sys/block", device.resolve().name, "stat")

    def __enter__(self) -> Self:
        before = self._written()
        self._fio = subprocess.Popen(self._argv, stdout=subprocess.PIPE, text=True)
        while self._written() == before:
            assert self._fio.poll() is None, "fio ended before it had written anything"
            time.sleep(0.005)
        return self

    def __exit__(self, *_: object) -> None:
        self._fio.send_signal(signal.SIGINT)  # it tells what it has measured
        out, _err = self._fio.communicate(timeout=60)
        done = json.loads(out[out.index("{") :])["jobs"][0]["write"]
        assert done["total_ios"] >= ENOUGH_WRITES, f"{done['total_ios']} writes only"
        self.p99_s = float(done["clat_ns"]["percentile"]["99.000000"]) / 1e9

    def _written(self) -> int:
        """Writes that the device has completed."""
        return int(self._counts.read_text().split()[4])
