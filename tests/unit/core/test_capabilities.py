"""Capabilities follow from hooks and declarations. One row of the tables below is one rule."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest

from csi_core._proto import csi_pb2 as pb
from csi_core.capabilities import derive
from csi_core.contract import HOOKS
from csi_core.errors import ConfigError
from csi_core.hookspecs import REQUIRED
from csi_core.model import Description, Reach, SourceKind
from csi_core.parameters import Parameters

SNAPSHOTS = {"create_snapshot", "delete_snapshot", "get_snapshot"}
BASE = {
    "plugin": {"CONTROLLER_SERVICE"},
    "controller": {"CREATE_DELETE_VOLUME", "LIST_VOLUMES", "GET_VOLUME", "SINGLE_NODE_MULTI_WRITER"},
    "node": {"STAGE_UNSTAGE_VOLUME", "GET_VOLUME_STATS", "SINGLE_NODE_MULTI_WRITER"},
    "group": set(),
}


class Mutable(Parameters):
    speed: str = ""


@dataclass
class Declared:
    name: str
    hooks: frozenset[str]
    description: Description


@pytest.fixture
def caps(description):
    def derived(hooks=(), alpha=False, **declared):
        return derive([Declared("b", REQUIRED | set(hooks), replace(description, **declared))], alpha)

    return derived


def added(found):
    """What goes beyond the smallest backend, for each service."""
    return {name: set(getattr(found, name)) - BASE[name] for name in BASE if set(getattr(found, name)) - BASE[name]}


def test_the_smallest_backend(caps):
    found = caps()
    assert {name: set(getattr(found, name)) for name in BASE} == BASE


@pytest.mark.parametrize(
    ("hooks", "declared", "expected"),
    [
        ({"get_capacity"}, {}, {"controller": {"GET_CAPACITY"}}),
        (
            {"publish_volume", "unpublish_volume"},
            {},
            {"controller": {"PUBLISH_UNPUBLISH_VOLUME", "PUBLISH_READONLY", "LIST_VOLUMES_PUBLISHED_NODES"}},
        ),
        (
            {"publish_volume", "unpublish_volume"},
            {"reach": Reach.NODE_LOCAL},
            {"plugin": {"VOLUME_ACCESSIBILITY_CONSTRAINTS"}},
        ),
        (SNAPSHOTS, {}, {"controller": {"CREATE_DELETE_SNAPSHOT", "GET_SNAPSHOT"}}),
        (
            SNAPSHOTS | {"list_snapshots"},
            {},
            {"controller": {"CREATE_DELETE_SNAPSHOT", "GET_SNAPSHOT", "LIST_SNAPSHOTS"}},
        ),
        ((), {"sources": frozenset({SourceKind.VOLUME})}, {"controller": {"CLONE_VOLUME"}}),
        ((), {"sources": frozenset({SourceKind.SNAPSHOT})}, {}),
        (
            {"expand_volume"},
            {},
            {"plugin": {"ONLINE"}, "controller": {"EXPAND_VOLUME"}, "node": {"EXPAND_VOLUME"}},
        ),
        (
            {"expand_volume"},
            {"online_expansion": False},
            {"plugin": {"OFFLINE"}, "controller": {"EXPAND_VOLUME"}, "node": {"EXPAND_VOLUME"}},
        ),
        (
            {"expand_volume"},
            {"reach": Reach.NODE_LOCAL},
            {"plugin": {"ONLINE", "VOLUME_ACCESSIBILITY_CONSTRAINTS"}, "node": {"EXPAND_VOLUME"}},
        ),
        ({"modify_volume"}, {"mutable": Mutable}, {"controller": {"MODIFY_VOLUME"}}),
        ({"modify_volume"}, {}, {}),
        ((), {"mount_group": True}, {"node": {"VOLUME_MOUNT_GROUP"}}),
        (
            {"create_group_snapshot"},
            {},
            {"plugin": {"GROUP_CONTROLLER_SERVICE"}, "group": {"CREATE_DELETE_GET_VOLUME_GROUP_SNAPSHOT"}},
        ),
        ({"allocated_blocks", "changed_blocks"}, {}, {"plugin": {"SNAPSHOT_METADATA_SERVICE"}}),
        ({"volume_health", "storage_health"}, {}, {}),
    ],
)
def test_what_a_hook_or_declaration_adds(caps, hooks, declared, expected):
    assert added(caps(hooks, **declared)) == expected


@pytest.mark.parametrize(
    ("hooks", "declared", "expected"),
    [
        (
            {"volume_health"},
            {},
            {"controller": {"GET_VOLUME_HEALTH", "LIST_VOLUME_HEALTH"}, "node": {"GET_VOLUME_HEALTH"}},
        ),
        ({"storage_health"}, {}, {"node": {"GET_STORAGE_HEALTH"}}),
        (
            SNAPSHOTS,
            {"reach": Reach.NODE_LOCAL},
            {
                "controller": {"CREATE_DELETE_SNAPSHOT", "GET_SNAPSHOT"},
                "plugin": {"SNAPSHOT_ACCESSIBILITY_CONSTRAINTS", "VOLUME_ACCESSIBILITY_CONSTRAINTS"},
            },
        ),
    ],
)
def test_alpha_ones_behind_the_setting(caps, hooks, declared, expected):
    assert added(caps(hooks, alpha=True, **declared)) == expected


def test_not_telling_writers_apart(caps):
    found = caps(single_node_multi_writer=False)
    assert "SINGLE_NODE_MULTI_WRITER" not in found.controller | found.node


def test_several_backends_advertise_what_any_can(description):
    one = Declared("one", REQUIRED | {"get_capacity"}, description)
    two = Declared("two", REQUIRED | SNAPSHOTS, description)
    assert derive([one, two], alpha=False).controller >= {"GET_CAPACITY", "CREATE_DELETE_SNAPSHOT"}


@pytest.mark.parametrize("field", ["single_node_multi_writer", "mount_group"])
def test_promises_about_every_volume_must_be_kept_by_all(description, field):
    yes = Declared("yes", REQUIRED, replace(description, **{field: True}))
    no = Declared("no", REQUIRED, replace(description, **{field: False}))
    name = {"single_node_multi_writer": "SINGLE_NODE_MULTI_WRITER", "mount_group": "VOLUME_MOUNT_GROUP"}[field]
    assert name in derive([yes, yes], alpha=False).node
    assert name not in derive([yes, no], alpha=False).node | derive([yes, no], alpha=False).controller


def test_one_offline_backend_makes_expansion_offline(description):
    online = Declared("on", REQUIRED | {"expand_volume"}, description)
    offline = Declared("off", REQUIRED | {"expand_volume"}, replace(description, online_expansion=False))
    cannot = Declared("no", REQUIRED, replace(description, online_expansion=False))
    assert {"ONLINE", "OFFLINE"} & derive([online, offline], alpha=False).plugin == {"OFFLINE"}
    assert {"ONLINE", "OFFLINE"} & derive([online, cannot], alpha=False).plugin == {"ONLINE"}


def test_one_reach_for_one_driver(description):
    local = Declared("loop", REQUIRED, replace(description, reach=Reach.NODE_LOCAL))
    network = Declared("nfs", REQUIRED, description)
    with pytest.raises(ConfigError, match="'loop' is node-local and 'nfs' is a network backend"):
        derive([network, local], alpha=False)


def test_every_name_is_one_of_csi(description):
    """Everything switched on at once."""
    everything = Declared(
        "all",
        frozenset(HOOKS),
        replace(description, sources=frozenset(SourceKind), mutable=Mutable, mount_group=True),
    )
    found = derive([everything], alpha=True)
    service, expansion = pb.PluginCapability.Service.Type, pb.PluginCapability.VolumeExpansion.Type
    assert found.plugin <= set(service.keys()) | set(expansion.keys())
    assert found.controller == set(pb.ControllerServiceCapability.RPC.Type.keys()) - {"UNKNOWN"}
    assert found.node == set(pb.NodeServiceCapability.RPC.Type.keys()) - {"UNKNOWN"}
    assert found.group == set(pb.GroupControllerServiceCapability.RPC.Type.keys()) - {"UNKNOWN"}
