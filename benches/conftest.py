"""Servers, pools and floors for the benches; the table at the end of the run."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Generator, Iterator
from dataclasses import asdict, replace
from pathlib import Path

import guest_features
import guest_plugin
import pytest
from guest_scratch import scratch_disks  # noqa: F401 - a fixture

from benches import results
from benches.driver import Driver
from benches.floors import CommitFloor
from benches.ratios import Finding, Findings
from benches.scale import FULL, SCALE

BENCHES = set(Path(__file__).parent.glob("test_*.py"))
FINDING = "finding"
_findings = pytest.StashKey[Findings]()
_directory = pytest.StashKey[Path]()
_committed = pytest.StashKey[results.Result]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--pool-dir",
        default="/var/tmp",
        help="directory on the filesystem to measure on; no tmpfs, which has no disk to wait for",
    )


class FromGuest:
    """Takes what benches in a guest have found out of their reports."""

    def __init__(self, findings: Findings) -> None:
        self._findings = findings

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call":
            self._findings.all += [Finding(**value) for name, value in report.user_properties if name == FINDING]


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", f"needs_kernel(feature): {guest_plugin.lacks_kernel.__doc__}")
    config.option.benchmark_columns = ["min", "median", "iqr", "rounds"]
    config.stash[_findings] = Findings()
    config.stash[_committed] = results.load()
    config.stash[_directory] = Path(config.getoption("--pool-dir"))
    # Not beside others: they share the machine's CPUs with what is measured.
    guest_plugin.register(config, group_of=lambda item: "benches", beside=False)
    if not guest_features.in_guest():
        config.pluginmanager.register(FromGuest(config.stash[_findings]))


def pytest_runtest_setup(item: pytest.Item) -> None:
    for marker in item.iter_markers("needs_kernel"):
        if missing := guest_plugin.lacks_kernel(*marker.args):
            pytest.skip(missing)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if guest_features.in_guest() and report.when == "call":
        found = item.config.stash[_findings].all
        report.user_properties += [(FINDING, asdict(replace(finding, note=_noted(finding.note)))) for finding in found]
        found.clear()
    return report


def _noted(note: str) -> str:
    return "; ".join(filter(None, [note, "measured in a User Mode Linux guest"]))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=guest_plugin.runs_in_guest)
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
