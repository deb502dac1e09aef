"""What the parts of a cluster are told in files: who may, where everybody is, what this machine cannot do."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import kubernetes_images as images
import kubernetes_programs as programs
import yaml
from kubernetes_host import ADDRESS

__all__ = ["SOCKET", "write_configuration", "write_node_configuration"]

SOCKET = "containerd.sock"


def write_configuration(disk: Path) -> None:
    """Of kubectl and whoever else asks the API server."""
    (disk / "tokens.csv").write_text('administrator,administrator,1,"system:masters"\n', encoding="ascii")
    cluster = {"server": f"https://{ADDRESS}:443", "certificate-authority": f"{disk}/pki/apiserver.crt"}
    _write(
        disk / "kubeconfig",
        {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "cluster", "cluster": cluster}],
            "users": [{"name": "administrator", "user": {"token": "administrator"}}],
            "contexts": [{"name": "only", "context": {"cluster": "cluster", "user": "administrator"}}],
            "current-context": "only",
        },
    )


def write_node_configuration(disk: Path, pods: str) -> None:
    """Of kubelet, of containerd and of the pods' network.

    Args:
        disk: the node's own directory.
        pods: the first two numbers of its pods' addresses.
    """
    (disk / "cni").mkdir()
    _write(
        disk / "kubelet.yaml",
        {
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "authentication": {"anonymous": {"enabled": True}, "webhook": {"enabled": False}},
            "authorization": {"mode": "AlwaysAllow"},
            "containerRuntimeEndpoint": f"unix://{disk}/{SOCKET}",
            "clusterDNS": ["10.96.0.10"],  # nobody is there
            # The machine's control groups belong to somebody else: they may be of version 1, and are not enforced.
            "failCgroupV1": False,
            "cgroupDriver": "cgroupfs",
            "cgroupsPerQOS": False,
            "enforceNodeAllocatable": [],
            "failSwapOn": False,
            "podLogsDir": f"{disk}/log/pods",  # in /var/log a kubelet takes another's for those of pods that are gone
            "localStorageCapacityIsolation": False,
            "evictionHard": {"nodefs.available": "0%", "imagefs.available": "0%"},
            "volumeStatsAggPeriod": "5s",
            "syncFrequency": "10s",  # how long kubelet takes to see that a claim has grown
        },
    )
    subnet = {"ranges": [[{"subnet": f"{pods}.0.0/16"}]], "routes": [{"dst": "0.0.0.0/0"}]}
    plugin = {"type": "ptp", "ipMasq": False, "ipam": {"type": "host-local", **subnet}}
    network = {"cniVersion": "1.0.0", "name": "pods", "plugins": [plugin]}
    (disk / "cni/pods.conflist").write_text(json.dumps(network), encoding="utf-8")
    (disk / "containerd.toml").write_text(
        _CONTAINERD.format(disk=disk, bin=programs.BIN, socket=SOCKET, pause=images.PAUSE), encoding="utf-8"
    )


def _write(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(yaml.safe_dump(content), encoding="utf-8")


_CONTAINERD = """\
version = 3
root = "{disk}/containerd"
state = "{disk}/containerd-state"

[grpc]
address = "{disk}/{socket}"

[plugins."io.containerd.cri.v1.images".pinned_images]
sandbox = "{pause}"

[plugins."io.containerd.cri.v1.runtime"]
restrict_oom_score_adj = true

[plugins."io.containerd.cri.v1.runtime".cni]
bin_dirs = ["{bin}"]
conf_dir = "{disk}/cni"

[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"

[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc.options]
SystemdCgroup = false
"""
