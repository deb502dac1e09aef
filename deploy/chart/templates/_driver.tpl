{{/* The container of the driver itself. Takes the dict of _names.tpl and part (node or controller). */}}
{{- define "csi-core.driverContainer" -}}
{{- $pod := get .driver .part -}}
{{- $security := $pod.securityContext -}}
{{- /* Kubernetes refuses allowPrivilegeEscalation false, of the defaults say, beside privileged. */ -}}
{{- if $security.privileged -}}
{{- $security = omit $security "allowPrivilegeEscalation" -}}
{{- end -}}
- name: csi-core
  image: {{ include "csi-core.image" . }}
  imagePullPolicy: {{ .root.Values.image.pullPolicy }}
  command: [csi-core, serve, --config, /etc/csi-core/config.yaml]
  env:
    - name: NODE_NAME
      valueFrom: {fieldRef: {fieldPath: {{ .driver.nodeIdFrom }}}}
    {{- with $pod.env }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  ports:
    {{- if .driver.metrics.enabled }}
    - {name: metrics, containerPort: {{ int $pod.ports.metrics }}, protocol: TCP}
    {{- end }}
    # Answered by the container liveness-probe.
    - {name: healthz, containerPort: {{ int $pod.ports.health }}, protocol: TCP}
  livenessProbe:
    httpGet: {path: /healthz, port: healthz}
    {{- toYaml $pod.livenessProbe | nindent 4 }}
  resources: {{- toYaml $pod.resources | nindent 4 }}
  securityContext: {{- toYaml $security | nindent 4 }}
  terminationMessagePolicy: FallbackToLogsOnError
  volumeMounts:
    - {name: config, mountPath: /etc/csi-core, readOnly: true}
    - {name: socket, mountPath: /csi}
    {{- if eq .part "node" }}
    # Mounts made here must be seen by kubelet and the pods, and theirs here.
    - {name: kubelet, mountPath: {{ .root.Values.kubeletDir }}, mountPropagation: Bidirectional}
    {{- if $pod.hostDev }}
    # The host's devtmpfs: a container's own /dev lacks devices made later.
    - {name: dev, mountPath: /dev}
    {{- end }}
    {{- end }}
    {{- range $index, $path := $pod.hostPaths }}
    - name: host-{{ $index }}
      mountPath: {{ $path.path }}
      mountPropagation: {{ $path.mountPropagation | default "HostToContainer" }}
      readOnly: {{ $path.readOnly | default false }}
    {{- end }}
    {{- range $index, $further := $pod.volumes }}
    - {name: volume-{{ $index }}, mountPath: {{ $further.path }}}
    {{- end }}
{{- end -}}

{{/* Volumes of a pod with the driver in it, but the one of its socket. */}}
{{- define "csi-core.driverVolumes" -}}
{{- $pod := get .driver .part -}}
- name: config
  configMap: {name: {{ include "csi-core.name" . }}-{{ .part }}}
{{- if eq .part "node" }}
- name: kubelet
  hostPath: {path: {{ .root.Values.kubeletDir }}, type: Directory}
{{- if $pod.hostDev }}
- name: dev
  hostPath: {path: /dev, type: Directory}
{{- end }}
{{- end }}
{{- range $index, $path := $pod.hostPaths }}
- name: host-{{ $index }}
  hostPath: {path: {{ $path.path }}, type: {{ $path.type | default "Directory" }}}
{{- end }}
{{- range $index, $further := $pod.volumes }}
- name: volume-{{ $index }}
  {{- toYaml $further.volume | nindent 2 }}
{{- end }}
{{- end -}}

{{/* What each pod's specification says of where and how it runs. Takes the dict of _names.tpl and part. */}}
{{- define "csi-core.placement" -}}
{{- $pod := get .driver .part -}}
{{- $nodeSelector := eq .part "controller" | ternary .driver.controller.nodeSelector .driver.node.nodeSelector -}}
{{- with .root.Values.imagePullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
priorityClassName: {{ $pod.priorityClassName | quote }}
{{- with $nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $pod.tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $pod.affinity }}
affinity: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{- define "csi-core.podMetadata" -}}
{{- $pod := get .driver .part -}}
labels:
  {{- include "csi-core.podLabels" . | nindent 2 }}
  app.kubernetes.io/component: {{ .part }}
  {{- with $pod.podLabels }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- $annotations := dict -}}
{{- if ne .part "resizer" -}}
{{- /* The driver reads its configuration once: another one is another pod. */ -}}
{{- $annotations = dict "kubectl.kubernetes.io/default-container" "csi-core" "checksum/config" (include "csi-core.config" . | sha256sum) -}}
{{- end -}}
{{- with merge $annotations $pod.podAnnotations }}
annotations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* Kubernetes refuses rollingUpdate, of the defaults say, beside any other type. */}}
{{- define "csi-core.updateStrategy" -}}
{{- $strategy := (get .driver .part).updateStrategy -}}
{{- toYaml (eq $strategy.type "RollingUpdate" | ternary $strategy (omit $strategy "rollingUpdate")) -}}
{{- end -}}
