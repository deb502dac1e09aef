"""The source distribution is enough to build from: pip installs it into an environment that has nothing."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[2]
MATURIN = Path(sys.executable).with_name("maturin")


def command(*argv: str | Path, cwd: Path, **environment: str) -> str:
    run = subprocess.run(
        argv, cwd=cwd, env=os.environ | environment, capture_output=True, text=True, check=False, timeout=600
    )
    assert run.returncode == 0, f"{argv}:\n{run.stdout}\n{run.stderr}"
    return run.stdout


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("sdist")
    command(MATURIN, "sdist", "--out", out, cwd=CHECKOUT)
    (archive,) = out.glob("csi_core-*.tar.gz")
    return archive


@pytest.mark.needs_cargo
def test_it_holds_sources_and_nothing_that_was_built(sdist: Path) -> None:
    with tarfile.open(sdist) as archive:
        names = {name.split("/", 1)[1] for name in archive.getnames() if "/" in name}
    assert {"pyproject.toml", "LICENSE", "README.md", "csi_core/py.typed", "csi_core/_allocator.pyi"} <= names
    assert any(name.endswith("Cargo.lock") for name in names)
    assert not [name for name in names if name.endswith((".so", ".pyc")) or "/target/" in name]


@pytest.mark.needs_cargo
def test_pip_builds_it_in_a_fresh_environment(sdist: Path, tmp_path: Path) -> None:
    venv = tmp_path / "venv"
    command(sys.executable, "-m", "venv", venv, cwd=tmp_path)
    # Compiled dependencies are shared with the checkout to save a minute; the sources are the archive's own.
    compiled = CHECKOUT / "allocator_rs" / "target"
    command(venv / "bin" / "pip", "install", sdist, cwd=tmp_path, CARGO_TARGET_DIR=str(compiled))
    said = command(
        venv / "bin" / "python",
        "-c",
        "import csi_core, backends.loop, csi_core._allocator as a; print(csi_core.__version__, a.__file__)",
        cwd=tmp_path,
    )
    version, extension = said.split()
    assert Path(extension).is_relative_to(venv)
    assert sdist.name == f"csi_core-{version}.tar.gz"
    assert command(venv / "bin" / "csi-core", "--help", cwd=tmp_path)
