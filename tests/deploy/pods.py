"""Pods of the rendered chart on a :class:`~machine.Machine`: what kubelet and a runtime make of a specification."""

from __future__ import annotations

import re
import subprocess
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from image import Image
from machine import Container, Machine, Mount

__all__ = ["NODE_ADDRESS", "NODE_NAME", "Pod", "object_of", "pod_of", "prepared"]

Object = Mapping[str, Any]
NODE_NAME = "worker-1.example.com"
NODE_ADDRESS = "127.0.0.1"
USUAL_CAPABILITIES = (
    "audit_write chown dac_override fowner fsetid kill mknod net_bind_service net_raw setfcap setgid setpcap setuid "
    "sys_chroot"
)
"""What container runtimes leave to root."""


def object_of(objects: Sequence[Object], kind: str, name: str = "") -> Object:
    """The one object of a kind, or of a kind and a name that ends so."""
    (found,) = (o for o in objects if o["kind"] == kind and o["metadata"]["name"].endswith(name))
    return found


@dataclass
class Pod:
    """One pod of a rendered DaemonSet or Deployment.

    Args:
        objects: everything the chart renders.
        workload: the DaemonSet or Deployment.
        machine: the node it is on.
        image: of the driver; the sidecars are played by the tests.
    """

    objects: Sequence[Object]
    workload: Object
    machine: Machine
    image: Image
    name: str = field(init=False)
    uid: str = field(default_factory=lambda: str(uuid.uuid4()))
    started: dict[str, Container] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.name = f"{self.workload['metadata']['name']}-x7k2p"
        self._volumes = {volume["name"]: self._volume(volume) for volume in self.spec["volumes"]}

    @property
    def spec(self) -> Mapping[str, Any]:
        """The pod's specification."""
        spec: Mapping[str, Any] = self.workload["spec"]["template"]["spec"]
        return spec

    @property
    def containers(self) -> dict[str, Mapping[str, Any]]:
        """Its containers by name, as rendered."""
        return {container["name"]: container for container in self.spec["containers"]}

    def arguments(self, container: str) -> dict[str, str]:
        """The options in a container's arguments, without their dashes; "" where one has no value."""
        given = (self._expanded(container, argument) for argument in self.containers[container].get("args", ()))
        return {name.lstrip("-"): value for name, _, value in (argument.partition("=") for argument in given)}

    def path(self, container: str, path: str) -> Path:
        """A path that a container sees, on this machine."""
        mounts = [mount for mount in self._mounts(container) if Path(path).is_relative_to(mount.path)]
        assert mounts, f"nothing that outlives the container {container} is mounted at {path}"
        nearest = max(mounts, key=lambda mount: len(mount.path))
        return nearest.source / Path(path).relative_to(nearest.path)

    def start(self, container: str = "csi-core") -> Container:
        """Start a container exactly as rendered: command, arguments, environment and mounts."""
        rendered = self.containers[container]
        command = rendered.get("command") or self.image.entrypoint
        arguments = rendered.get("args") or ([] if rendered.get("command") else self.image.cmd)
        argv = [self._expanded(container, word) for word in (*command, *arguments)]
        security = rendered.get("securityContext", {})
        if not security.get("privileged"):
            argv = [*_limits(security), *argv]
        self.started[container] = self.machine.start(
            self.image,
            argv,
            self._env(container),
            self._mounts(container),
            read_only=security.get("readOnlyRootFilesystem", False),
            host_network=self.spec.get("hostNetwork", False),
        )
        return self.started[container]

    def _env(self, container: str) -> dict[str, str]:
        fields = {
            "spec.nodeName": NODE_NAME,
            "metadata.name": self.name,
            "metadata.namespace": self.workload["metadata"]["namespace"],
            "status.hostIP": NODE_ADDRESS,
        }
        return {
            entry["name"]: fields[entry["valueFrom"]["fieldRef"]["fieldPath"]]
            if "valueFrom" in entry
            else str(entry["value"])
            for entry in self.containers[container].get("env", ())
        }

    def _expanded(self, container: str, word: str) -> str:
        env = self._env(container)
        return re.sub(r"\$\((\w+)\)", lambda match: env.get(match[1], match[0]), word)

    def _mounts(self, container: str) -> list[Mount]:
        return [
            Mount(
                self._volumes[given["name"]],
                given["mountPath"],
                given.get("readOnly", False),
                given.get("mountPropagation", "None"),
            )
            for given in self.containers[container]["volumeMounts"]
        ]

    def _volume(self, volume: Mapping[str, Any]) -> Path:
        own: Path = self.machine.root / "pod-volumes" / self.uid / volume["name"]
        match volume:
            case {"hostPath": {"path": path, "type": kind}}:
                there = self.machine.host_path(str(path))
                if kind == "DirectoryOrCreate":
                    there.mkdir(parents=True, exist_ok=True)
                assert there.is_dir() or kind != "Directory", f"{path} is no directory: kubelet does not start the pod"
                return there
            case {"configMap": {"name": name}}:
                own.mkdir(parents=True)
                (config,) = (o for o in self.objects if o["kind"] == "ConfigMap" and o["metadata"]["name"] == name)
                for key, text in config["data"].items():
                    (own / key).write_text(text, encoding="utf-8")
                return own
            case {"emptyDir": _} | {"projected": _}:
                own.mkdir(parents=True)
                return own
            case {"nfs": {"server": server, "path": path}}:
                # Kubelet mounts it, in the node's network; the container only sees it.
                own.mkdir(parents=True)
                subprocess.run(["mount", "-t", "nfs", f"{server}:{path}", own], check=True, capture_output=True)
                return own
        raise AssertionError(f"a volume that cannot be played here: {volume}")


def _limits(security: Mapping[str, Any]) -> list[str]:
    """What a runtime takes from root in a container that is not privileged."""
    changes = security.get("capabilities", {})
    kept = set() if "ALL" in changes.get("drop", ()) else set(USUAL_CAPABILITIES.split())
    kept = kept - {name.lower() for name in changes.get("drop", ())} | {name.lower() for name in changes.get("add", ())}
    bounded = ",".join(["-all", *(f"+{name}" for name in sorted(kept))])
    escalation = [] if security.get("allowPrivilegeEscalation", True) else ["--no-new-privs"]
    return ["setpriv", *escalation, "--inh-caps=-all", f"--bounding-set={bounded}", "--"]


def prepared(machine: Machine, kubelet_directory: str = "/var/lib/kubelet") -> Machine:
    """A node on which kubelet has run: its directories are there."""
    for name in ("plugins", "plugins_registry", "pods"):
        machine.host_path(f"{kubelet_directory}/{name}").mkdir(parents=True, exist_ok=True)
    return machine


@contextmanager
def pod_of(objects: Sequence[Object], kind: str, machine: Machine, image: Image) -> Iterator[Pod]:
    """The pod of the DaemonSet (node) or of the driver's Deployment (controller), its driver started and listening."""
    workload = object_of(objects, kind, {"DaemonSet": "-node", "Deployment": "-controller"}[kind])
    pod = Pod(objects, workload, machine, image)
    driver = pod.start()
    driver.wait_for_answer(pod.path("csi-core", "/csi/csi.sock"))
    yield pod
    driver.stop()
