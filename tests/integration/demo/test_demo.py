"""``csi-core demo`` from end to end: it finds what is wrong, and it leaves nothing behind, whatever happens to it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

CSI_CORE = [sys.executable, "-m", "csi_core.cli.main", "demo"]
TIMEOUT_S = 120
SECOND_VOLUME = "A volume: xfs-thin"


@pytest.fixture
def temporary(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The demo's TMPDIR; nothing may be in it, mounted below it or attached from it afterwards."""
    directory = tmp_path_factory.mktemp("d")
    yield directory
    assert list(directory.iterdir()) == []
    assert str(directory) not in Path("/proc/self/mountinfo").read_text(encoding="utf-8")
    backing = [path.read_text() for path in Path("/sys/block").glob("loop*/loop/backing_file")]
    assert not [file for file in backing if str(directory) in file]


def start(temporary: Path, *options: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*CSI_CORE, *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "TMPDIR": str(temporary), "PYTHONUNBUFFERED": "1"},
    )


def run(temporary: Path, *options: str) -> tuple[int, str]:
    demo = start(temporary, *options)
    output, _ = demo.communicate(timeout=TIMEOUT_S)
    return demo.returncode, output


def until(demo: subprocess.Popen[str], text: str) -> None:
    assert demo.stdout is not None
    for line in demo.stdout:
        if text in line:
            return
    raise AssertionError(f"the demo ended before {text!r}")


@pytest.mark.needs_root
@pytest.mark.needs_filesystem("xfs")
def test_loop_images(temporary: Path) -> None:
    status, output = run(temporary)
    assert status == 0, output
    assert "Everything matched and nothing is left behind." in output
    for shape in ("ext4-thin", "xfs-thin", "block-thin", "ext4-thick", "xfs-thick", "block-thick"):
        assert f"{shape}: the first snapshot, restored: all" in output
        assert f"{shape}: the read-only pod cannot write" in output
    assert output.count("changed blocks of 4 KiB were named") == 2


@pytest.mark.needs_root
def test_in_a_directory_that_is_there(temporary: Path, tmp_path: Path) -> None:
    status, output = run(temporary, "--pool-dir", str(tmp_path))
    assert status == 0, output
    assert list(tmp_path.iterdir()) == []


def test_simulator(temporary: Path) -> None:
    status, output = run(temporary, "--backend", "sim")
    assert status == 0, output
    assert "Everything matched and nothing is left behind." in output


@pytest.mark.needs_root
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_it_takes_everything_down(temporary: Path, number: int) -> None:
    demo = start(temporary)
    until(demo, SECOND_VOLUME)
    until(demo, "NodePublishVolume")
    demo.send_signal(number)
    output, _ = demo.communicate(timeout=TIMEOUT_S)
    assert demo.returncode == 1
    assert "interrupted" in output
    assert "left behind" not in output


@pytest.mark.needs_root
def test_when_the_server_dies_it_fails_and_sweeps(temporary: Path) -> None:
    demo = start(temporary)
    until(demo, SECOND_VOLUME)
    until(demo, "NodePublishVolume")
    os.kill(server_of(demo), signal.SIGKILL)
    output, _ = demo.communicate(timeout=TIMEOUT_S)
    assert demo.returncode == 1
    assert "UNAVAILABLE" in output
    assert "left behind: loop device" in output


def test_a_changed_byte_is_found(temporary: Path) -> None:
    demo = start(temporary, "--backend", "sim")
    until(demo, "the source is deleted")
    demo.send_signal(signal.SIGSTOP)
    snapshots = next(temporary.glob("csi-core-demo-*")).glob("pool/content/snapshot-*/lib/abc.py")
    for file in snapshots:
        file.write_bytes(b"#" + file.read_bytes())
    demo.send_signal(signal.SIGCONT)
    output, _ = demo.communicate(timeout=TIMEOUT_S)
    assert demo.returncode == 1
    assert "checksums differ" in output


def server_of(demo: subprocess.Popen[str]) -> int:
    children = Path(f"/proc/{demo.pid}/task/{demo.pid}/children").read_text(encoding="ascii").split()
    return next(int(pid) for pid in children if b"serve" in Path(f"/proc/{pid}/cmdline").read_bytes())
