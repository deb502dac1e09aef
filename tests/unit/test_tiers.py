"""The tier mechanism of tests/conftest.py, run by a pytest of its own over little suites."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

CONFTEST = Path(__file__).parents[1] / "conftest.py"
GUEST = CONFTEST.parent / "guest"
TIERS = (
    *("unit", "rust", "packaging", "conformance", "integration", "sanity", "crash", "deploy"),
    *("lvm", "nfs", "kernel"),
)

PASSES = "def test_passes(): pass\n"
NEEDS_A_TOOL = "import pytest\n@pytest.mark.needs_tool('no-such-tool')\ndef test_with_tool(): pass\n"
SKIPS = "import pytest\ndef test_skips(): pytest.skip('not today')\n"
SKIPS_WHOLLY = "import pytest\npytest.skip('no module today', allow_module_level=True)\n"
BROKEN = "import no_such_module\n"
COUNTS = "def test_counts(record_property): record_property('detail', '7 of 7')\n"

Suite = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def suite(tmp_path: Path) -> Suite:
    """Run a suite of one file a tier; every tier that is not given has a test that passes."""

    def run(given: Mapping[str, str], *, strict: str = "", everywhere: str = PASSES, arguments: tuple[str, ...] = ()):
        options = f"testpaths = ['tests']\npythonpath = ['{GUEST}']\n"
        (tmp_path / "pyproject.toml").write_text(f"[tool.pytest.ini_options]\n{options}")
        for tier in TIERS:
            (tmp_path / "tests" / tier).mkdir(parents=True)
            if content := given.get(tier, everywhere):
                (tmp_path / "tests" / tier / f"test_{tier}.py").write_text(content)
        shutil.copy(CONFTEST, tmp_path / "tests" / "conftest.py")
        return subprocess.run(
            [
                *(sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--import-mode=importlib"),
                *("--continue-on-collection-errors", *arguments),
            ],
            cwd=tmp_path,
            env={**os.environ, "CI": "", "CSICORE_STRICT": strict},
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    return run


def line_of(tier: str, output: str) -> str:
    return next(line for line in output.splitlines() if line.startswith(f"{tier} "))


def test_one_line_a_tier_in_their_order_and_then_pytests_own(suite: Suite) -> None:
    finished = suite({"sanity": COUNTS})
    *_, last = finished.stdout.splitlines()
    first_words = [line.split()[0] for line in finished.stdout.splitlines() if line.split()]
    assert finished.returncode == 0
    assert [word for word in first_words if word in TIERS] == list(TIERS)
    assert f"{len(TIERS)} passed" in last
    assert "1 passed,    0 failed,    0 skipped" in line_of("unit", finished.stdout)
    assert line_of("sanity", finished.stdout).endswith("7 of 7")


def test_what_this_machine_cannot_run_is_skipped_with_the_reason(suite: Suite) -> None:
    finished = suite({"rust": NEEDS_A_TOOL})
    assert finished.returncode == 0
    assert line_of("rust", finished.stdout).endswith("not run: needs no-such-tool, which is not installed")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (NEEDS_A_TOOL, "needs no-such-tool, which is not installed"),
        (SKIPS, "not today"),
        (SKIPS_WHOLLY, "no module today"),
    ],
)
def test_a_skip_is_a_failure_in_a_strict_run(suite: Suite, content: str, reason: str) -> None:
    finished = suite({"rust": content}, strict="1")
    assert finished.returncode != 0
    assert f"skipped, which a strict run does not allow: {reason}" in finished.stdout
    assert "1 failed" in line_of("rust", finished.stdout)


def test_a_tier_without_a_test_is_named_and_fails_a_strict_run(suite: Suite) -> None:
    finished = suite({"crash": ""}, strict="1")
    assert finished.returncode != 0
    assert line_of("crash", finished.stdout).endswith("no tests found")


def test_a_part_of_the_tests_may_leave_tiers_out(suite: Suite) -> None:
    finished = suite({}, strict="1", arguments=("tests/unit",))
    assert finished.returncode == 0
    assert "no tests found" not in finished.stdout


def test_a_file_that_cannot_be_imported_fails_its_tier_and_no_other(suite: Suite) -> None:
    finished = suite({"unit": BROKEN})
    assert finished.returncode != 0
    assert "1 failed" in line_of("unit", finished.stdout)
    assert "1 passed" in line_of("crash", finished.stdout)
