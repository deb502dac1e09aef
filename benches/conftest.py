"""Servers, pools and floors for the benches; the table at the end of the run."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from benches import results
from benches.driver import Driver
from benches.floors import CommitFloor
from benches.ratios import Findings
from benches.scale import FULL, SCALE

BENCHES = set(Path(__file__).parent.glob("test_*.py"))
_findings = pytest.StashKey[Findings]()
_directory = pytest.StashKey[Path]()
_committed = pytest.StashKey[results.Result]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--pool-dir",
        default="/var/tmp",
        help="directory on the filesystem to measure on; no tmpfs, which has no disk to wait for",
    )


def pytest_configure(config: pytest.Config) -> None:
    config.option.benchmark_columns = ["min", "median", "iqr", "rounds"]
    config.stash[_findings] = Findings()
    config.stash[_committed] = results.load()
    config.stash[_directory] = Path(config.getoption("--pool-dir"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if os.geteuid() != 0:
            item.add_marker(pytest.mark.skip(reason="loop devices and mounts need root"))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    findings = config.stash[_findings]
    if not findings.all:
        return
    terminalreporter.section(f"ratios ({SCALE.form} form)")
    for line in results.table(findings, config.stash[_committed]):
        terminalreporter.write_line(line)
    if SCALE is not FULL:
        terminalreporter.write_line("The short form finds what broke; its figures are rough, fio's above all.")


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    findings = session.config.stash[_findings]
    whole = not session.config.option.keyword and {item.path for item in session.items} == BENCHES
    if SCALE is FULL and whole and exitstatus == pytest.ExitCode.OK:
        results.save(findings, session.config.stash[_directory])


@pytest.fixture(scope="session")
def findings(request: pytest.FixtureRequest) -> Findings:
    """Where a bench records what it found."""
    return request.config.stash[_findings]


@pytest.fixture(scope="session")
def directory(request: pytest.FixtureRequest) -> Iterator[Path]:
    """A directory on the filesystem that is measured on."""
    path = Path(tempfile.mkdtemp(prefix="csi-core-bench-", dir=request.config.stash[_directory]))
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture(scope="session")
def driver(directory: Path) -> Iterator[Driver]:
    """A server with a small pool."""
    with Driver(directory / "small") as driver:
        yield driver


@pytest.fixture(scope="session")
def large_driver(directory: Path) -> Iterator[Driver]:
    """A server whose pool holds ``SCALE.volumes`` volumes, all created through CreateVolume."""
    with Driver(directory / "large") as driver:
        driver.fill(SCALE.volumes)
        yield driver


@pytest.fixture(scope="session")
def commit_floor(directory: Path) -> Iterator[CommitFloor]:
    """A durable SQLite commit on the filesystem of the pools."""
    floor = CommitFloor(directory / "floor.db")
    yield floor
    floor.close()
