"""What describe promises against what is implemented."""

from __future__ import annotations

from dataclasses import replace

import pytest

from csi_core.errors import PluginError
from csi_core.hookspecs import hookimpl
from csi_core.model import AccessMode, SourceKind, VolumeMode
from csi_core.parameters import Parameters

FILESYSTEM = VolumeMode.FILESYSTEM


class Keys(Parameters):
    key: str = ""


@pytest.fixture
def refusal(smallest, description, started):
    """The message with which a backend with these hooks and declarations is refused."""

    def start(*hooks, **declared):
        extra = {name: hookimpl(lambda self: None) for name in hooks}
        plugin = type("Plugin", (smallest,), extra)()
        plugin.description = replace(description, **declared)
        with pytest.raises(PluginError) as caught:
            started(plugin)
        return str(caught.value)

    return start


@pytest.fixture
def accepted(smallest, description, started):
    def start(*hooks, **declared):
        extra = {name: hookimpl(lambda self: None) for name in hooks}
        plugin = type("Plugin", (smallest,), extra)()
        plugin.description = replace(description, **declared)
        return started(plugin)

    return start


@pytest.mark.parametrize(
    ("declared", "hook", "said"),
    [
        ({"ephemeral": True}, "find_volume", "ephemeral volumes are declared, and find_volume is not implemented"),
        ({"filesystems": ("ext4",)}, "mark_formatted", "mark_formatted is not implemented (a volume could be"),
        ({"mutable": Keys}, "modify_volume", "mutable parameters are declared, and modify_volume is not implemented"),
    ],
)
def test_a_promise_that_needs_a_hook(refusal, accepted, declared, hook, said):
    assert said in refusal(**declared)
    accepted(hook, **declared)


SNAPSHOTS = ("create_snapshot", "delete_snapshot", "get_snapshot")


@pytest.mark.parametrize("declared", [{"sources": frozenset({SourceKind.SNAPSHOT})}, {"snapshot_parameters": Keys}])
def test_snapshots_declared_and_not_taken(refusal, accepted, declared):
    assert "create_snapshot is not implemented" in refusal(**declared)
    accepted(*SNAPSHOTS, **declared)


@pytest.mark.parametrize(
    ("hooks", "said"),
    [
        (("delete_snapshot",), "delete_snapshot is implemented without create_snapshot and get_snapshot"),
        (("create_snapshot", "get_snapshot"), "create_snapshot is implemented without delete_snapshot"),
        (("list_snapshots",), "list_snapshots is implemented without create_snapshot"),
        (("publish_volume",), "publish_volume is implemented without unpublish_volume"),
        (("unpublish_volume",), "unpublish_volume is implemented without publish_volume"),
        ((*SNAPSHOTS, "changed_blocks"), "changed_blocks is implemented without allocated_blocks"),
        (("allocated_blocks", "changed_blocks"), "allocated_blocks is implemented without create_snapshot"),
        ((*SNAPSHOTS, "create_group_snapshot"), "without delete_group_snapshot and get_group_snapshot"),
        (
            ("create_group_snapshot", "delete_group_snapshot", "get_group_snapshot"),
            "create_group_snapshot is implemented without create_snapshot",
        ),
        (("repair",), "repair is implemented without diagnose"),
    ],
)
def test_hooks_that_belong_together(refusal, hooks, said):
    assert said in refusal(*hooks)


@pytest.mark.parametrize(
    ("declared", "said"),
    [
        ({"access": {}}, "access declares no volume mode"),
        ({"access": {FILESYSTEM: frozenset()}}, "no access mode for filesystem volumes"),
        ({"parameters": dict}, "parameters must be a subclass of csi_core.parameters.Parameters"),
        ({"secrets": None}, "secrets must be a subclass"),
        ({"size_granularity_bytes": 0}, "size_granularity_bytes is 0; it is at least 1"),
        ({"minimum_size_bytes": 0}, "minimum_size_bytes (0) must be above 0"),
        ({"minimum_size_bytes": 8, "default_size_bytes": 4}, "at most default_size_bytes (4)"),
        ({"max_volumes_per_node": -1}, "max_volumes_per_node is -1; 0 means no limit"),
    ],
)
def test_values_that_make_no_sense(refusal, declared, said):
    assert said in refusal(**declared)


WRITER = AccessMode.SINGLE_NODE_WRITER


@pytest.mark.parametrize(
    ("declared", "said"),
    [
        ({"reach": "node-local"}, "reach has 'node-local', which is no csi_core.model.Reach; write Reach.NODE_LOCAL"),
        ({"reach": "local"}, "reach has 'local', which is no csi_core.model.Reach"),
        ({"access": [FILESYSTEM]}, "access is [<VolumeMode.FILESYSTEM: 'filesystem'>]; it is {VolumeMode.FILESYSTEM"),
        ({"size_granularity_bytes": "4096"}, "size_granularity_bytes is '4096'; it is a whole number"),
        ({"default_size_bytes": None}, "default_size_bytes is None; it is a whole number"),
        ({"minimum_size_bytes": True}, "minimum_size_bytes is True; it is a whole number"),
        ({"max_volumes_per_node": "3"}, "max_volumes_per_node is '3'; it is a whole number"),
        ({"online_expansion": "no"}, "online_expansion is 'no'; it is True or False"),
        ({"summary": None}, "summary is None; it is a string"),
        ({"facts": None}, "facts is None; it is a mapping of strings"),
        ({"filesystems": None}, "filesystems is None; it is a tuple of strings"),
        ({"filesystems": ("ntfs",)}, "filesystems has 'ntfs'; the core makes ext4, xfs, btrfs"),
        (
            {"access": {"block": {WRITER}}},
            "access has 'block', which is no csi_core.model.VolumeMode; write VolumeMode",
        ),
        ({"access": {FILESYSTEM: {"rwo"}}}, "access[filesystem] has 'rwo', which is no csi_core.model.AccessMode"),
        ({"access": {FILESYSTEM: [WRITER]}}, "it is a frozenset of csi_core.model.AccessMode"),
        ({"sources": (SourceKind.VOLUME,)}, "it is a frozenset of csi_core.model.SourceKind"),
        ({"sources": {"snapshot"}}, "write SourceKind.SNAPSHOT"),
        ({"filesystems": "ext4"}, "filesystems is 'ext4'; write ('ext4',)"),
    ],
)
def test_values_of_another_kind_are_not_taken_for_something_else(refusal, declared, said):
    """Compared by identity, a string would be neither node-local nor any access mode, and nobody would notice."""
    assert said in refusal(**declared)


def test_telling_writers_apart_needs_both_modes(refusal, accepted):
    """With the capability Kubernetes never asks for SINGLE_NODE_WRITER: every ReadWriteOnce claim would be refused."""
    only = {FILESYSTEM: frozenset({AccessMode.SINGLE_NODE_WRITER, AccessMode.SINGLE_NODE_SINGLE_WRITER})}
    said = refusal(access=only)
    assert "single_node_multi_writer is declared, and access[filesystem] lacks single_node_multi_writer;" in said
    accepted(access=only, single_node_multi_writer=False)


def test_every_problem_is_told_at_once(refusal):
    said = refusal("repair", ephemeral=True, max_volumes_per_node=-1)
    assert said.startswith("backend 'b': ")
    assert said.count(";") >= 2
    assert "diagnose" in said and "find_volume" in said and "max_volumes_per_node" in said


def test_describe_must_answer_a_description(smallest, started):
    plugin = smallest()
    plugin.description = None
    with pytest.raises(PluginError, match="describe answered NoneType, not a csi_core.model.Description"):
        started(plugin)
