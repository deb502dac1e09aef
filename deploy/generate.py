"""Writes what is generated below deploy/; with ``--check``, fails where it is not up to date.

That is ``chart/values.schema.json``, from ``values.schema.yaml``, csi-core's configuration schema and the doc lines of
the chart's values; and ``manifests/*.yaml``, which are the chart with each of its ``drivers/*.yaml``.
"""

from __future__ import annotations

import argparse
import difflib
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from csi_core.config_check import json_schema

DEPLOY = Path(__file__).parent
CHART = DEPLOY / "chart"
HELM = DEPLOY.parent / ".ci/helm"
NAMESPACE = "csi-core"
# What the manifests are rendered for; the tests try others.
KUBERNETES = "1.34.0"

Schema = dict[str, Any]
KEY = re.compile(r"( *)([A-Za-z]+):")


def main() -> int:
    """Bring every file up to date."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 and show what would change")
    check = parser.parse_args().check
    stale = [path for path, text in _generated() if _bring_up_to_date(path, text, check)]
    if stale and check:
        sys.stdout.write("Not up to date: run `make manifests` and commit the result.\n")
    return 1 if stale and check else 0


def _generated() -> Iterator[tuple[Path, str]]:
    yield CHART / "values.schema.json", json.dumps(values_schema(), indent=2) + "\n"
    for values in sorted((CHART / "drivers").glob("*.yaml")):
        yield DEPLOY / "manifests" / values.name, manifest(values)


def values_schema() -> Schema:
    """The schema of the chart's values."""
    schema: Schema = yaml.safe_load((DEPLOY / "values.schema.yaml").read_text(encoding="utf-8"))
    definitions: Schema = schema["$defs"]
    settings = definitions.pop("settings")["properties"]
    properties = schema["properties"]
    properties["defaults"]["properties"] = settings
    properties["drivers"]["additionalProperties"]["properties"] |= settings
    definitions |= _config_definitions()
    for path, text in doc_lines((CHART / "values.yaml").read_text(encoding="utf-8")).items():
        place = schema
        for key in path:
            place = _resolve(place, definitions)["properties"][key]
        # A definition that several values share cannot have the description of one.
        place["description"] = text
    return schema


def doc_lines(values: str) -> dict[tuple[str, ...], str]:
    """The comment that begins with ``--`` over a value, by the value's path."""
    documented: dict[tuple[str, ...], str] = {}
    path: list[tuple[int, str]] = []
    comment: list[str] = []
    for line in values.splitlines():
        stripped = line.strip()
        if stripped.startswith("# "):
            comment = [stripped[5:]] if stripped.startswith("# -- ") else [*comment, stripped[2:]] if comment else []
        elif match := KEY.match(line):
            indent = len(match[1])
            path = [*(part for part in path if part[0] < indent), (indent, match[2])]
            if comment:
                documented[tuple(key for _, key in path)] = " ".join(comment)
            comment = []
        else:
            comment = []
    return documented


def _resolve(schema: Schema, definitions: Schema) -> Schema:
    reference = schema.get("$ref")
    return definitions[reference.removeprefix("#/$defs/")] if reference else schema


def _config_definitions() -> Schema:
    """csi-core's own schema as definitions: ``config`` for the whole, ``config.NAME`` for its parts."""
    config = json.loads(json.dumps(json_schema()).replace('"#/$defs/', '"#/$defs/config.'))
    del config["$schema"]
    parts = config.pop("$defs")
    return {"config": config} | {f"config.{name}": part for name, part in parts.items()}


def manifest(values: Path) -> str:
    """Everything to apply for the drivers of one values file."""
    release = "csi-core"
    rendered = subprocess.run(
        [HELM, "template", release, CHART, "--namespace", NAMESPACE, "--kube-version", KUBERNETES, "--values", values],
        capture_output=True,
        text=True,
        check=False,
    )
    if rendered.returncode:
        raise SystemExit(rendered.stderr)
    return (
        f"# The chart with drivers/{values.name}, rendered by `make manifests`. Edit the chart, or render your own:\n"
        f"#   helm template {release} deploy/chart -n {NAMESPACE} -f deploy/chart/drivers/{values.name}\n"
        f"apiVersion: v1\n"
        f"kind: Namespace\n"
        f"metadata:\n"
        f"  name: {NAMESPACE}\n"
        f"  labels: {{pod-security.kubernetes.io/enforce: privileged}}\n"
        f"{rendered.stdout}"
    )


def _bring_up_to_date(path: Path, text: str, check: bool) -> bool:
    """Write one file; answer whether it was stale."""
    old = path.read_text(encoding="utf-8") if path.exists() else ""
    if text == old:
        return False
    name = str(path.relative_to(DEPLOY.parent))
    if check:
        sys.stdout.writelines(
            difflib.unified_diff(old.splitlines(True), text.splitlines(True), name, f"{name}, generated")
        )
    else:
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
        sys.stdout.write(f"wrote {name}\n")
    return True


if __name__ == "__main__":
    sys.exit(main())
