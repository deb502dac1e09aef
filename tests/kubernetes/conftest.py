"""What the tests of this tier share: one cluster, with the driver ``loop`` installed from the chart."""

from __future__ import annotations

from collections.abc import Iterator

import helm
import pytest
from kubernetes_cluster import Cluster, running, wait_for
from kubernetes_state import driver_pod, is_clean


@pytest.fixture(scope="session")
def cluster(pytestconfig: pytest.Config) -> Iterator[Cluster]:
    """A Kubernetes on which the driver is ready."""
    terminal = pytestconfig.pluginmanager.get_plugin("terminalreporter")

    def say(text: str) -> None:
        terminal.write_line(f"\n{text}")
        terminal.flush()

    with running(say) as made:
        made.install("loop")
        wait_for("the driver is ready", lambda: made.condition("pod", driver_pod(made), "Ready", helm.NAMESPACE))
        yield made


@pytest.fixture(autouse=True)
def nothing_is_left(cluster: Cluster) -> Iterator[None]:
    """Every test deletes what it made; then it is gone from the API, the disk and the kernel."""
    yield
    wait_for("nothing is left", lambda: is_clean(cluster))
