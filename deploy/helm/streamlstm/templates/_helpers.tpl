{{- define "streamlstm.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{/* Cut to 52: a StatefulSet puts "-" and a hash of ten letters behind it in a label of 63. */}}
{{- define "streamlstm.fullname" -}}
{{- $name := include "streamlstm.name" . -}}
{{- $full := ternary .Release.Name (printf "%s-%s" .Release.Name $name) (contains $name .Release.Name) -}}
{{- default $full .Values.fullnameOverride | trunc 52 | trimSuffix "-" -}}
{{- end -}}

{{- define "streamlstm.selectorLabels" -}}
app.kubernetes.io/name: {{ include "streamlstm.name" . }}
app.kubernetes.io/instance: {{ .Release.Name | quote }}
{{- end -}}

{{- define "streamlstm.labels" -}}
{{ include "streamlstm.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end -}}

{{- define "streamlstm.metadata" -}}
name: {{ include "streamlstm.fullname" . }}
namespace: {{ .Release.Namespace }}
labels:
  {{- include "streamlstm.labels" . | nindent 2 }}
{{- end -}}

{{- define "streamlstm.serviceAccountName" -}}
{{- $default := ternary (include "streamlstm.fullname" .) "default" .Values.serviceAccount.create -}}
{{- default $default .Values.serviceAccount.name -}}
{{- end -}}

{{- define "streamlstm.image" -}}
{{- with .Values.image -}}
{{- if .digest -}}
{{ .repository }}@{{ .digest }}
{{- else -}}
{{ .repository }}:{{ default $.Chart.AppVersion .tag }}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* The port of /metrics, /livez and /readyz. */}}
{{- define "streamlstm.port" -}}
{{- dig "metrics" "port" 9464 .Values.config | int -}}
{{- end -}}

{{/* Drain, and the time to leave: the daemon gives its last transaction three time-outs. */}}
{{- define "streamlstm.gracePeriod" -}}
{{- $timeout := dig "commit" "transaction_timeout_ms" 15000 .Values.config | int -}}
{{- default (add 15 (div (add (mul 3 $timeout) 999) 1000)) .Values.terminationGracePeriodSeconds | int -}}
{{- end -}}
