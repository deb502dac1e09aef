"""Values that the chart is rendered with: each driver alone, several in one release, everything on, everything off."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import helm

__all__ = ["CASES", "Case"]

Values = dict[str, Any]


@dataclass(frozen=True)
class Case:
    """One call of helm: values files, and values over them."""

    name: str
    files: tuple[Path, ...] = ()
    values: Values = field(default_factory=dict)

    def render(self, kubernetes: str = helm.KUBERNETES) -> list[helm.Object]:
        """What would be installed."""
        return helm.render(*self.files, values=self.values, kubernetes=kubernetes)


SIM: Values = {"driver": {"name": "sim.csi-core.dev"}, "backends": {"sim": None}, "node": {"mounts": "simulated"}}
TOPOLOGIES = [{"matchLabelExpressions": [{"key": "topology.all.csi-core.dev/node", "values": ["a", "b"]}]}]
POD: Values = {
    "env": [{"name": "TZ", "value": "UTC"}],
    "resources": {"requests": {"cpu": "1"}, "limits": {"memory": "1Gi"}},
    "priorityClassName": "storage",
    "nodeSelector": {"storage": "yes"},
    "tolerations": [{"key": "storage", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 60}],
    "affinity": {
        "nodeAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": {
                "nodeSelectorTerms": [{"matchExpressions": [{"key": "disk", "operator": "In", "values": ["nvme"]}]}]
            }
        }
    },
    "livenessProbe": {"initialDelaySeconds": 5, "periodSeconds": 5, "timeoutSeconds": 4, "failureThreshold": 3},
    "podAnnotations": {"example.com/note": "yes"},
    "podLabels": {"example.com/team": "storage"},
    "hostPaths": [{"path": "/mnt/a", "type": "Directory", "mountPropagation": "Bidirectional", "readOnly": True}],
    "volumes": [{"path": "/mnt/b", "volume": {"nfs": {"server": "192.0.2.1", "path": "/b", "readOnly": True}}}],
}
CLASSES: Values = {
    "storageClasses": {
        "all-on": {
            "default": True,
            "parameters": {"provisioning": "thin"},
            "reclaimPolicy": "Retain",
            "volumeBindingMode": "Immediate",
            "allowVolumeExpansion": True,
            "mountOptions": ["noatime"],
            "allowedTopologies": TOPOLOGIES,
        }
    },
    "volumeSnapshotClasses": {
        "all-on": {"default": True, "deletionPolicy": "Retain", "parameters": {"label": "nightly"}}
    },
    "volumeGroupSnapshotClasses": {"all-on": {"default": True, "parameters": {"label": "nightly"}}},
    "volumeAttributesClasses": {"fast": {"parameters": {"iops": "3000"}}},
}


def _named(name: str, classes: Values) -> Values:
    """The classes under another name: those of two drivers cannot be the same."""
    return {kind: {f"{name}-{key}": given for key, given in of_kind.items()} for kind, of_kind in classes.items()}


ALL_ON: Values = {
    "image": {"repository": "registry.example.com:5000/csi-core", "tag": "main", "digest": f"sha256:{'0' * 64}"},
    "imagePullSecrets": ["registry"],
    "kubeletDir": "/data/kubelet",
    "labels": {"example.com/owner": "storage"},
    "sidecars": {
        "logLevel": 5,
        "provisioner": {"args": ["--worker-threads=10"]},
        "resizer": {"image": f"registry.example.com/csi-resizer:v2.3.0@sha256:{'1' * 64}"},
    },
    "drivers": {
        "all": {
            "reach": "network",
            "config": {
                **SIM,
                "driver": {"name": "all.csi-core.dev", "alphaCapabilities": True},
                "server": {"shutdownGraceSeconds": 90},
                "log": {"format": "console", "level": "debug"},
            },
            "nodeConfig": {"log": {"level": "warning"}},
            "nodeIdFrom": "status.hostIP",
            "csiDriver": {
                "attachRequired": True,
                "fsGroupPolicy": "None",
                "volumeLifecycleModes": ["Ephemeral", "Persistent"],
                "requiresRepublish": True,
            },
            "defaultFsType": "xfs",
            "secrets": [{"namespace": "team-a", "name": "storage"}, {"namespace": "team-b", "name": "storage"}],
            "metrics": {
                "address": "[::]",
                "podMonitor": {"enabled": True, "interval": "10s", "labels": {"release": "prometheus"}},
            },
            "snapshotMetadata": {"enabled": True, "tlsSecret": "metadata-tls", "caCert": "Y2E=", "audience": "backup"},
            "node": {**POD, "hostNetwork": True, "updateStrategy": {"type": "OnDelete"}},
            "controller": {**POD, "replicas": 2, "hostNetwork": True, "updateStrategy": {"type": "Recreate"}},
            **CLASSES,
        },
        # Over the values file of loop: what only a node-local driver has.
        "loop": {
            "csiDriver": {"requiresRepublish": True, "fsGroupPolicy": "ReadWriteOnceWithFSType"},
            "defaultFsType": "xfs",
            "secrets": [{"namespace": "team-a", "name": "pools"}],
            "metrics": {"podMonitor": {"enabled": True}},
            "node": {
                **POD,
                "hostNetwork": True,
                "ports": {"health": 9839, "metrics": 9838},
                "hostPaths": [*POD["hostPaths"], {"path": "/var/lib/csi-core/pool"}],
            },
            "resizer": {key: POD[key] for key in ("priorityClassName", "tolerations", "affinity")}
            | {key: POD[key] for key in ("podAnnotations", "podLabels")},
            **_named("loop", CLASSES),
        },
    },
}
ALL_OFF: Values = {
    "drivers": {
        "sim": {
            "reach": "network",
            "config": SIM,
            "snapshots": False,
            "expansion": False,
            "metrics": {"enabled": False},
            "node": {"hostDev": False, "tolerations": [], "priorityClassName": ""},
        },
        "loop": {"snapshots": False, "expansion": False, "metrics": {"enabled": False}},
        "unused": {"enabled": False, "reach": "network", "config": {**SIM, "driver": {"name": "unused.example.com"}}},
    }
}
EXTENTS: Values = {
    "path": "/mnt/nvme/pool",
    "layout": "extents",
    "segments": [{"path": "/dev/nvme1n1"}, {"path": "/mnt/nvme/segment", "size": "1Ti"}],
}
TWICE: Values = {
    "drivers": {
        "loop-b": {
            "reach": "node-local",
            "config": {
                "driver": {"name": "loop-b.csi-core.dev"},
                "backends": {"b": {"type": "loop", "options": {"pools": {"nvme": EXTENTS}}}},
            },
            "node": {"hostPaths": [{"path": "/mnt/nvme"}]},
        }
    }
}
LOOP = helm.CHART / "drivers/loop.yaml"

CASES = (
    *(Case(path.stem, (path,)) for path in helm.drivers()),
    Case("all-drivers", tuple(helm.drivers())),
    Case("two-of-loop", (LOOP,), TWICE),
    Case("all-on", (LOOP,), ALL_ON),
    Case("all-off", (LOOP,), ALL_OFF),
)
