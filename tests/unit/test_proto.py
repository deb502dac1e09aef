"""The stubs have the structure of CSI 1.13 and no other: names, numbers, types, streams, secret and alpha marks.

``csi-1.13.txt`` holds it in the form printed here. To see what a change of protos/csi.proto does to it, after
``make protos``: ``python tests/unit/test_proto.py | diff tests/unit/csi-1.13.txt -``.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from google.protobuf import descriptor_pb2 as d

from csi_core._proto import csi_pb2 as pb

SNAPSHOT = Path(__file__).with_name("csi-1.13.txt")
Field = d.FieldDescriptorProto


def structure(file: d.FileDescriptorProto) -> Iterator[str]:
    """One fact a line, in an order of its own: how the .proto is laid out does not count."""
    yield f"{file.syntax} {file.package}"
    yield from (f"extend {e.extendee} {e.number} {e.name}: {type_of(e, {})}" for e in file.extension)
    for enum in sorted(file.enum_type, key=lambda enum: enum.name):
        yield from of_enum(enum, enum.name)
    for message in sorted(file.message_type, key=lambda message: message.name):
        yield from of_message(message, message.name)
    for service in sorted(file.service, key=lambda service: service.name):
        yield f"service {service.name}{marks(service.options, alpha=pb.alpha_service)}"
        for rpc in sorted(service.method, key=lambda rpc: rpc.name):
            streams = "stream " * rpc.client_streaming, "stream " * rpc.server_streaming
            said = marks(rpc.options, alpha=pb.alpha_method)
            yield f"  {rpc.name}: {streams[0]}{rpc.input_type} -> {streams[1]}{rpc.output_type}{said}"


def of_enum(enum: d.EnumDescriptorProto, name: str) -> Iterator[str]:
    yield f"enum {name}{marks(enum.options, alpha=pb.alpha_enum)}"
    for value in sorted(enum.value, key=lambda value: value.number):
        yield f"  {value.number} {value.name}{marks(value.options, alpha=pb.alpha_enum_value)}"
    yield from (f"  {r.start}..{r.end} reserved" for r in enum.reserved_range)


def of_message(message: d.DescriptorProto, name: str) -> Iterator[str]:
    yield f"message {name}{marks(message.options, alpha=pb.alpha_message)}"
    maps = {f".csi.v1.{name}.{n.name}": n for n in message.nested_type if n.options.map_entry}
    for field in sorted(message.field, key=lambda field: field.number):
        one_of = f" in {message.oneof_decl[field.oneof_index].name}" if field.HasField("oneof_index") else ""
        said = marks(field.options, secret=pb.csi_secret, alpha=pb.alpha_field)
        yield f"  {field.number} {field.name}: {type_of(field, maps)}{one_of}{said}"
    yield from (f"  {r.start}..{r.end - 1} reserved" for r in message.reserved_range)
    for enum in sorted(message.enum_type, key=lambda enum: enum.name):
        yield from of_enum(enum, f"{name}.{enum.name}")
    for nested in sorted(message.nested_type, key=lambda nested: nested.name):
        if not nested.options.map_entry:
            yield from of_message(nested, f"{name}.{nested.name}")


def type_of(field: Field, maps: dict[str, d.DescriptorProto]) -> str:
    if field.type_name in maps:
        return f"map<{', '.join(type_of(part, {}) for part in maps[field.type_name].field)}>"
    many = "repeated " if field.label == Field.LABEL_REPEATED else ""
    return many + (field.type_name or Field.Type.Name(field.type).removeprefix("TYPE_").lower())


def marks(options: object, **extensions: object) -> str:
    return "".join(f" [{name}]" for name, extension in extensions.items() if options.Extensions[extension])


def compiled() -> d.FileDescriptorProto:
    file = d.FileDescriptorProto()
    pb.DESCRIPTOR.CopyToProto(file)
    return file


def test_the_stubs_are_csi_1_13() -> None:
    assert list(structure(compiled())) == SNAPSHOT.read_text(encoding="utf-8").splitlines()


def test_all_calls_are_there() -> None:
    assert sum(len(service.method) for service in compiled().service) == 36


def renumber_a_field(file: d.FileDescriptorProto) -> None:
    file.message_type[0].field[0].number += 40


def forget_a_secret(file: d.FileDescriptorProto) -> None:
    request = next(m for m in file.message_type if m.name == "CreateVolumeRequest")
    next(f for f in request.field if f.name == "secrets").options.ClearExtension(pb.csi_secret)


def free_a_reserved_number(file: d.FileDescriptorProto) -> None:
    next(m for m in file.message_type if m.reserved_range).ClearField("reserved_range")


def stop_streaming(file: d.FileDescriptorProto) -> None:
    next(s for s in file.service if s.name == "SnapshotMetadata").method[0].server_streaming = False


def rename_an_enum_value(file: d.FileDescriptorProto) -> None:
    file.enum_type[0].value[0].name += "_"


@pytest.mark.parametrize(
    "change", [renumber_a_field, forget_a_secret, free_a_reserved_number, stop_streaming, rename_an_enum_value]
)
def test_a_change_is_noticed(change: object) -> None:
    file = compiled()
    change(file)
    assert list(structure(file)) != SNAPSHOT.read_text(encoding="utf-8").splitlines()


if __name__ == "__main__":
    print(*structure(compiled()), sep="\n")
