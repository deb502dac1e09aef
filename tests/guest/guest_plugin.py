"""Tests marked ``needs_kernel(feature)`` run here where the kernel has the feature, else in a guest.

One guest a group (a tier of the tests, or a part of one), booted in the background once the tests are collected. In it
a second pytest runs the same node ids and writes each report as a line of JSON to a file; here the reports are replayed
when it is the item's turn, so that counts, durations, ``-x`` and everything else see them as if the test had run here.
Tests that mostly wait can run beside the others in the same way, in a second pytest on this machine.
"""

from __future__ import annotations

import faulthandler
import json
import os
import queue
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import guest_features
import pytest
from beside_machine import Beside
from guest_machine import Guest, lacks_guest

__all__ = ["lacks_kernel", "register", "runs_in_guest"]

ITEMS_VARIABLE = "CSICORE_GUEST_ITEMS"
REPORTS_VARIABLE = "CSICORE_GUEST_REPORTS"
ALWAYS_VARIABLE = "CSICORE_GUEST_ALWAYS"
"""1: use a guest also where this machine's kernel would do."""

SILENCE_VARIABLE = "CSICORE_GUEST_SILENCE_S"
SILENCE_S = 420.0
"""A guest that has not begun or ended a test for so long hangs."""

PANICS = 6
"""A guest's kernel is not what is tested, and 6.1 as User Mode Linux panics now and then in the threads of RAID. What
was running is run again in a new guest, once; and no more than so many new guests are booted."""

ITEMS_A_GUEST = 240
"""What is more of a group is for another guest; a boot takes some ten seconds."""

NICENESS = 5
"""Of guests beside other tests: they take what those leave, and a fourth of a CPU that is wanted all the time."""

POLL_S = 0.1
QUIET_S = 2.0
"""After so long without a word the console is looked at."""


def lacks_kernel(feature: str) -> str:
    """A feature of the kernel, one of guest_features.PROBES; where it is missing, a guest has it."""
    if guest_features.has(feature):
        return ""
    if guest_features.in_guest():
        pytest.fail(f"the guest has no {feature}")
    return f"needs a kernel with {feature}, or a guest: {lacks_guest() or 'none was booted for it'}"


def runs_in_guest(item: pytest.Item) -> bool:
    """Whether ``item`` is for a guest, and a guest can be had."""
    features = [str(marker.args[0]) for marker in item.iter_markers("needs_kernel")]
    if not features or guest_features.in_guest() or lacks_guest():
        return False
    return os.environ.get(ALWAYS_VARIABLE) == "1" or not all(map(guest_features.has, features))


def register(
    config: pytest.Config,
    *,
    group_of: Callable[[pytest.Item], str],
    beside: bool,
    before_boot: Callable[[Sequence[pytest.Item]], None] = lambda items: None,
    waits: Callable[[pytest.Item], bool] = lambda item: False,
) -> None:
    """Make this pytest use guests, or write its reports for the host where it runs in one.

    Args:
        group_of: the guest that an item runs in, by name.
        beside: whether guests run while other tests do, one on each CPU, in the order of their items; if not, one, from
            the first item that needs it.
        before_boot: builds what a guest's items need and cannot build in there; called in a thread.
        waits: whether an item runs beside the others, in a pytest of its own.
    """
    if config.pluginmanager.has_plugin("guests"):
        return
    if REPORTS_VARIABLE in os.environ:
        # Not for a pytest that a test starts.
        reports, wanted = (Path(os.environ.pop(name)) for name in (REPORTS_VARIABLE, ITEMS_VARIABLE))
        config.pluginmanager.register(Reporter(config, reports, wanted), "guests")
    else:
        config.pluginmanager.register(Guests(config, group_of, beside, before_boot, waits), "guests")


class Reporter:
    """In the guest, or beside: keeps to the items that are wanted, and writes down what happens."""

    def __init__(self, config: pytest.Config, path: Path, wanted: Path) -> None:
        self._config = config
        self._path = path
        self._wanted = frozenset(json.loads(wanted.read_text(encoding="utf-8")))

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        items[:] = [item for item in items if item.nodeid in self._wanted]

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        self._write({"started": nodeid})

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self._write({"report": self._config.hook.pytest_report_to_serializable(config=self._config, report=report)})

    def _write(self, line: dict[str, Any]) -> None:
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line, default=str) + "\n")


class Group:
    """The items of one guest, and what it has said about them."""

    def __init__(
        self, name: str, config: pytest.Config, items: list[pytest.Item], machine: type[Guest] | type[Beside] = Guest
    ) -> None:
        self.name = name
        self.items = items
        self._wanted = items
        self._config = config
        self._guest = machine(name)
        self._reports = self._guest.directory / "reports"
        self._reports.touch()
        self._read_bytes = 0
        self._said: dict[str, list[pytest.TestReport]] = {}
        self._heard_at = 0.0
        self._running = ""
        self._stopped = threading.Event()
        self._ended = threading.Event()
        self._why = "the guest has ended without running it"

    # -- in a thread ---------------------------------------------------------------------------------

    def run(
        self, cpus: queue.SimpleQueue[int], niceness: int, before_boot: Callable[[Sequence[pytest.Item]], None]
    ) -> None:
        """Wait for a CPU, boot, wait for the end or a hang."""
        cpu = cpus.get()
        try:
            if not self._stopped.is_set():
                before_boot(self.items)
                self._boot_until_done(cpu, niceness, float(os.environ.get(SILENCE_VARIABLE, SILENCE_S)))
        except Exception as error:
            self._why = f"the guest was not booted: {error!r}"
        finally:
            self._guest.kill()
            self._ended.set()
            cpus.put(cpu)

    def _boot_until_done(self, cpu: int, niceness: int, silence_s: float) -> None:
        """Boot; and where the guest's own kernel panics, go on in a new one, with what was running once more."""
        panics: Counter[str] = Counter()
        while self._watch_one(cpu, niceness, silence_s) and panics.total() < PANICS:
            begun, done = self._progress()
            panics[begun] += 1
            self._wanted = [item for item in self._wanted if item.nodeid not in done and panics[item.nodeid] < 2]
            self._guest.kill()

    def _watch_one(self, cpu: int, niceness: int, silence_s: float) -> bool:
        self._boot(cpu, niceness)
        return self._watch(silence_s)

    def _progress(self) -> tuple[str, set[str]]:
        """The test that was begun last, and those that ended."""
        begun, done = "", set()
        for text in self._reports.read_bytes().splitlines():
            line = json.loads(text)
            if "started" in line:
                begun = line["started"]
            elif line["report"]["when"] == "teardown":
                done.add(line["report"]["nodeid"])
        return begun, done

    def _boot(self, cpu: int, niceness: int) -> None:
        # As JSON and not as arguments: an id may hold anything, what ends a line included.
        wanted = self._guest.directory / "items"
        wanted.write_text(json.dumps([item.nodeid for item in self._wanted]), encoding="utf-8")
        files = dict.fromkeys(item.nodeid.partition("::")[0] for item in self._wanted)
        # -P: what is tested is the installed csi-core, as here.
        argv = [*(sys.executable, "-P", "-m", "pytest", "-p", "no:cacheprovider", "--color=no", "-v")]
        argv += [f"--tb={self._config.option.tbstyle}", *files]
        environment = {
            ITEMS_VARIABLE: str(wanted),
            REPORTS_VARIABLE: str(self._reports),
            "HYPOTHESIS_STORAGE_DIRECTORY": "/tmp/hypothesis",
        }
        self._guest.boot(argv, self._config.rootpath, environment, cpu, niceness)

    def _watch(self, silence_s: float) -> bool:
        """Until it ends, hangs or panics; answer whether it panicked."""
        size_bytes, heard_at = 0, time.monotonic()
        while self._guest.running and not self._stopped.wait(POLL_S):
            silent_s = time.monotonic() - heard_at
            if (now_bytes := self._reports.stat().st_size) != size_bytes:
                size_bytes, heard_at = now_bytes, time.monotonic()
            elif silent_s > QUIET_S and self._guest.panicked:
                self._why = "the guest's kernel panicked"
                return True
            elif silent_s > silence_s:
                self._why = f"the guest hangs: it has said nothing for {silence_s:.0f} s, and was killed"
                break
        return False

    # -- in pytest's own thread ----------------------------------------------------------------------

    def reports_of(self, item: pytest.Item) -> Iterator[pytest.TestReport]:
        """The reports of one item as they come; a failure where the guest ends before they do."""
        given = 0
        while True:
            ended = self._ended.is_set()
            self._read()
            said = self._said.get(item.nodeid, [])
            for report in said[given:]:
                yield report
                if report.when == "teardown":
                    return
            given = len(said)
            if ended:
                yield self._lost(item)
                return
            time.sleep(POLL_S)

    def stop(self) -> None:
        """End the guest and remove its files."""
        self._stopped.set()
        self._guest.kill()
        self._ended.wait(timeout=10)
        self._guest.remove()

    def _read(self) -> None:
        with self._reports.open("rb") as file:
            file.seek(self._read_bytes)
            for line in file:
                if not line.endswith(b"\n"):
                    break  # still being written
                self._read_bytes += len(line)
                self._take(json.loads(line))

    def _take(self, line: dict[str, Any]) -> None:
        if "started" in line:
            self._running = line["started"]
            return
        report = self._config.hook.pytest_report_from_serializable(config=self._config, data=line["report"])
        # JSON has made lists of tuples.
        report.user_properties = [tuple(pair) for pair in report.user_properties]
        if isinstance(report.longrepr, list):
            report.longrepr = tuple(report.longrepr)
        self._said.setdefault(report.nodeid, []).append(report)

    def _lost(self, item: pytest.Item) -> pytest.TestReport:
        last = f"\nThe last test it began: {self._running}" if self._running else ""
        text = f"{self._why}{last}\nIts console:\n{self._guest.console_tail()}"
        return pytest.TestReport(
            nodeid=item.nodeid,
            location=item.location,
            keywords={},
            outcome="failed",
            longrepr=text,
            when="call",
        )


class Guests:
    """On the host: boots the guests and replays what they report."""

    def __init__(
        self,
        config: pytest.Config,
        group_of: Callable[[pytest.Item], str],
        beside: bool,
        before_boot: Callable[[Sequence[pytest.Item]], None],
        waits: Callable[[pytest.Item], bool] = lambda item: False,
    ) -> None:
        self._config = config
        self._waits = waits
        self._group_of = group_of
        self._before_boot = before_boot
        self._groups: dict[str, Group] = {}
        self._group_of_id: dict[str, Group] = {}
        self._niceness = NICENESS if beside else 0
        cpus = sorted(os.sched_getaffinity(0))
        at = os.getpid() % len(cpus)  # Two runs on one machine need not meet on one CPU.
        self._later_cpus = [] if beside else cpus[:1]
        self._cpus: queue.SimpleQueue[int] = queue.SimpleQueue()
        for cpu in cpus[at:] + cpus[:at] if beside else ():
            self._cpus.put(cpu)

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        if session.config.option.collectonly:
            return
        for name, members in self._grouped(session.items):
            self._start(Group(name, self._config, members), self._cpus)
        if waiting := [item for item in session.items if self._waits(item) and item.nodeid not in self._group_of_id]:
            anywhere: queue.SimpleQueue[int] = queue.SimpleQueue()
            anywhere.put(0)
            self._start(Group("beside", self._config, waiting, Beside), anywhere)

    def _start(self, group: Group, cpus: queue.SimpleQueue[int]) -> None:
        self._groups[group.name] = group
        self._group_of_id.update((item.nodeid, group) for item in group.items)
        arguments = (cpus, self._niceness, self._before_boot)
        threading.Thread(target=group.run, args=arguments, name=f"guest-{group.name}", daemon=True).start()

    def _grouped(self, items: Sequence[pytest.Item]) -> Iterator[tuple[str, list[pytest.Item]]]:
        """By name, and in parts of whole files where there are many, so that CPUs can share them."""
        groups: dict[str, list[list[pytest.Item]]] = {}
        for item in filter(runs_in_guest, items):
            files = groups.setdefault(self._group_of(item), [])
            if not files or files[-1][-1].path != item.path:
                files.append([])
            files[-1].append(item)
        for name, files in groups.items():
            part, number = [*files[0]], 1
            for file in files[1:]:
                if len(part) + len(file) > ITEMS_A_GUEST:
                    yield f"{name}-{number}", part
                    part, number = [], number + 1
                part += file
            yield (f"{name}-{number}" if number > 1 else name), part

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> bool | None:
        group = self._group_of_id.get(item.nodeid)
        if group is None:
            return None
        while self._later_cpus:
            self._cpus.put(self._later_cpus.pop())
        faulthandler.cancel_dump_traceback_later()  # one that runs in a guest may not have begun; _watch sees a hang
        item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
        for report in group.reports_of(item):
            item.ihook.pytest_runtest_logreport(report=report)
        item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
        return True

    def pytest_unconfigure(self) -> None:
        for group in self._groups.values():
            group.stop()
