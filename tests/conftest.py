"""Test tiers: one directory each, from quick to slow, one line each at the end of the run.

A test that this machine cannot run is skipped and the reason is in its tier's line. With
``CSICORE_STRICT=1``, and by default where ``CI`` is set, every such skip is a failure instead: a
machine that is meant to run everything must not pass by running less.
"""

from __future__ import annotations

import os
import shutil
import signal
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import guest_plugin
import pytest
from guest_scratch import scratch_disks  # noqa: F401 - a fixture

TIERS = (
    *("unit", "rust", "packaging", "conformance", "integration", "sanity", "crash", "deploy"),
    *("lvm", "nfs", "kernel"),
)
ON_REQUEST = frozenset({"kubernetes"})
"""A run of everything leaves them out: what they need takes longer to build than all of it takes to run."""
WAITING_TIERS = frozenset({"conformance", "crash"})
"""They start servers and wait for them, as the tests of killed backends in other tiers do: in a run of everything they
run beside the rest."""
GUESTS = ("lvm", "nfs", "kernel", "deploy")
"""In the order in which guests are booted for their tests: what takes longest first, so that CPUs end together."""
TESTS = Path(__file__).parent
CAP_SYS_ADMIN = 1 << 21
SHOWN_BYTES = 4096
"""Longer content is not shown in full where it differs."""
SBIN = ("/usr/local/sbin", "/usr/sbin", "/sbin")

Session = pytest.Session
Report = pytest.TestReport | pytest.CollectReport


def strict() -> bool:
    """Whether a skip is a failure."""
    said = os.environ.get("CSICORE_STRICT")
    return said == "1" if said is not None else os.environ.get("CI", "").lower() in ("1", "true")


# -- what a machine can be short of: each answers "" or what is missing and how to get it ----------


def lacks_root() -> str:
    """Loop devices and mounts: root alone is not it, a container's root often has no CAP_SYS_ADMIN."""
    if os.geteuid() != 0:
        return "needs root, for loop devices and mounts"
    status = Path("/proc/self/status").read_text(encoding="ascii")
    effective = next(line for line in status.splitlines() if line.startswith("CapEff:"))
    if not int(effective.split()[1], 16) & CAP_SYS_ADMIN:
        return "needs CAP_SYS_ADMIN, for loop devices and mounts (container: --privileged)"
    if not Path("/dev/loop-control").exists():
        return "needs /dev/loop-control (modprobe loop; container: --privileged and -v /dev:/dev)"
    return ""


def lacks_tool(name: str) -> str:
    """A program on the path, /sbin included."""
    if shutil.which(name, path=os.pathsep.join([os.environ.get("PATH", ""), *SBIN])):
        return ""
    return f"needs {name}, which is not installed"


def lacks_go() -> str:
    """csi-sanity is built from its Go module."""
    return lacks_tool("go") and "needs Go, to build csi-sanity (https://go.dev/dl)"


def lacks_cargo() -> str:
    """The crates' own tests."""
    return lacks_tool("cargo") and "needs cargo (https://rustup.rs)"


def lacks_filesystem(fs_type: str) -> str:
    """A filesystem that this kernel mounts and this machine makes."""
    module = next(Path("/lib/modules", os.uname().release).glob(f"kernel/fs/{fs_type}/{fs_type}.ko*"), None)
    known = {line.split()[-1] for line in Path("/proc/filesystems").read_text(encoding="ascii").splitlines()}
    if fs_type not in known and not module:
        return f"needs a kernel with {fs_type}"
    return lacks_tool(f"mkfs.{fs_type}")


NEEDS: dict[str, Callable[..., str]] = {
    "needs_root": lacks_root,
    "needs_tool": lacks_tool,
    "needs_go": lacks_go,
    "needs_cargo": lacks_cargo,
    "needs_filesystem": lacks_filesystem,
    "needs_kernel": guest_plugin.lacks_kernel,
}


def build_for(items: Sequence[pytest.Item]) -> None:
    """What items of a guest need to be built: there is no network in there."""
    if any("image" in getattr(item, "fixturenames", ()) for item in items):
        import helm
        import image

        image.build()
        helm.render(*helm.drivers()[:1])  # builds Helm
    elif any(item.get_closest_marker("needs_go") for item in items) and not lacks_go():
        import csi_sanity

        csi_sanity.build()


def pytest_configure(config: pytest.Config) -> None:
    for name, check in NEEDS.items():
        arguments = "(name)" if check.__code__.co_argcount else ""
        config.addinivalue_line("markers", f"{name}{arguments}: {check.__doc__}")
    config.stash[TALLY] = {}
    guest_plugin.register(
        config,
        group_of=lambda item: tier_of(item.path),
        beside=True,
        before_boot=build_for,
        waits=lambda item: everything(config) and waits(item),
    )
    # A shell's background job ignores Ctrl-C, and so would every process that the tests start and interrupt.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    for name, check in NEEDS.items():
        for marker in item.iter_markers(name):
            if missing := check(*marker.args):
                pytest.skip(missing)


def refuse_skip(report: Report) -> None:
    """Make a skip a failure that says what was missing."""
    if not report.skipped or hasattr(report, "wasxfail"):
        return
    report.outcome = "failed"
    report.longrepr = f"skipped, which a strict run does not allow: {reason_of(report)}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if strict():
        refuse_skip(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    if strict():
        refuse_skip(report)
    return report


def pytest_assertrepr_compare(op: str, left: object, right: object) -> list[str] | None:
    """Where large content differs: pytest's own comparison of two megabytes takes hours, which CI asks for."""
    if op != "==" or not isinstance(left, bytes) or not isinstance(right, bytes):
        return None
    if len(left) + len(right) < SHOWN_BYTES:
        return None
    at = next((at for at, (one, other) in enumerate(zip(left, right, strict=False)) if one != other), None)
    if at is None:
        return [f"{len(left)} bytes == {len(right)} bytes: one begins with the other"]
    here = slice(at, at + 16)
    return [f"{len(left)} bytes == {len(right)} bytes", f"at byte {at}: {left[here]!r} is not {right[here]!r}"]


# -- the tiers -------------------------------------------------------------------------------------


@dataclass
class Tier:
    """What happened in one tier; ``details`` are the counts of the suites that a test ran."""

    outcomes: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0
    reasons: dict[str, None] = field(default_factory=dict)
    details: list[str] = field(default_factory=list)

    def count(self, report: Report) -> None:
        """Add one report: a test's outcome is that of its call, or of the phase that kept it from being called."""
        self.seconds += getattr(report, "duration", 0.0)
        if report.failed or report.skipped or getattr(report, "when", "collect") == "call":
            self.outcomes[report.outcome] += 1
        if report.skipped:
            self.reasons[reason_of(report)] = None
        if getattr(report, "when", "") == "call":
            self.details += [str(value) for name, value in report.user_properties if name == "detail"]

    def line(self, name: str) -> str:
        """This tier for the end of the run."""
        counts = ", ".join(f"{self.outcomes[outcome]:>4} {outcome}" for outcome in ("passed", "failed", "skipped"))
        notes = "; ".join(self.details)
        if self.reasons:
            ran = self.outcomes["passed"] or self.outcomes["failed"]
            notes = f"{notes}{'; ' if notes else ''}{'skipped' if ran else 'not run'}: {'; '.join(self.reasons)}"
        return f"{name:<12} {counts}  {self.seconds:7.1f} s  {notes}".rstrip()


TALLY = pytest.StashKey[dict[str, Tier]]()


def reason_of(report: Report) -> str:
    """Why a report is a skip, in the words of the skip."""
    if hasattr(report, "wasxfail"):
        return f"expected to fail: {report.wasxfail or report.nodeid}"
    said = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    return said.removeprefix("Skipped: ")


def tier_of(path: Path) -> str:
    """The directory under tests/ that ``path`` is in."""
    return path.relative_to(TESTS).parts[0] if path.is_relative_to(TESTS) else "elsewhere"


def waits(item: pytest.Item) -> bool:
    """Whether a test that runs here mostly waits; see WAITING_TIERS."""
    known = tier_of(item.path) in WAITING_TIERS or item.path.stem.endswith("_killed")
    return known and not guest_plugin.runs_in_guest(item)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    return (
        True if collection_path.parent == TESTS and collection_path.name in ON_REQUEST and everything(config) else None
    )


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    def place(item: pytest.Item) -> tuple[bool, bool, int]:
        in_guest = guest_plugin.runs_in_guest(item)
        order, tier = GUESTS if in_guest else TIERS, tier_of(item.path)
        return in_guest, waits(item), order.index(tier) if tier in order else len(order)

    # What runs here comes first: until that has ended, what runs elsewhere does so beside it.
    items.sort(key=place)


class _Count:
    """Counts reports by tier; a plugin object because the hook needs the configuration's stash."""

    def __init__(self, config: pytest.Config) -> None:
        self._tally = config.stash[TALLY]
        self._root = config.rootpath

    def _count(self, report: Report) -> None:
        tier = tier_of(self._root / report.nodeid.split("::", 1)[0])
        self._tally.setdefault(tier, Tier()).count(report)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self._count(report)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if not report.passed:
            self._count(report)


def pytest_sessionstart(session: Session) -> None:
    session.config.pluginmanager.register(_Count(session.config), "tier-count")


def everything(config: pytest.Config) -> bool:
    """Whether no directory or test was named."""
    return config.args_source is pytest.Config.ArgsSource.TESTPATHS


def lost_tiers(config: pytest.Config) -> Iterable[str]:
    """Tiers of which not one test was found, in a run of everything."""
    selected = config.getoption("keyword") or config.getoption("markexpr") or config.getoption("lf", default=False)
    return [] if selected or not everything(config) else [tier for tier in TIERS if tier not in config.stash[TALLY]]


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: Session) -> None:
    if strict() and session.exitstatus == pytest.ExitCode.OK and lost_tiers(session.config):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.hookimpl(trylast=True)
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    tally = config.stash[TALLY]
    terminalreporter.section("tiers" + (" (strict: a skip is a failure)" if strict() else ""))
    for name in sorted(tally, key=lambda tier: TIERS.index(tier) if tier in TIERS else len(TIERS)):
        terminalreporter.write_line(tally[name].line(name))
    for name in lost_tiers(config):
        terminalreporter.write_line(f"{name:<12} no tests found")
