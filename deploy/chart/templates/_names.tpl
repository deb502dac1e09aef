{{/* Names and labels. Each takes a dict: root (the chart's $), key (the driver's short name), driver (its values). */}}

{{- define "csi-core.name" -}}
{{- printf "%s-%s" .root.Release.Name .key -}}
{{- end -}}

{{- define "csi-core.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
{{ include "csi-core.podLabels" . }}
{{- end -}}

{{/* Without versions: a new chart alone is no reason for new pods. */}}
{{- define "csi-core.podLabels" -}}
{{ include "csi-core.selector" . }}
{{- with .root.Values.labels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "csi-core.selector" -}}
app.kubernetes.io/name: csi-core
app.kubernetes.io/instance: {{ .root.Release.Name }}
csi-core.dev/driver: {{ .key }}
{{- end -}}

{{- define "csi-core.image" -}}
{{- $image := .root.Values.image -}}
{{ $image.repository }}:{{ $image.tag | default .root.Chart.AppVersion }}{{ with $image.digest }}@{{ . }}{{ end }}
{{- end -}}

{{- define "csi-core.pluginDir" -}}
{{ .root.Values.kubeletDir }}/plugins/{{ .driver.config.driver.name }}
{{- end -}}
