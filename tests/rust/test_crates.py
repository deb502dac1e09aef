"""The crates' own tests: unit tests, property tests and documentation tests of the Rust workspace."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

WORKSPACE = Path(__file__).parents[2] / "allocator_rs" / "Cargo.toml"
RESULT = re.compile(
    r"^test result: (?P<verdict>\w+)\. (?P<passed>\d+) passed; (?P<failed>\d+) failed; (?P<ignored>\d+) ", re.M
)


@pytest.mark.needs_cargo
def test_every_test_of_the_workspace_passes(record_property: Callable[[str, object], None]) -> None:
    run = subprocess.run(
        ["cargo", "test", "--manifest-path", WORKSPACE, "--workspace", "--locked", "--no-fail-fast"],
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    results = [match.groupdict() for match in RESULT.finditer(run.stdout)]
    passed, failed, ignored = (sum(int(result[key]) for result in results) for key in ("passed", "failed", "ignored"))
    record_property("detail", f"cargo: {passed} passed, {failed} failed, {ignored} ignored")
    assert run.returncode == 0, f"{run.stdout}\n{run.stderr}"
    assert (passed > 0, failed, ignored) == (True, 0, 0), run.stdout
