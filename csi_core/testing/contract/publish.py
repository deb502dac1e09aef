"""Access of nodes to network volumes."""

from __future__ import annotations

from dataclasses import replace

import pytest

from csi_core.errors import AlreadyExists, FailedPrecondition, NotFound
from csi_core.model import AccessMode, PublishRequest, Volume, VolumeCapability, VolumeMode
from csi_core.testing.contract.case import BackendCase
from csi_core.testing.contract.selection import Selection, needs

__all__ = ["PublishTests"]


class PublishTests(Selection):
    """Publishing to nodes (CSI "ControllerPublishVolume", "ControllerUnpublishVolume")."""

    def request(self, case: BackendCase, volume: Volume, node_id: str, mode: VolumeMode) -> PublishRequest:
        """What the core would hand over for a VolumeAttachment."""
        return PublishRequest(
            volume.handle, node_id, case.capability(mode), context=volume.context, secrets=case.secrets
        )

    def published(self, case: BackendCase, volume: Volume) -> set[str]:
        """The nodes that have access."""
        found = case.backend.get_volume(volume.handle)
        assert found is not None
        return set(found.published_node_ids)

    @needs("publish_volume")
    def test_publish_again(self, case: BackendCase, mode: VolumeMode) -> None:
        """The same context, repeatedly and after a restart."""
        volume = case.create("data", mode)
        request = self.request(case, volume, case.nodes[0], mode)
        context = case.backend.publish_volume(request)
        for _ in range(2):
            assert case.backend.publish_volume(request) == context
            assert self.published(case, volume) == {case.nodes[0]}
            case.reopen()

    @needs("publish_volume")
    def test_unpublish(self, case: BackendCase, mode: VolumeMode) -> None:
        """Access ends, repeatedly; where there was none there is nothing to do."""
        volume = case.create("data", mode)
        case.backend.unpublish_volume(volume.handle, case.nodes[0], case.secrets)
        case.backend.publish_volume(self.request(case, volume, case.nodes[0], mode))
        for _ in range(2):
            case.backend.unpublish_volume(volume.handle, case.nodes[0], case.secrets)
            assert self.published(case, volume) == set()
            case.reopen()
        case.backend.publish_volume(self.request(case, volume, case.nodes[1], mode))
        assert self.published(case, volume) == {case.nodes[1]}
        case.backend.unpublish_volume(volume.handle, case.nodes[0], case.secrets)
        assert self.published(case, volume) == {case.nodes[1]}
        case.backend.unpublish_volume(volume.handle, "", case.secrets)
        assert self.published(case, volume) == set()
        case.backend.unpublish_volume("no-such-handle", case.nodes[0], case.secrets)
        case.delete(volume)
        case.backend.unpublish_volume(volume.handle, case.nodes[0], case.secrets)

    @needs("publish_volume")
    def test_published_otherwise(self, case: BackendCase, mode: VolumeMode) -> None:
        """Read-only is not read-write: the node must be unpublished first."""
        volume = case.create("data", mode)
        request = self.request(case, volume, case.nodes[0], mode)
        case.backend.publish_volume(request)
        with pytest.raises(AlreadyExists):
            case.backend.publish_volume(replace(request, read_only=True))
        assert self.published(case, volume) == {case.nodes[0]}

    @needs("publish_volume")
    def test_one_node_only(self, case: BackendCase, mode: VolumeMode) -> None:
        """A volume for one node is not published to a second one."""
        volume = case.create("data", mode)
        case.backend.publish_volume(self.request(case, volume, case.nodes[0], mode))
        with pytest.raises(FailedPrecondition):
            case.backend.publish_volume(self.request(case, volume, case.nodes[1], mode))
        assert self.published(case, volume) == {case.nodes[0]}

    @needs("publish_volume")
    def test_several_nodes(self, case: BackendCase, mode: VolumeMode) -> None:
        """A volume for several nodes is, and "all" takes it from all of them."""
        if AccessMode.MULTI_NODE_MULTI_WRITER not in case.backend.description.access[mode]:
            return
        volume = case.create("data", mode)
        capability = VolumeCapability(mode, AccessMode.MULTI_NODE_MULTI_WRITER)
        for node_id in case.nodes:
            case.backend.publish_volume(replace(self.request(case, volume, node_id, mode), capability=capability))
        assert self.published(case, volume) == set(case.nodes)
        case.backend.unpublish_volume(volume.handle, "", case.secrets)
        assert self.published(case, volume) == set()

    @needs("publish_volume")
    def test_unknown_node_or_volume(self, case: BackendCase, mode: VolumeMode) -> None:
        """There is nobody to publish to, or nothing to publish."""
        volume = case.create("data", mode)
        with pytest.raises(NotFound):
            case.backend.publish_volume(self.request(case, volume, "no-such-node", mode))
        with pytest.raises(NotFound):
            case.backend.publish_volume(
                replace(self.request(case, volume, case.nodes[0], mode), handle="no-such-handle")
            )
        assert self.published(case, volume) == set()
