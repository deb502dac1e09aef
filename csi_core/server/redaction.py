"""Requests for the log, without what must not be in it: fields with option ``csi_secret``, and mount flags.

What is secret is read from the descriptors, once for each message type, so a field that CSI adds
later is covered the day the stubs are generated anew.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

from csi_core._proto import csi_pb2 as pb

__all__ = ["REDACTED", "redacted"]

REDACTED = "***"
_ALSO_SECRET = frozenset({"mount_flags"})
"""May hold credentials (``password=`` of a network filesystem): CSI calls them sensitive."""


def redacted(message: Message) -> Mapping[str, object]:
    """The fields that are set, as plain values; secret ones keep their keys and lose their values."""
    secret = _secret_fields(message.DESCRIPTOR)
    return {
        field.name: _hide(field, value) if field.name in secret else _plain(field, value)
        for field, value in message.ListFields()
    }


@cache
def _secret_fields(descriptor: Descriptor) -> frozenset[str]:
    return frozenset(
        field.name
        for field in descriptor.fields
        if field.GetOptions().Extensions[pb.csi_secret] or field.name in _ALSO_SECRET
    )


def _is_map(field: FieldDescriptor) -> bool:
    return field.message_type is not None and field.message_type.GetOptions().map_entry


def _hide(field: FieldDescriptor, value: object) -> object:
    return dict.fromkeys(value, REDACTED) if _is_map(field) and isinstance(value, Mapping) else REDACTED


def _plain(field: FieldDescriptor, value: object) -> object:
    if _is_map(field) and isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, Message):
        return redacted(value)
    if field.is_repeated and isinstance(value, Sequence):
        return [redacted(item) if isinstance(item, Message) else item for item in value]
    if field.enum_type is not None and isinstance(value, int):
        known = field.enum_type.values_by_number.get(value)
        return known.name if known else value
    return value
