{{/* The sidecars. Each takes the dict of _names.tpl and part (node or controller). */}}

{{/* A sidecar: further keys are sidecar (its key in values), container (its name), args, env, api (whether it talks to the
API server: only those get the token), mounts and listens. It runs as root, whose the socket is, without any capability. */}}
{{- define "csi-core.sidecar" -}}
{{- $sidecar := get .root.Values.sidecars .sidecar -}}
- name: {{ .container }}
  image: {{ $sidecar.image }}
  imagePullPolicy: {{ .root.Values.sidecars.pullPolicy }}
  args:
    {{- range concat .args (list (printf "--v=%d" (int .root.Values.sidecars.logLevel))) $sidecar.args }}
    - {{ . | quote }}
    {{- end }}
  {{- with .env }}
  env: {{- . | nindent 4 }}
  {{- end }}
  resources: {{- toYaml $sidecar.resources | nindent 4 }}
  securityContext:
    runAsUser: 0
    allowPrivilegeEscalation: false
    readOnlyRootFilesystem: true
    capabilities: {drop: [ALL]}
    seccompProfile: {type: RuntimeDefault}
  terminationMessagePolicy: FallbackToLogsOnError
  volumeMounts:
    - {name: socket, mountPath: /csi}
    {{- if .api }}
    - {name: api-access, mountPath: /var/run/secrets/kubernetes.io/serviceaccount, readOnly: true}
    {{- end }}
    {{- with .mounts }}
    {{- . | nindent 4 }}
    {{- end }}
{{- end -}}

{{/* What kubelet would mount into every container, for those that need it. */}}
{{- define "csi-core.apiAccessVolume" -}}
- name: api-access
  projected:
    sources:
      - serviceAccountToken: {path: token, expirationSeconds: 3607}
      - configMap: {name: kube-root-ca.crt, items: [{key: ca.crt, path: ca.crt}]}
      - downwardAPI: {items: [{path: namespace, fieldRef: {fieldPath: metadata.namespace}}]}
{{- end -}}

{{/* What a sidecar in node mode is told of its pod. */}}
{{- define "csi-core.podEnvironment" -}}
{{- if eq .driver.reach "node-local" -}}
- name: NODE_NAME
  valueFrom: {fieldRef: {fieldPath: spec.nodeName}}
- name: NAMESPACE
  valueFrom: {fieldRef: {fieldPath: metadata.namespace}}
- name: POD_NAME
  valueFrom: {fieldRef: {fieldPath: metadata.name}}
{{- end -}}
{{- end -}}

{{- define "csi-core.provisioner" -}}
{{- $args := list "--csi-address=/csi/csi.sock" "--extra-create-metadata" (printf "--timeout=%s" .root.Values.sidecars.timeout) -}}
{{- with .driver.defaultFsType -}}
{{- $args = append $args (printf "--default-fstype=%s" .) -}}
{{- end -}}
{{- if eq .driver.reach "node-local" -}}
{{- /* The pod owns its node's capacities: of a DaemonSet those of lost nodes would stay. */ -}}
{{- $args = concat $args (list "--node-deployment" "--strict-topology" "--immediate-topology=false" "--enable-capacity" "--capacity-ownerref-level=0") -}}
{{- else -}}
{{- $args = concat $args (list "--leader-election") -}}
{{- end -}}
{{- include "csi-core.sidecar" (merge (dict "sidecar" "provisioner" "container" "csi-provisioner" "args" $args "api" true "env" (include "csi-core.podEnvironment" .)) .) -}}
{{- end -}}

{{- define "csi-core.attacher" -}}
{{- $args := list "--csi-address=/csi/csi.sock" "--leader-election" "--reconcile-sync=1m" (printf "--timeout=%s" .root.Values.sidecars.timeout) -}}
{{- include "csi-core.sidecar" (merge (dict "sidecar" "attacher" "container" "csi-attacher" "args" $args "api" true) .) -}}
{{- end -}}

{{- define "csi-core.resizer" -}}
{{- $args := list "--csi-address=/csi/csi.sock" "--leader-election" "--handle-volume-inuse-error=false" (printf "--timeout=%s" .root.Values.sidecars.timeout) -}}
{{- include "csi-core.sidecar" (merge (dict "sidecar" "resizer" "container" "csi-resizer" "args" $args "api" true) .) -}}
{{- end -}}

{{- define "csi-core.snapshotter" -}}
{{- $args := list "--csi-address=/csi/csi.sock" "--extra-create-metadata" (printf "--timeout=%s" .root.Values.sidecars.timeout) -}}
{{- $args = append $args (eq .driver.reach "node-local" | ternary "--node-deployment" "--leader-election") -}}
{{- include "csi-core.sidecar" (merge (dict "sidecar" "snapshotter" "container" "csi-snapshotter" "args" $args "api" true "env" (include "csi-core.podEnvironment" .)) .) -}}
{{- end -}}

{{- define "csi-core.registrar" -}}
{{- $args := list "--csi-address=/csi/csi.sock" (printf "--kubelet-registration-path=%s/csi.sock" (include "csi-core.pluginDir" .)) -}}
{{- include "csi-core.sidecar" (merge (dict "sidecar" "registrar" "container" "node-driver-registrar" "args" $args "mounts" "- {name: registration, mountPath: /registration}") .) -}}
{{- end -}}

{{- define "csi-core.livenessProbe" -}}
{{- $args := list "--csi-address=/csi/csi.sock" "--probe-timeout=3s" (printf "--http-endpoint=:%d" (int (get .driver .part).ports.health)) -}}
{{- include "csi-core.sidecar" (merge (dict "sidecar" "livenessProbe" "container" "liveness-probe" "args" $args) .) -}}
{{- end -}}

{{- define "csi-core.snapshotMetadata" -}}
{{- $args := list "--csi-address=/csi/csi.sock" "--tls-cert=/certificates/tls.crt" "--tls-key=/certificates/tls.key" -}}
{{- include "csi-core.sidecar" (merge (dict "sidecar" "snapshotMetadata" "container" "csi-snapshot-metadata" "args" $args "api" true "mounts" "- {name: certificates, mountPath: /certificates, readOnly: true}") .) -}}
{{- end -}}
