"""``csi-core capacity``: the room that a running server has."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from csi_core.cli.client import Services, connected, parameter_option
from csi_core.cli.output import emit, output_option

__all__ = ["capacity"]


@click.command()
@parameter_option("StorageClass")
@connected
@output_option
def capacity(services: Services, parameters: Mapping[str, str], output: str) -> None:
    """Show the room that a running server has for new volumes with these StorageClass parameters."""
    answer = services.call(services.controller.GetCapacity, services.pb.GetCapacityRequest(parameters=parameters))
    row: dict[str, Any] = {"availableBytes": answer.available_capacity}
    if answer.HasField("maximum_volume_size"):
        row["largestVolumeBytes"] = answer.maximum_volume_size.value
    if answer.HasField("minimum_volume_size"):
        row["smallestVolumeBytes"] = answer.minimum_volume_size.value
    columns = {"AVAILABLE": "availableBytes", "LARGEST": "largestVolumeBytes", "SMALLEST": "smallestVolumeBytes"}
    emit([row], columns, output, "")
