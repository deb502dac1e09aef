"""What Helm says after an installation; ``helm template`` shows it to nobody, so it is put into an object."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import helm
import pytest

SHOWN = """\
apiVersion: v1
kind: ConfigMap
metadata: {name: notes}
data: {text: {{ tpl (.Files.Get "notes") . | toJson }}}
"""


@pytest.fixture
def notes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    chart = tmp_path / "chart"
    shutil.copytree(helm.CHART, chart)
    shutil.copy(chart / "templates/NOTES.txt", chart / "notes")
    (chart / "templates/shown.yaml").write_text(SHOWN)
    monkeypatch.setattr(helm, "CHART", chart)

    def render(*files: Path, values: Mapping[str, Any] | None = None) -> str:
        objects = helm.render(*files, values=values)
        return next(thing["data"]["text"] for thing in objects if thing["metadata"]["name"] == "notes")

    return render


def test_a_driver_its_classes_and_where_to_look(notes: Any) -> None:
    said = notes(*(file for file in helm.drivers() if file.stem in ("loop", "nfs-share")))
    labels = f"csi-core.dev/driver=loop,app.kubernetes.io/instance={helm.RELEASE}"
    look = f"kubectl --namespace {helm.NAMESPACE} get pods -l {labels}"
    assert f"loop.csi-core.dev (node-local)\n  pods:     {look}\n" in said
    assert "  class:    csi-core-loop\n" in said
    assert said.count("capacity: kubectl") == said.count("--enable-distributed-snapshotting") == 1
    assert "nfs-share.csi-core.dev (network)" in said


def test_the_image_that_nobody_publishes(notes: Any) -> None:
    said = notes(helm.drivers()[0], values={"image": {"repository": "registry.example.com/csi-core", "tag": "7"}})
    assert "The image is registry.example.com/csi-core:7; no registry publishes one." in said
