"""The example in docs/examples passes its own tests, and is found, once installed, by its entry point.

It is installed as a stranger's package would be, into a directory of its own.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from csi_core.testing.harness import ServerProcess, create_request

EXAMPLE = Path(__file__).parents[2] / "docs" / "examples" / "csi_core_directory"


def installed(directory: Path) -> Path:
    """The example as an installer leaves it: the package, and a dist-info with the entry point."""
    package, info = directory / "csi_core_directory", directory / "csi_core_directory-0.1.0.dist-info"
    package.symlink_to(EXAMPLE / "csi_core_directory", target_is_directory=True)
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: csi-core-directory\nVersion: 0.1.0\n")
    entry_point = "directory = csi_core_directory:DirectoryBackend"
    assert entry_point.replace("= ", '= "') in (EXAMPLE / "pyproject.toml").read_text()
    (info / "entry_points.txt").write_text(f"[csi_core.backends]\n{entry_point}\n")
    return directory


def test_example_passes_the_kit(tmp_path: Path) -> None:
    argv = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(EXAMPLE / "tests")]
    path = os.pathsep.join([str(installed(tmp_path)), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(
        argv,
        cwd=EXAMPLE,
        env={**os.environ, "PYTHONPATH": path},
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "skipped" not in done.stdout
    assert int(done.stdout.split(" passed")[0].split()[-1]) >= 45


def test_example_serves(tmp_path: Path) -> None:
    (tmp_path / "site").mkdir()
    (tmp_path / "volumes").mkdir()
    config = {
        "node": {"mounts": "simulated"},
        "backends": {"directory": {"options": {"path": str(tmp_path / "volumes"), "capacity": "1Gi"}}},
    }
    with ServerProcess(config, tmp_path, env={"PYTHONPATH": str(installed(tmp_path / "site"))}) as server:
        volume = server.controller.CreateVolume(create_request("data", 1 << 20)).volume
        server.kill()
        server.restart()
        assert server.controller.CreateVolume(create_request("data", 1 << 20)).volume == volume


def test_example_is_short() -> None:
    source = (EXAMPLE / "csi_core_directory" / "__init__.py").read_text().splitlines()
    assert len(source) < 180
