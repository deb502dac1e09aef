"""Enough of a cluster to apply an example: claims are bound, pods get their volumes, snapshots are taken, in order."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

from installed import Driver
from kubelet import PodVolume
from sidecars import Volume, quantity_bytes, source_of

from csi_core._proto import csi_pb2 as pb

__all__ = ["Cluster"]

Object = Mapping[str, Any]
CLASSES = ("StorageClass", "VolumeSnapshotClass", "VolumeGroupSnapshotClass", "VolumeAttributesClass")


@dataclass
class Cluster:
    """One node and one driver.

    Attributes:
        volumes: by the name of their claim.
        pods: the volumes of each running pod, by the pod's name and the volume's.
        pending: pods that the scheduler starts nowhere.
        snapshots: their ids by name; ``contents``: what the pods had written when they were taken.
        foreign: claims whose volumes are not the driver's to delete.
    """

    driver: Driver
    objects: dict[tuple[str, str], Object] = field(default_factory=dict)
    volumes: dict[str, Volume] = field(default_factory=dict)
    pods: dict[str, dict[str, PodVolume]] = field(default_factory=dict)
    pending: list[str] = field(default_factory=list)
    snapshots: dict[str, str] = field(default_factory=dict)
    groups: dict[str, pb.VolumeGroupSnapshot] = field(default_factory=dict)
    contents: dict[str, str] = field(default_factory=dict)
    foreign: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self._remember(o for kind in CLASSES for o in self.driver.of_kind(kind))

    def _remember(self, documents: Iterator[Object]) -> None:
        self.objects |= {(o["kind"], o["metadata"]["name"]): o for o in documents}

    def apply(self, documents: Sequence[Object]) -> None:
        """``kubectl apply``, and wait until every claim is bound and every pod runs."""
        self._remember(iter(documents))
        for document in documents:
            name = document["metadata"]["name"]
            match document["kind"]:
                case "Pod":
                    self._run(name, document["spec"])
                case "StatefulSet" | "Deployment":
                    self._run_replicas(document)
                case "VolumeSnapshot":
                    self._snapshot(name)
                case "VolumeGroupSnapshot":
                    self._snapshot_group(document)
                case "PersistentVolumeClaim" if self._binds_at_once(document):
                    self.bound(name)
        waiting = [n for kind, n in self.objects if kind == "PersistentVolumeClaim" and n not in self.volumes]
        assert not waiting, f"claims that no pod uses stay pending: {waiting}"

    def _binds_at_once(self, claim: Object) -> bool:
        name = claim["spec"].get("storageClassName")
        return not name or self.objects["StorageClass", name].get("volumeBindingMode") != "WaitForFirstConsumer"

    def bound(self, name: str) -> Volume:
        """The volume of a claim, made for it unless it is there."""
        if name not in self.volumes:
            claim = self.objects["PersistentVolumeClaim", name]
            if static := claim["spec"].get("volumeName"):
                self.volumes[name] = self._static(self.objects["PersistentVolume", static], claim)
            else:
                self.volumes[name] = self._provision(claim)
        return self.volumes[name]

    def _provision(self, claim: Object) -> Volume:
        spec = claim["spec"]
        storage_class = self.objects["StorageClass", spec["storageClassName"]]
        assert storage_class["provisioner"] == self.driver.name
        self._check_topologies(storage_class)
        origin = spec.get("dataSource") or spec.get("dataSourceRef") or {}
        snapshot_id, source = "", None
        if origin.get("kind") == "VolumeSnapshot":
            snapshot_id = self._snapshot(origin["name"])
            self.contents[claim["metadata"]["name"]] = self.contents.get(origin["name"], "")
        elif origin:
            source = self.bound(origin["name"])
            self.contents[claim["metadata"]["name"]] = self._written(origin["name"])
        mutable = None
        if attributes := spec.get("volumeAttributesClassName"):
            mutable = self.objects["VolumeAttributesClass", attributes].get("parameters")
        content = source_of(snapshot_id, source)
        return self.driver.sidecars.provision(claim, storage_class, source=content, mutable=mutable)

    def _check_topologies(self, storage_class: Object) -> None:
        terms = storage_class.get("allowedTopologies") or ()
        for expression in (e for term in terms for e in term["matchLabelExpressions"]):
            assert expression["key"] in self.driver.topology, f"no node has the label {expression['key']}"

    def _static(self, volume: Object, claim: Object) -> Volume:
        csi, spec = volume["spec"]["csi"], volume["spec"]
        assert csi["driver"] == self.driver.name
        assert set(claim["spec"]["accessModes"]) <= set(spec["accessModes"]), "the claim does not bind"
        return Volume(
            name=volume["metadata"]["name"],
            handle=csi["volumeHandle"],
            size_bytes=quantity_bytes(spec["capacity"]["storage"]),
            access_modes=spec["accessModes"],
            block=spec.get("volumeMode") == "Block",
            fs_type=csi.get("fsType", ""),
            mount_options=spec.get("mountOptions", ()),
            attributes=csi.get("volumeAttributes", {}),
            reclaim=spec.get("persistentVolumeReclaimPolicy", "Retain"),
            read_only=csi.get("readOnly", False),
        )

    def _run(self, name: str, spec: Object) -> None:
        used = self.pods[name] = {}
        for volume in spec.get("volumes", ()):
            match volume:
                case {"persistentVolumeClaim": {"claimName": claim}} if self._is_taken(claim):
                    self.pending.append(name)
                    del self.pods[name]
                    return
                case {"persistentVolumeClaim": {"claimName": claim} as source}:
                    used[claim] = self._mount(self.bound(claim), source.get("readOnly", False))
                case {"ephemeral": {"volumeClaimTemplate": template}}:
                    claim = f"{name}-{volume['name']}"
                    self._claim(claim, template)
                    used[claim] = self._mount(self.bound(claim), read_only=False)
                case {"csi": source}:
                    assert source["driver"] == self.driver.name
                    used[volume["name"]] = self.driver.kubelet.mount_inline(volume["name"], source)
        assert used, f"the pod {name} uses no volume"
        for claim, volume in used.items():
            if expected := self.contents.get(claim):
                assert volume.read() == expected, f"{claim} does not hold what was written"
            if written := volume.write():
                self.contents[claim] = written
                assert volume.read() == written

    def _is_taken(self, claim: str) -> bool:
        modes = self.objects["PersistentVolumeClaim", claim]["spec"]["accessModes"]
        return modes == ["ReadWriteOncePod"] and any(claim in used for used in self.pods.values())

    def _mount(self, volume: Volume, read_only: bool) -> PodVolume:
        if self.driver.csi_driver["spec"]["attachRequired"] and volume.handle not in self.driver.kubelet.staged:
            self.driver.sidecars.attach(volume, self.driver.node_id)
        only_readers = list(volume.access_modes) == ["ReadOnlyMany"]
        return self.driver.kubelet.mount(volume, read_only=read_only or volume.read_only or only_readers)

    def _claim(self, name: str, template: Object) -> None:
        metadata = {**template.get("metadata", {}), "name": name}
        self.objects["PersistentVolumeClaim", name] = {
            "kind": "PersistentVolumeClaim",
            **template,
            "metadata": metadata,
        }

    def _run_replicas(self, workload: Object) -> None:
        spec = workload["spec"]
        for replica in range(spec.get("replicas", 1)):
            name = f"{workload['metadata']['name']}-{replica}"
            pod = deepcopy(spec["template"]["spec"])
            for template in spec.get("volumeClaimTemplates", ()):
                claim = f"{template['metadata']['name']}-{name}"
                self._claim(claim, template)
                pod.setdefault("volumes", []).append({"persistentVolumeClaim": {"claimName": claim}})
            self._run(name, pod)

    def _written(self, claim: str) -> str:
        return self.contents.get(claim, "")

    def _snapshot(self, name: str) -> str:
        if name not in self.snapshots:
            snapshot = self.objects["VolumeSnapshot", name]
            claim = snapshot["spec"]["source"]["persistentVolumeClaimName"]
            chosen = self.objects["VolumeSnapshotClass", snapshot["spec"]["volumeSnapshotClassName"]]
            assert chosen["driver"] == self.driver.name
            self.snapshots[name] = self.driver.sidecars.snapshot(snapshot, self.bound(claim), chosen).snapshot_id
            self.contents[name] = self._written(claim)
        return self.snapshots[name]

    def _snapshot_group(self, document: Object) -> None:
        spec = document["spec"]
        wanted = spec["source"]["selector"]["matchLabels"].items()
        claims = [o for (kind, _), o in self.objects.items() if kind == "PersistentVolumeClaim"]
        members = [o["metadata"]["name"] for o in claims if wanted <= o["metadata"].get("labels", {}).items()]
        assert members, "no claim has the labels that the group asks for"
        chosen = self.objects["VolumeGroupSnapshotClass", spec["volumeGroupSnapshotClassName"]]
        group = self.driver.sidecars.snapshot_group([self.volumes[name] for name in members], chosen)
        assert {s.source_volume_id for s in group.snapshots} == {self.volumes[name].handle for name in members}
        self.groups[document["metadata"]["name"]] = group

    def _detach(self, volume: Volume) -> None:
        if self.driver.csi_driver["spec"]["attachRequired"]:
            self.driver.sidecars.detach(volume, self.driver.node_id)

    def delete_everything(self) -> None:
        """``kubectl delete`` of all there is; volumes to be retained are deleted by their administrator."""
        for used in (volume for volumes in self.pods.values() for volume in volumes.values()):
            self.driver.kubelet.unmount(used)
        for group in self.groups.values():
            self.driver.sidecars.delete_group(group)
        for snapshot_id in self.snapshots.values():
            self.driver.sidecars.delete_snapshot(snapshot_id)
        for claim, volume in self.volumes.items():
            if volume.handle in self.driver.kubelet.staged:
                self.driver.kubelet.unstage(volume)
                self._detach(volume)
            if claim not in self.foreign:
                self.driver.sidecars.delete(volume)
        self.pods.clear()
