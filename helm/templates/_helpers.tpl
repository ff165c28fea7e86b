{{- define "sallyport.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{- define "sallyport.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 56 | trimSuffix "-" -}}
{{- else if contains (include "sallyport.name" .) .Release.Name -}}
{{- .Release.Name | trunc 56 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name (include "sallyport.name" .) | trunc 56 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "sallyport.selector" -}}
app.kubernetes.io/name: {{ include "sallyport.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "sallyport.labels" -}}
{{ include "sallyport.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end -}}

{{/* Where records are: the URL, or `none`. It may stand in a mapping with what belongs to it. */}}
{{- define "sallyport.records" -}}
{{- $records := .Values.config.store.records -}}
{{- if kindIs "map" $records }}{{ $records.url }}{{ else }}{{ $records }}{{ end -}}
{{- end -}}

{{/* "true" when state is kept in this pod alone. */}}
{{- define "sallyport.embedded" -}}
{{- if or (hasPrefix "sqlite:" (include "sallyport.records" .)) (eq "memory" (toString .Values.config.store.shared)) -}}true{{- end -}}
{{- end -}}

{{/* "true" when anybody can be known. */}}
{{- define "sallyport.knows" -}}
{{- if ne "none" (include "sallyport.records" .) -}}true{{- end -}}
{{- end -}}

{{/* "true" when something is kept on the volume: users, factors, sessions, or keys. */}}
{{- define "sallyport.keeps" -}}
{{- $records := include "sallyport.records" . -}}
{{- if and (ne "none" $records) (or (hasPrefix "sqlite:" $records) (not .Values.keys.existingSecret)) -}}true{{- end -}}
{{- end -}}

{{/* "true" when the database has to be upgraded before a pod starts. */}}
{{- define "sallyport.upgrades" -}}
{{- if and .Values.upgrade.enabled (hasPrefix "postgresql:" (include "sallyport.records" .)) -}}true{{- end -}}
{{- end -}}

{{/* Folders, not single files: only those follow an edit of their ConfigMap. */}}
{{- define "sallyport.mounts" -}}
- {name: config, mountPath: /etc/sallyport/config, readOnly: true}
- {name: policies, mountPath: /etc/sallyport/policies, readOnly: true}
{{- if eq "true" (include "sallyport.keeps" .) }}
- {name: data, mountPath: /var/lib/sallyport}
{{- end }}
- {name: tmp, mountPath: /tmp}
{{- if .Values.keys.existingSecret }}
- {name: keys, mountPath: /etc/sallyport/keys, readOnly: true}
{{- end }}
{{- with .Values.extraVolumeMounts }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* config.yaml: the operator's, and what only the chart knows. */}}
{{- define "sallyport.config" -}}
{{- $own := dict
      "listen" "0.0.0.0:8080"
      "admin_listen" "0.0.0.0:9090"
      "policies" "/etc/sallyport/policies"
      "keys" (ternary "/etc/sallyport/keys" "/var/lib/sallyport/keys" (ne "" .Values.keys.existingSecret)) -}}
{{- toYaml (merge $own .Values.config) -}}
{{- end -}}
