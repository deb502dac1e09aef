{{/* The csi-core configuration of one pod: the driver's config, where part is "node" its nodeConfig over it, and what the
chart decides. Takes the dict of _names.tpl and part. */}}
{{- define "csi-core.config" -}}
{{- $config := deepCopy .driver.config -}}
{{- if eq .part "node" -}}
{{- $config = mergeOverwrite $config (deepCopy .driver.nodeConfig) -}}
{{- end -}}
{{- $_ := set $config.driver "endpoint" "unix:///csi/csi.sock" -}}
{{- if .driver.metrics.enabled -}}
{{- $port := int (get .driver .part).ports.metrics -}}
{{- $_ := set $config "metrics" (dict "listen" (printf "%s:%d" .driver.metrics.address $port)) -}}
{{- end -}}
{{- toYaml $config -}}
{{- end -}}

{{- define "csi-core.graceSeconds" -}}
{{- $server := .driver.config.server | default dict -}}
{{- add 15 (ceil ($server.shutdownGraceSeconds | default 30)) -}}
{{- end -}}
