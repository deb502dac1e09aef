"""Volume capabilities: how a volume is to be used, judged against what its backend declares."""

from __future__ import annotations

from collections.abc import Sequence

from csi_core._proto import csi_pb2 as pb
from csi_core.errors import InvalidArgument
from csi_core.model import AccessMode, Description, VolumeCapability, VolumeMode
from csi_core.server.codec.fields import check_string, check_strings, require

__all__ = ["check_served", "decode_capabilities", "decode_capability", "encode_capability", "unserved"]

_MODES = {
    number: AccessMode(name.lower())
    for name, number in pb.VolumeCapability.AccessMode.Mode.items()
    if name != "UNKNOWN"
}
_NUMBERS = {mode: number for number, mode in _MODES.items()}


def decode_capability(message: pb.VolumeCapability, field: str = "volume_capability") -> VolumeCapability:
    """One capability, complete in itself; whether the backend serves it is :func:`check_served`.

    Raises:
        InvalidArgument: no access type, no access mode, or one that CSI 1.13 does not know.
    """
    access_type = message.WhichOneof("access_type")
    if access_type is None:
        raise InvalidArgument(f"{field}: an access type is required: mount or block")
    number = message.access_mode.mode
    mode = _MODES.get(number)
    if mode is None:
        raise InvalidArgument(f"{field}: access mode {number} is " + ("unknown" if number else "required"))
    if access_type == "block":
        return VolumeCapability(VolumeMode.BLOCK, mode)
    mount = message.mount
    check_string(mount.fs_type, f"{field}.mount.fs_type")
    check_string(mount.volume_mount_group, f"{field}.mount.volume_mount_group")
    flags = tuple(mount.mount_flags)
    if flags:
        check_strings(flags, f"{field}.mount.mount_flags")
    return VolumeCapability(VolumeMode.FILESYSTEM, mode, mount.fs_type, flags, mount.volume_mount_group)


def decode_capabilities(messages: Sequence[pb.VolumeCapability]) -> tuple[VolumeCapability, ...]:
    """The capabilities of one request: at least one, all for the same volume mode.

    Raises:
        InvalidArgument: none, a malformed one, or mount and block mixed.
    """
    require(messages, "volume_capabilities")
    capabilities = tuple([decode_capability(message, "volume_capabilities") for message in messages])
    if any(c.volume_mode is not capabilities[0].volume_mode for c in capabilities):
        raise InvalidArgument("volume_capabilities: mount and block cannot be mixed in one volume")
    return capabilities


def unserved(capability: VolumeCapability, description: Description) -> str | None:
    """Why a backend does not serve this capability, or None where it does."""
    modes = description.access.get(capability.volume_mode, frozenset())
    if capability.access_mode not in modes:
        served = ", ".join(sorted(mode.name for mode in modes)) or "none"
        return (
            f"access mode {capability.access_mode.name} is not served for "
            f"{capability.volume_mode.value} volumes; served: {served}"
        )
    if capability.fs_type and capability.fs_type not in description.filesystems:
        served = ", ".join(description.filesystems) or "none, leave it out"
        return f"filesystem {capability.fs_type!r} is not served; served: {served}"
    if capability.mount_group and not description.mount_group:
        return "a volume mount group is not served"
    return None


def check_served(capabilities: Sequence[VolumeCapability], description: Description) -> None:
    """Refuse capabilities that the backend does not declare.

    Raises:
        InvalidArgument: says which, and what is served instead.
    """
    for capability in capabilities:
        if reason := unserved(capability, description):
            raise InvalidArgument(reason)


def encode_capability(capability: VolumeCapability) -> pb.VolumeCapability:
    """The message for one capability."""
    access_mode = pb.VolumeCapability.AccessMode(mode=_NUMBERS[capability.access_mode])
    if capability.volume_mode is VolumeMode.BLOCK:
        return pb.VolumeCapability(block=pb.VolumeCapability.BlockVolume(), access_mode=access_mode)
    mount = pb.VolumeCapability.MountVolume(
        fs_type=capability.fs_type,
        mount_flags=capability.mount_flags,
        volume_mount_group=capability.mount_group,
    )
    return pb.VolumeCapability(mount=mount, access_mode=access_mode)
