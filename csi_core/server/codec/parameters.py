"""Opaque maps: what the sidecars add is taken out, the rest becomes the backend's own models."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

from csi_core.model import Description
from csi_core.parameters import Parameters, keys, parse_parameters

__all__ = [
    "EPHEMERAL",
    "KUBERNETES_PREFIX",
    "Chosen",
    "choose",
    "claim_of",
    "parse_mutable",
    "parse_secrets",
    "parse_snapshot_parameters",
    "plain",
]

KUBERNETES_PREFIX = "csi.storage.k8s.io/"
"""Keys that the Kubernetes sidecars and kubelet add by themselves."""

EPHEMERAL = KUBERNETES_PREFIX + "ephemeral"
"""Says "true" in the context of an inline volume; recorded with it, so that nothing else is ever deleted as one."""


@dataclass(frozen=True, slots=True)
class Chosen:
    """The parameters of a new volume: as models, and as the strings to record and compare."""

    parameters: Parameters
    recorded: Mapping[str, str]
    mutable: Parameters
    recorded_mutable: Mapping[str, str]


def plain(given: Mapping[str, str]) -> dict[str, str]:
    """The entries that people wrote, without those that the sidecars added."""
    return {key: value for key, value in given.items() if not key.startswith(KUBERNETES_PREFIX)}


def claim_of(given: Mapping[str, str]) -> str:
    """namespace/name of the claim, where the provisioner runs with ``--extra-create-metadata``; else ""."""
    name = given.get(KUBERNETES_PREFIX + "pvc/name")
    namespace = given.get(KUBERNETES_PREFIX + "pvc/namespace")
    return f"{namespace}/{name}" if name and namespace else ""


@cache
def _keys(model: type[Parameters]) -> frozenset[str]:
    return frozenset(keys(model))


@cache
def _none_given(model: type[Parameters], what: str) -> Parameters:
    return parse_parameters(model, {}, what)


def _parse(model: type[Parameters], given: Mapping[str, str], what: str) -> Parameters:
    return parse_parameters(model, given, what) if given else _none_given(model, what)


def choose(description: Description, given: Mapping[str, str], mutable: Mapping[str, str]) -> Chosen:
    """What a new volume is made with.

    A key that both models take is overridden by its mutable value. A class may give first values to
    keys that are mutable only.

    Args:
        description: of the volume's backend.
        given: ``parameters`` of the request, without the key ``backend`` and the sidecars' keys.
        mutable: ``mutable_parameters`` of the request.

    Raises:
        InvalidArgument: names every unknown key and bad value.
    """
    if not given and not mutable:
        none = _none_given(description.parameters, "parameter"), _none_given(description.mutable, "mutable parameter")
        return Chosen(none[0], {}, none[1], {})
    fixed_keys, mutable_keys = _keys(description.parameters), _keys(description.mutable)
    recorded_mutable = {k: v for k, v in given.items() if k in mutable_keys} | dict(mutable)
    recorded = {k: v for k, v in given.items() if k in fixed_keys or k not in mutable_keys}
    recorded |= {k: v for k, v in mutable.items() if k in fixed_keys}
    return Chosen(
        _parse(description.parameters, recorded, "parameter"),
        recorded,
        _parse(description.mutable, recorded_mutable, "mutable parameter"),
        recorded_mutable,
    )


def parse_secrets(description: Description, secrets: Mapping[str, str]) -> Parameters:
    """The backend's secrets model; no value of a secret appears in an error."""
    return _parse(description.secrets, secrets, "secret")


def parse_snapshot_parameters(description: Description, given: Mapping[str, str]) -> Parameters:
    """The backend's model of VolumeSnapshotClass parameters."""
    return _parse(description.snapshot_parameters, given, "snapshot parameter")


def parse_mutable(description: Description, given: Mapping[str, str]) -> Parameters:
    """The backend's model of VolumeAttributesClass parameters."""
    return _parse(description.mutable, given, "mutable parameter")
