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

{{/* "true" when state is kept in this pod alone. */}}
{{- define "sallyport.embedded" -}}
{{- $store := .Values.config.store -}}
{{- if or (hasPrefix "sqlite:" $store.records) (eq "memory" $store.shared) -}}true{{- end -}}
{{- end -}}

{{/* "true" when something is kept on the volume: users, factors, sessions, keys. */}}
{{- define "sallyport.keeps" -}}
{{- if ne "none" .Values.config.store.records -}}true{{- end -}}
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
