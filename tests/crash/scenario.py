"""What a crash scenario is: what is there before, the call that is killed, and what must be true after its retry."""

from __future__ import annotations

from abc import ABC, abstractmethod
from types import ModuleType
from typing import Any, ClassVar

from driver import MIB, VOLUME_BYTES, Cluster, Pod

GROWN_BYTES = VOLUME_BYTES + 64 * MIB


class Scenario(ABC):
    """An operation to be killed at each of its fault points and repeated after a restart."""

    name: ClassVar[str]

    def prepare(self, cluster: Cluster) -> None:
        """Make what the operation needs, with no fault armed."""
        return

    @abstractmethod
    def act(self, cluster: Cluster) -> Any:
        """The operation. Called again, with the same arguments, after the kill."""

    def survives(self, cluster: Cluster) -> None:
        """What must hold while the server is dead: pods go on reading and writing."""
        return

    @abstractmethod
    def verify(self, cluster: Cluster, answer: Any) -> None:
        """What must hold after the retry succeeded."""

    @abstractmethod
    def clean(self, cluster: Cluster) -> None:
        """Delete everything again through the driver; the caller then looks for leaks."""


class WithPod(Scenario):
    """An operation on a volume that a pod writes to."""

    parameters: ClassVar[dict[str, str]] = {}

    def prepare(self, cluster: Cluster) -> None:
        self.volume_id = cluster.create("claim", **self.parameters).volume_id
        cluster.run_pod(self.volume_id).write("data")

    def pod(self, cluster: Cluster) -> Pod:
        """The pod."""
        return cluster.pod(self.volume_id)

    def clean(self, cluster: Cluster) -> None:
        cluster.stop_pod(self.volume_id)
        cluster.delete(self.volume_id)


def scenarios_of(*modules: ModuleType) -> list[type[Scenario]]:
    """The scenarios of these modules: every subclass that has a name of its own."""
    return [
        found
        for module in modules
        for found in vars(module).values()
        if isinstance(found, type) and issubclass(found, Scenario) and "name" in vars(found)
    ]
