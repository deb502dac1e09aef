"""What the plugin for guests makes of guests that work, fail, die and hang: a script stands in for the kernel."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import guest_plugin
import pytest
from guest_plugin import Guests

GUEST = Path(__file__).parents[1] / "guest"

CONFTEST = """
import guest_features, guest_plugin, pytest
guest_features.PROBES["wings"] = guest_features.in_guest

def pytest_configure(config):
    config.addinivalue_line("markers", "needs_kernel(feature): a feature")
    config.addinivalue_line("markers", "waits: runs beside the others")
    waits = lambda item: item.get_closest_marker("waits") is not None
    guest_plugin.register(config, group_of=lambda item: item.path.stem, beside=True, waits=waits)

def pytest_runtest_setup(item):
    if item.get_closest_marker("needs_kernel") and (missing := guest_plugin.lacks_kernel("wings")):
        pytest.skip(missing)

def pytest_runtest_logreport(report):
    if report.when == "call":
        print("REPORTED", report.nodeid, report.outcome, report.user_properties, report.duration > 0)
"""
HEADER = """
import os, pathlib, signal, time, pytest
wings = pytest.mark.needs_kernel("wings")
IN_GUEST = os.environ.get("CSICORE_GUEST") == "1"

def await_file(name):
    ends_at = time.monotonic() + 20
    while not (path := pathlib.Path(__file__).with_name(name)).exists() and time.monotonic() < ends_at:
        time.sleep(0.05)
    assert path.exists()

def leave_file(name): pathlib.Path(__file__).with_name(name).touch()
"""
BOOTS = """
for argument; do [[ $argument != CSICORE_GUEST_DIRECTORY=* ]] || directory=${argument#*=}; done
echo "the console of $(basename "$directory")"
"""
WORKS = f'#!/bin/bash\n{BOOTS}\nexec "$directory/run"\n'

Suite = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def suite(tmp_path: Path) -> Iterator[Suite]:
    """Run a suite of one file with a guest whose kernel is ``program``."""

    def run(tests: str, *arguments: str, program: str = WORKS, silence_s: float = 30.0, always: str = ""):
        (tmp_path / "pyproject.toml").write_text(f"[tool.pytest.ini_options]\npythonpath = ['{GUEST}']\n")
        (tmp_path / "conftest.py").write_text(CONFTEST)
        (tmp_path / "test_wings.py").write_text(HEADER + tests)
        kernel = tmp_path / "linux.uml"
        if program:
            kernel.write_text(program)
            kernel.chmod(0o755)
        environment = {
            "CSICORE_UML": str(kernel),
            "CSICORE_GUEST_SILENCE_S": str(silence_s),
            "CSICORE_GUEST_ALWAYS": always,
        }
        return subprocess.run(
            [*(sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-rA", "-s", *arguments)],
            cwd=tmp_path,
            env={**{k: v for k, v in os.environ.items() if not k.startswith("CSICORE_GUEST")}, **environment},
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    before = set(Path("/var/tmp").glob("csi-core-guest-test_wings-*"))
    yield run
    assert set(Path("/var/tmp").glob("csi-core-guest-test_wings-*")) <= before, "a guest's disks were left"


def test_what_happened_in_the_guest_is_reported_as_if_it_had_happened_here(suite: Suite) -> None:
    finished = suite("""
@wings
def test_flies(record_property):
    assert IN_GUEST
    record_property("detail", "7 of 7")
@wings
@pytest.mark.parametrize("words", ["two words", "a::b[c]"])
def test_named(words): assert IN_GUEST
def test_walks(): assert not IN_GUEST
@wings
def test_crashes():
    assert IN_GUEST
    assert 6 * 7 == 41, "arithmetic"
@wings
def test_rests(): pytest.skip("no wind")
@wings
@pytest.mark.xfail(reason="penguin")
def test_penguin(): assert 0
@pytest.fixture
def nest():
    yield
    assert 0, "the nest fell"
@wings
def test_nests(nest): pass
""")
    assert "test_flies passed [('detail', '7 of 7')] True" in finished.stdout
    assert "assert (6 * 7) == 41" in finished.stdout
    assert "SKIPPED [1] test_wings.py" in finished.stdout and "no wind" in finished.stdout
    assert "the nest fell" in finished.stdout
    assert "1 failed, 5 passed, 1 skipped, 1 xfailed, 1 error" in finished.stdout.splitlines()[-1]


def test_minus_x_stops_at_a_failure_in_the_guest(suite: Suite) -> None:
    finished = suite("@wings\ndef test_a(): assert 0\n@wings\ndef test_b(): pass\ndef test_c(): pass\n", "-x")
    assert "1 failed" in finished.stdout.splitlines()[-1]
    assert "passed" not in finished.stdout.splitlines()[-1]


def test_a_guest_that_dies_fails_what_it_had_still_to_run(suite: Suite) -> None:
    finished = suite("""
@wings
def test_a(): pass
@wings
def test_b(): os.kill(os.getpid(), signal.SIGKILL)
@wings
def test_c(): pass
def test_d(): pass
""")
    assert "2 failed, 2 passed" in finished.stdout.splitlines()[-1]
    assert "the guest has ended without running it" in finished.stdout
    assert "The last test it began: test_wings.py::test_b" in finished.stdout
    assert "the console of csi-core-guest-test_wings-" in finished.stdout


PANIC = """
def panic(capfd):
    with capfd.disabled():
        os.write(1, b"Kernel panic - not syncing: Segfault with no mm\\n")
    time.sleep(50)
"""


def test_what_ran_when_the_guests_kernel_panicked_runs_again(suite: Suite) -> None:
    finished = suite(
        PANIC
        + """
@wings
def test_a(): pass
@wings
def test_b(capfd, pytestconfig):
    marker = pytestconfig.rootpath / "panicked"
    if not marker.exists():
        marker.touch()
        panic(capfd)
@wings
def test_c(): pass
"""
    )
    assert "3 passed" in finished.stdout.splitlines()[-1]


def test_what_makes_the_guests_kernel_panic_twice_has_failed(suite: Suite) -> None:
    finished = suite(
        PANIC
        + """
@wings
def test_a(): pass
@wings
def test_b(capfd): panic(capfd)
@wings
def test_c(): pass
"""
    )
    assert "1 failed, 2 passed" in finished.stdout.splitlines()[-1]
    assert "the guest's kernel panicked" in finished.stdout


def test_a_guest_that_does_not_boot_fails_every_test_of_it(suite: Suite) -> None:
    finished = suite(
        "@wings\ndef test_a(): pass\n@wings\ndef test_b(): pass\n",
        program="#!/bin/sh\necho panic at the start; exit 1\n",
    )
    assert "2 failed" in finished.stdout.splitlines()[-1]
    assert "panic at the start" in finished.stdout


def test_a_guest_that_hangs_is_killed_and_fails(suite: Suite) -> None:
    finished = suite("@wings\ndef test_a(): time.sleep(50)\n@wings\ndef test_b(): pass\n", silence_s=3.0)
    assert "2 failed" in finished.stdout.splitlines()[-1]
    assert "the guest hangs: it has said nothing for 3 s, and was killed" in finished.stdout


def test_a_machine_without_the_kernel_and_without_guests_says_how_to_get_them(suite: Suite) -> None:
    finished = suite("@wings\ndef test_a(): pass\n", program="")
    assert "1 skipped" in finished.stdout.splitlines()[-1]
    assert "needs a kernel with wings, or a guest: a guest needs apt-get install user-mode-linux" in finished.stdout


def test_a_kernel_that_has_the_feature_needs_no_guest(suite: Suite) -> None:
    tests = "@wings\ndef test_a(): assert not IN_GUEST\n"
    makes_wings = "import guest_features\nguest_features.PROBES['wings'] = lambda: True\n"
    assert "1 passed" in suite(makes_wings + tests).stdout.splitlines()[-1]
    assert "1 failed" in suite(makes_wings + tests, always="1").stdout.splitlines()[-1], "it ran in a guest"


def test_what_waits_runs_beside_the_others(suite: Suite) -> None:
    finished = suite("""
def test_here(): await_file("waits")
@pytest.mark.waits
def test_waits(): leave_file("waits")
@pytest.mark.waits
def test_fails():
    assert not IN_GUEST
    assert 6 * 7 == 41, "arithmetic"
""")
    assert "1 failed, 2 passed" in finished.stdout.splitlines()[-1]
    assert "assert (6 * 7) == 41" in finished.stdout


def test_minus_x_has_what_waits_clean_up(suite: Suite, tmp_path: Path) -> None:
    finished = suite(
        """
def test_here():
    await_file("up")
    assert 0
@pytest.fixture
def mount():
    leave_file("up")
    yield
    leave_file("down")
@pytest.mark.waits
def test_waits(mount): time.sleep(50)
""",
        "-x",
    )
    assert "1 failed" in finished.stdout.splitlines()[-1]
    assert (tmp_path / "down").exists()


def test_a_large_tier_is_shared_by_guests_in_whole_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guest_plugin, "runs_in_guest", lambda item: True)
    monkeypatch.setattr(guest_plugin, "ITEMS_A_GUEST", 5)
    files = {"small/one": 2, "large/one": 2, "large/two": 3, "large/three": 9, "large/four": 1}
    items = [SimpleNamespace(path=Path(name)) for name, count in files.items() for _ in range(count)]
    guests = Guests(SimpleNamespace(), lambda item: item.path.parent.name, True, print)  # type: ignore[arg-type]
    shared = {name: Counter(str(item.path) for item in part) for name, part in guests._grouped(items)}  # type: ignore[arg-type]
    assert shared == {
        "small": {"small/one": 2},
        "large-1": {"large/one": 2, "large/two": 3},
        "large-2": {"large/three": 9},
        "large-3": {"large/four": 1},
    }
