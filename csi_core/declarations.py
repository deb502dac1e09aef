"""Whether what ``describe`` declares fits the hooks a backend implements, and itself.

Checked once, after ``start``: a promise the backend cannot keep is found here, not by the first claim that needs it.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Iterator, Mapping, Set

from csi_core.errors import PluginError
from csi_core.model import AccessMode, Description, Reach, SourceKind, VolumeMode
from csi_core.node.mkfs_options import FILESYSTEMS
from csi_core.parameters import Parameters

__all__ = ["check_declarations"]

_TOGETHER = (
    ("create_snapshot", "delete_snapshot", "get_snapshot"),
    ("create_group_snapshot", "delete_group_snapshot", "get_group_snapshot"),
    ("publish_volume", "unpublish_volume"),
    ("allocated_blocks", "changed_blocks"),
)
"""Hooks of which all or none are implemented: CSI has one capability for each group."""

_NEEDS = {
    "list_snapshots": "create_snapshot",
    "create_group_snapshot": "create_snapshot",
    "allocated_blocks": "create_snapshot",
    "repair": "diagnose",
}
"""Hooks that make no sense without another."""

_PLAIN: Mapping[str, type] = {
    "summary": str,
    "facts": Mapping,
    "size_granularity_bytes": int,
    "minimum_size_bytes": int,
    "default_size_bytes": int,
    "max_volumes_per_node": int,
    "online_expansion": bool,
    "ephemeral": bool,
    "single_node_multi_writer": bool,
    "mount_group": bool,
}
_PLAIN_NAMES = {str: "a string", Mapping: "a mapping of strings", int: "a whole number", bool: "True or False"}

_TELLING_WRITERS_APART = frozenset({AccessMode.SINGLE_NODE_SINGLE_WRITER, AccessMode.SINGLE_NODE_MULTI_WRITER})


def check_declarations(name: str, hooks: frozenset[str], description: object) -> Description:
    """The description, found sound.

    Args:
        name: the backend's configured name, for messages.
        hooks: those it implements.
        description: what its ``describe`` answered.

    Raises:
        PluginError: names every declaration that does not hold.
    """
    if not isinstance(description, Description):
        raise PluginError(
            f"backend {name!r}: describe answered {type(description).__name__}, not a csi_core.model.Description"
        )
    # Of a value of another kind, such as "node-local" for Reach.NODE_LOCAL, nothing more can be said.
    problems = list(_kinds(description))
    problems = problems or [*_hooks_apart(hooks), *_promises(hooks, description), *_values(description)]
    if problems:
        raise PluginError(f"backend {name!r}: " + "; ".join(problems))
    return description


def _hooks_apart(hooks: frozenset[str]) -> Iterator[str]:
    for together in _TOGETHER:
        missing = [hook for hook in together if hook not in hooks]
        if 0 < len(missing) < len(together):
            there = next(hook for hook in together if hook in hooks)
            yield f"{there} is implemented without {' and '.join(missing)}"
    for hook, needed in _NEEDS.items():
        if hook in hooks and needed not in hooks:
            yield f"{hook} is implemented without {needed}"


def _promises(hooks: frozenset[str], description: Description) -> Iterator[str]:
    if description.ephemeral and "find_volume" not in hooks:
        yield "ephemeral volumes are declared, and find_volume is not implemented"
    if description.filesystems and "mark_formatted" not in hooks:
        yield "filesystems are declared, and mark_formatted is not implemented (a volume could be formatted twice)"
    if SourceKind.SNAPSHOT in description.sources and "create_snapshot" not in hooks:
        yield "snapshots are declared as sources, and create_snapshot is not implemented"
    if _has_keys(description.mutable) and "modify_volume" not in hooks:
        yield "mutable parameters are declared, and modify_volume is not implemented"
    if _has_keys(description.snapshot_parameters) and "create_snapshot" not in hooks:
        yield "snapshot parameters are declared, and create_snapshot is not implemented"


def _kinds(description: Description) -> Iterator[str]:
    if not isinstance(description.access, Mapping):
        yield f"access is {description.access!r}; it is {{VolumeMode.FILESYSTEM: frozenset({{AccessMode...}})}}"
        return
    for field, plain in _PLAIN.items():
        value = getattr(description, field)
        if not isinstance(value, plain) or (isinstance(value, bool) and plain is not bool):
            yield f"{field} is {value!r}; it is {_PLAIN_NAMES[plain]}"
    given: list[tuple[str, type[enum.Enum], Iterable[object]]] = [
        ("reach", Reach, [description.reach]),
        ("access", VolumeMode, description.access),
        *((f"access[{getattr(mode, 'value', mode)}]", AccessMode, modes) for mode, modes in description.access.items()),
        ("sources", SourceKind, description.sources),
    ]
    for field, kind, values in given:
        if kind in (AccessMode, SourceKind) and not isinstance(values, Set):
            yield f"{field} is {values!r}; it is a frozenset of csi_core.model.{kind.__name__}"
            continue
        for value in values:
            if not isinstance(value, kind):
                yield f"{field} has {value!r}, which is no csi_core.model.{kind.__name__}{_member(kind, value)}"
    if isinstance(description.filesystems, str):
        yield f"filesystems is {description.filesystems!r}; write ({description.filesystems!r},)"
    elif not isinstance(description.filesystems, list | tuple):
        yield f"filesystems is {description.filesystems!r}; it is a tuple of strings"
    elif unknown := [fs_type for fs_type in description.filesystems if fs_type not in FILESYSTEMS]:
        yield f"filesystems has {unknown[0]!r}; the core makes {', '.join(FILESYSTEMS)}"


def _member(kind: type[enum.Enum], value: object) -> str:
    """``"; write Reach.NODE_LOCAL"`` where ``value`` is the value of a member instead of the member."""
    meant = next((member for member in kind if member.value == value), None)
    return f"; write {kind.__name__}.{meant.name}" if meant else ""


def _values(description: Description) -> Iterator[str]:
    if not description.access:
        yield "access declares no volume mode, so no volume could ever be created"
    for volume_mode, access_modes in description.access.items():
        if not access_modes:
            yield f"access declares no access mode for {volume_mode.value} volumes; leave the volume mode out instead"
        missing = _TELLING_WRITERS_APART - access_modes
        if description.single_node_multi_writer and AccessMode.SINGLE_NODE_WRITER in access_modes and missing:
            # With the capability, Kubernetes asks for these two and never for SINGLE_NODE_WRITER.
            yield (
                f"single_node_multi_writer is declared, and access[{volume_mode.value}] lacks "
                f"{' and '.join(sorted(mode.value for mode in missing))}; add them, or declare it False"
            )
    for field in ("parameters", "mutable", "secrets", "snapshot_parameters"):
        model = getattr(description, field)
        if not (isinstance(model, type) and issubclass(model, Parameters)):
            yield f"{field} must be a subclass of csi_core.parameters.Parameters, not {model!r}"
    if description.size_granularity_bytes < 1:
        yield f"size_granularity_bytes is {description.size_granularity_bytes}; it is at least 1"
    if not 0 < description.minimum_size_bytes <= description.default_size_bytes:
        yield (
            f"minimum_size_bytes ({description.minimum_size_bytes}) must be above 0 and at most "
            f"default_size_bytes ({description.default_size_bytes})"
        )
    if description.max_volumes_per_node < 0:
        yield f"max_volumes_per_node is {description.max_volumes_per_node}; 0 means no limit"


def _has_keys(model: object) -> bool:
    return bool(getattr(model, "model_fields", None))
