"""``csi-core volumes``: the volumes of a running server."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from csi_core.cli.client import Services, connected, key_values, parameter_option, secrets_option
from csi_core.cli.output import emit, output_option, size_text

__all__ = ["volumes"]

_COLUMNS = {"VOLUME": "id", "SIZE": "sizeBytes", "SOURCE": "source", "NODES": "publishedNodeIds"}
_ACCESS_MODES = (
    "single_node_writer",
    "single_node_reader_only",
    "single_node_single_writer",
    "single_node_multi_writer",
    "multi_node_reader_only",
    "multi_node_single_writer",
    "multi_node_multi_writer",
)


def _size(context: click.Context, parameter: click.Parameter, text: str | None) -> int:
    """Click callback: a size in bytes; 0 where none is given."""
    from csi_core.parameters import parse_size  # noqa: PLC0415 - the start-up time of --help

    try:
        return parse_size(text) if text is not None else 0
    except ValueError as error:
        raise click.BadParameter(str(error), context, parameter) from None


@click.group()
def volumes() -> None:
    """List, create, delete and expand volumes of a running server."""


@volumes.command("list")
@connected
@output_option
def list_volumes(services: Services, output: str) -> None:
    """List all volumes."""
    entries = services.entries(services.controller.ListVolumes, services.pb.ListVolumesRequest())
    rows = [_row(entry.volume, entry.status.published_node_ids) for entry in entries]
    emit(rows, _COLUMNS, output, "There are no volumes.")


@volumes.command()
@click.argument("volume_id")
@connected
@output_option
def show(services: Services, volume_id: str, output: str) -> None:
    """Show one volume."""
    request = services.pb.ControllerGetVolumeRequest(volume_id=volume_id)
    answer = services.call(services.controller.ControllerGetVolume, request)
    columns = {**_COLUMNS, "TOPOLOGY": "topology", "CONTEXT": "context"}
    emit([_row(answer.volume, answer.status.published_node_ids)], columns, output, "")


@volumes.command()
@click.argument("name")
@click.option("--size", metavar="SIZE", callback=_size, help="Size, like 10Gi; the backend's default unless given.")
@click.option("--block", is_flag=True, help="A raw block volume instead of a filesystem.")
@click.option("--fs-type", metavar="NAME", default="", help="Filesystem; the backend's default unless given.")
@click.option(
    "--access-mode",
    type=click.Choice(_ACCESS_MODES),
    metavar="MODE",
    default="single_node_writer",
    help=f"How it is to be used: {', '.join(_ACCESS_MODES)}; the first unless given.",
)
@parameter_option("StorageClass")
@click.option(
    "--mutable",
    metavar="KEY=VALUE",
    multiple=True,
    callback=key_values,
    help="Parameter of the VolumeAttributesClass; once for each.",
)
@click.option("--from-snapshot", default="", metavar="SNAPSHOT_ID", help="Restore this snapshot.")
@click.option("--from-volume", default="", metavar="VOLUME_ID", help="Clone this volume.")
@secrets_option
@connected
@output_option
def create(
    services: Services,
    name: str,
    size: int,
    block: bool,
    fs_type: str,
    access_mode: str,
    parameters: Mapping[str, str],
    mutable: Mapping[str, str],
    from_snapshot: str,
    from_volume: str,
    secrets: Mapping[str, str],
    output: str,
) -> None:
    """Create a volume; the same NAME again answers the same volume."""
    if from_snapshot and from_volume:
        raise click.UsageError("--from-snapshot and --from-volume exclude each other")
    if block and fs_type:
        raise click.UsageError("--block and --fs-type exclude each other")
    pb = services.pb
    mode = pb.VolumeCapability.AccessMode(mode=pb.VolumeCapability.AccessMode.Mode.Value(access_mode.upper()))
    capability = (
        pb.VolumeCapability(access_mode=mode, block=pb.VolumeCapability.BlockVolume())
        if block
        else pb.VolumeCapability(access_mode=mode, mount=pb.VolumeCapability.MountVolume(fs_type=fs_type))
    )
    request = pb.CreateVolumeRequest(
        name=name,
        volume_capabilities=[capability],
        parameters=parameters,
        mutable_parameters=mutable,
        secrets=secrets,
    )
    if size:
        request.capacity_range.required_bytes = size
    if from_snapshot:
        request.volume_content_source.snapshot.snapshot_id = from_snapshot
    if from_volume:
        request.volume_content_source.volume.volume_id = from_volume
    answer = services.call(services.controller.CreateVolume, request)
    emit([_row(answer.volume, ())], _COLUMNS, output, "")


@volumes.command()
@click.argument("volume_ids", metavar="VOLUME_ID...", nargs=-1, required=True)
@secrets_option
@connected
def delete(services: Services, volume_ids: tuple[str, ...], secrets: Mapping[str, str]) -> None:
    """Delete volumes and all they hold; one that does not exist is fine."""
    for volume_id in volume_ids:
        request = services.pb.DeleteVolumeRequest(volume_id=volume_id, secrets=secrets)
        services.call(services.controller.DeleteVolume, request)
        click.echo(f"{volume_id} is deleted.")


@volumes.command()
@click.argument("volume_id")
@click.option(
    "--size",
    metavar="SIZE",
    required=True,
    callback=_size,
    help="New size, like 20Gi; never smaller than the present one.",
)
@click.option("--path", metavar="PATH", help="Where it is published on this node; node-local volumes grow through it.")
@secrets_option
@connected
def expand(services: Services, volume_id: str, size: int, path: str | None, secrets: Mapping[str, str]) -> None:
    """Grow a volume.

    A published filesystem grows when --path names where it is mounted; without, the volume alone grows, and its
    filesystem the next time it is staged.
    """
    pb = services.pb
    wanted = pb.CapacityRange(required_bytes=size)
    if path is not None:
        at_node = pb.NodeExpandVolumeRequest(volume_id=volume_id, volume_path=path, capacity_range=wanted)
        grown_bytes = services.call(services.node.NodeExpandVolume, at_node).capacity_bytes
    else:
        request = pb.ControllerExpandVolumeRequest(volume_id=volume_id, capacity_range=wanted, secrets=secrets)
        grown_bytes = services.call(services.controller.ControllerExpandVolume, request).capacity_bytes
    click.echo(f"{volume_id} has {size_text(grown_bytes)}.")


def _row(volume: Any, published_node_ids: Any) -> dict[str, Any]:
    source = volume.content_source
    return {
        "id": volume.volume_id,
        "sizeBytes": volume.capacity_bytes,
        "source": source.snapshot.snapshot_id or source.volume.volume_id,
        "publishedNodeIds": list(published_node_ids),
        "topology": {key: value for t in volume.accessible_topology for key, value in t.segments.items()},
        "context": dict(volume.volume_context),
    }
