{{/* What each sidecar may do, at the version that values.yaml pins; tests/deploy/test_rbac.py has the reason for each line.
Takes the dict of _names.tpl. Two parts for each: cluster (a ClusterRole) and own (a Role in the release's namespace). */}}

{{- define "csi-core.rules.cluster.provisioner" -}}
- {apiGroups: [""], resources: [persistentvolumes], verbs: [get, list, watch, create, patch, delete]}
- {apiGroups: [""], resources: [persistentvolumeclaims], verbs: [get, list, watch, update]}
- {apiGroups: [storage.k8s.io], resources: [storageclasses], verbs: [get, list, watch]}
- {apiGroups: [storage.k8s.io], resources: [volumeattributesclasses], verbs: [get]}
- {apiGroups: [""], resources: [nodes], verbs: [get]}
- {apiGroups: [""], resources: [events], verbs: [create, patch]}
{{- if .driver.snapshots }}
- {apiGroups: [snapshot.storage.k8s.io], resources: [volumesnapshots], verbs: [get, list, watch, update]}
- {apiGroups: [snapshot.storage.k8s.io], resources: [volumesnapshotcontents], verbs: [get]}
{{- end }}
{{- if .driver.csiDriver.attachRequired }}
- {apiGroups: [storage.k8s.io], resources: [volumeattachments], verbs: [get, list, watch]}
{{- end }}
{{- end -}}

{{- define "csi-core.rules.own.provisioner" -}}
{{- if eq .driver.reach "node-local" -}}
- {apiGroups: [storage.k8s.io], resources: [csistoragecapacities], verbs: [get, list, watch, create, update, patch, delete]}
- {apiGroups: [""], resources: [pods], verbs: [get]}
{{- else }}
{{- include "csi-core.rules.lease" . }}
{{- end }}
{{- end -}}

{{- define "csi-core.rules.cluster.attacher" -}}
- {apiGroups: [""], resources: [persistentvolumes], verbs: [get, list, watch, patch]}
- {apiGroups: [storage.k8s.io], resources: [csinodes], verbs: [get, list, watch]}
- {apiGroups: [storage.k8s.io], resources: [volumeattachments], verbs: [get, list, watch, patch]}
- {apiGroups: [storage.k8s.io], resources: [volumeattachments/status], verbs: [patch]}
{{- end -}}

{{- define "csi-core.rules.own.attacher" -}}
{{- include "csi-core.rules.lease" . }}
{{- end -}}

{{- define "csi-core.rules.cluster.resizer" -}}
- {apiGroups: [""], resources: [persistentvolumes], verbs: [get, list, watch, patch]}
- {apiGroups: [""], resources: [persistentvolumeclaims], verbs: [get, list, watch]}
- {apiGroups: [""], resources: [persistentvolumeclaims/status], verbs: [patch]}
- {apiGroups: [""], resources: [events], verbs: [create, patch]}
- {apiGroups: [storage.k8s.io], resources: [volumeattributesclasses], verbs: [get, list, watch]}
{{- end -}}

{{- define "csi-core.rules.own.resizer" -}}
{{- include "csi-core.rules.lease" . }}
{{- end -}}

{{- define "csi-core.rules.cluster.snapshotter" -}}
- {apiGroups: [""], resources: [events], verbs: [create, patch]}
- {apiGroups: [snapshot.storage.k8s.io], resources: [volumesnapshotclasses], verbs: [get, list, watch]}
- {apiGroups: [snapshot.storage.k8s.io], resources: [volumesnapshotcontents], verbs: [get, list, watch, patch]}
- {apiGroups: [snapshot.storage.k8s.io], resources: [volumesnapshotcontents/status], verbs: [update, patch]}
- {apiGroups: [groupsnapshot.storage.k8s.io], resources: [volumegroupsnapshotclasses], verbs: [get, list, watch]}
- {apiGroups: [groupsnapshot.storage.k8s.io], resources: [volumegroupsnapshotcontents], verbs: [get, list, watch, patch]}
- {apiGroups: [groupsnapshot.storage.k8s.io], resources: [volumegroupsnapshotcontents/status], verbs: [update, patch]}
{{- end -}}

{{- define "csi-core.rules.own.snapshotter" -}}
{{- if eq .driver.reach "network" }}
{{- include "csi-core.rules.lease" . }}
{{- end }}
{{- end -}}

{{- define "csi-core.rules.cluster.snapshotMetadata" -}}
- {apiGroups: [cbt.storage.k8s.io], resources: [snapshotmetadataservices], verbs: [get]}
- {apiGroups: [authentication.k8s.io], resources: [tokenreviews], verbs: [create]}
- {apiGroups: [authorization.k8s.io], resources: [subjectaccessreviews], verbs: [create]}
- {apiGroups: [snapshot.storage.k8s.io], resources: [volumesnapshots, volumesnapshotcontents], verbs: [get]}
- {apiGroups: [snapshot.storage.k8s.io], resources: [volumesnapshotclasses], verbs: [get, list]}
{{- end -}}

{{- define "csi-core.rules.own.snapshotMetadata" -}}
{{- end -}}

{{- define "csi-core.rules.lease" -}}
- {apiGroups: [coordination.k8s.io], resources: [leases], verbs: [get, create, update]}
{{- end -}}
