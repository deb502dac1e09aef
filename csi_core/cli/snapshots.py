"""``csi-core snapshots``: the snapshots of a running server."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC
from typing import Any

import click

from csi_core.cli.client import Services, connected, parameter_option, secrets_option
from csi_core.cli.output import emit, output_option

__all__ = ["snapshots"]

_COLUMNS = {
    "SNAPSHOT": "id",
    "VOLUME": "volumeId",
    "SIZE": "sizeBytes",
    "TAKEN": "createdAt",
    "READY": "ready",
    "GROUP": "groupId",
}


@click.group()
def snapshots() -> None:
    """List, take and delete snapshots of a running server."""


@snapshots.command("list")
@click.option("--volume", "volume_id", default="", metavar="VOLUME_ID", help="Of this volume only.")
@secrets_option
@connected
@output_option
def list_snapshots(services: Services, volume_id: str, secrets: Mapping[str, str], output: str) -> None:
    """List all snapshots."""
    request = services.pb.ListSnapshotsRequest(source_volume_id=volume_id, secrets=secrets)
    rows = [_row(entry.snapshot) for entry in services.entries(services.controller.ListSnapshots, request)]
    emit(rows, _COLUMNS, output, "There are no snapshots.")


@snapshots.command(short_help="Take a snapshot; the same NAME again answers the same.")
@click.argument("volume_id")
@click.argument("name")
@parameter_option("VolumeSnapshotClass")
@secrets_option
@connected
@output_option
def create(
    services: Services,
    volume_id: str,
    name: str,
    parameters: Mapping[str, str],
    secrets: Mapping[str, str],
    output: str,
) -> None:
    """Take a snapshot of VOLUME_ID; the same NAME again answers the same snapshot."""
    request = services.pb.CreateSnapshotRequest(
        source_volume_id=volume_id, name=name, parameters=parameters, secrets=secrets
    )
    answer = services.call(services.controller.CreateSnapshot, request)
    emit([_row(answer.snapshot)], _COLUMNS, output, "")


@snapshots.command()
@click.argument("snapshot_ids", metavar="SNAPSHOT_ID...", nargs=-1, required=True)
@secrets_option
@connected
def delete(services: Services, snapshot_ids: tuple[str, ...], secrets: Mapping[str, str]) -> None:
    """Delete snapshots; one that does not exist is fine."""
    for snapshot_id in snapshot_ids:
        request = services.pb.DeleteSnapshotRequest(snapshot_id=snapshot_id, secrets=secrets)
        services.call(services.controller.DeleteSnapshot, request)
        click.echo(f"{snapshot_id} is deleted.")


def _row(snapshot: Any) -> dict[str, Any]:
    return {
        "id": snapshot.snapshot_id,
        "volumeId": snapshot.source_volume_id,
        "sizeBytes": snapshot.size_bytes,
        "createdAt": snapshot.creation_time.ToDatetime(tzinfo=UTC).isoformat(timespec="seconds"),
        "ready": snapshot.ready_to_use,
        "groupId": snapshot.group_snapshot_id,
    }
