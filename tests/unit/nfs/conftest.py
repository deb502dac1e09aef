"""A case of mode export on a plain directory, with a server that only pretends."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from fake_server import FakeServer, case_on

from csi_core.testing.contract import BackendCase


@pytest.fixture
def server() -> FakeServer:
    return FakeServer()


@pytest.fixture
def case(tmp_path: Path, server: FakeServer) -> Iterator[BackendCase]:
    with case_on(tmp_path, server, size_enforcement="none", capacity="8Gi") as case:
        yield case
