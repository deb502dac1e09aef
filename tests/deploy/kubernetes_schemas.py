"""Kubernetes objects held against the schemas that the API servers themselves publish; unknown fields are refused."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import jsonschema
import modules
import yaml

__all__ = ["Schemas"]

Object = dict[str, Any]

CRDS = (
    (modules.SNAPSHOT_CLIENT, "config/crd/*_volume*.yaml"),
    (modules.OPERATOR, "example/prometheus-operator-crd/*_podmonitors.yaml"),
)

# The module of csi-snapshot-metadata cannot be fetched: its one object, written down from the CRD in its v1.1.0.
SNAPSHOT_METADATA_SERVICE: Object = {
    "type": "object",
    "required": ["apiVersion", "kind", "metadata", "spec"],
    "properties": {
        **{key: {"type": "string"} for key in ("apiVersion", "kind")},
        "metadata": {"type": "object"},
        "spec": {
            "type": "object",
            "required": ["address", "audience", "caCert"],
            "properties": {key: {"type": "string", "minLength": 1} for key in ("address", "audience", "caCert")},
        },
    },
}


class Schemas:
    """The schemas of one minor version of Kubernetes (``1.37``), and of the CRDs that the chart makes objects of."""

    def __init__(self, minor: str) -> None:
        self.minor = minor
        self._published = modules.directory(modules.KUBERNETES[minor]) / "api/openapi-spec/v3"

    def problems(self, thing: Object) -> list[str]:
        """What an API server would refuse, one line each with its place in the object."""
        validator = self._validator(thing["apiVersion"], thing["kind"])
        if validator is None:
            return [f"Kubernetes {self.minor} has no {thing['kind']} in {thing['apiVersion']}"]
        named = f"{thing['kind']} {thing['metadata'].get('name')}"
        return [f"{named}: {error.json_path}: {error.message}" for error in _leaves(validator.iter_errors(thing))]

    @functools.cache  # noqa: B019 - lives as long as the tests
    def _validator(self, api_version: str, kind: str) -> jsonschema.Draft202012Validator | None:
        schema = _crds().get((api_version, kind)) or self._own(api_version, kind)
        return jsonschema.Draft202012Validator(schema) if schema else None

    def _own(self, api_version: str, kind: str) -> Object | None:
        document = self._document(api_version)
        group, _, version = api_version.rpartition("/")
        wanted = {"group": group, "version": version, "kind": kind}
        for name, schema in document["components"]["schemas"].items():
            if wanted in schema.get("x-kubernetes-group-version-kind", ()):
                return {"$ref": f"#/components/schemas/{name}", **document}
        return None

    @functools.cache  # noqa: B019 - lives as long as the tests
    def _document(self, api_version: str) -> Object:
        group, _, version = api_version.rpartition("/")
        name = f"apis__{group}__{version}" if group else f"api__{version}"
        path = self._published / f"{name}_openapi.json"
        if not path.exists():
            return {"components": {"schemas": {}}}
        components = json.loads(path.read_text(encoding="utf-8"))["components"]
        return {"components": {"schemas": _strict(components["schemas"])}}


@functools.cache
def _crds() -> dict[tuple[str, str], Object]:
    found = {("cbt.storage.k8s.io/v1beta1", "SnapshotMetadataService"): _strict(SNAPSHOT_METADATA_SERVICE)}
    for module, files in CRDS:
        for file in sorted(modules.directory(module).glob(files)):
            found |= _definitions(file)
    return found


def _definitions(file: Path) -> dict[tuple[str, str], Object]:
    definition = yaml.safe_load(file.read_text(encoding="utf-8"))
    spec = definition["spec"]
    return {
        (f"{spec['group']}/{version['name']}", spec["names"]["kind"]): _strict(version["schema"]["openAPIV3Schema"])
        for version in spec["versions"]
        if version["served"]
    }


def _strict(schema: Any) -> Any:
    """The same schema where an object has its properties and no others; "nullable" as JSON Schema says it."""
    if isinstance(schema, list):
        return [_strict(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    strict = {key: _strict(value) for key, value in schema.items()}
    if isinstance(schema.get("properties"), dict) and schema.get("x-kubernetes-preserve-unknown-fields") is not True:
        strict.setdefault("additionalProperties", False)
    if strict.pop("nullable", False) is True and isinstance(schema.get("type"), str):
        strict["type"] = [schema["type"], "null"]
    return strict


def _leaves(errors: Iterable[jsonschema.ValidationError]) -> Iterable[jsonschema.ValidationError]:
    for error in errors:
        yield from _leaves(error.context) if error.context else (error,)
