{{/* What every container of streamlstm's image has. */}}
{{- define "streamlstm.container" -}}
image: {{ include "streamlstm.image" . }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
{{- with .Values.containerSecurityContext }}
securityContext:
  {{- toYaml . | nindent 2 }}
{{- end }}
env:
  - name: STREAMLSTM_CONFIG
    value: /etc/streamlstm/streamlstm.toml
  # The same over restarts: nothing moves while a member is away for less than kafka.session_timeout_ms, and its open
  # transaction is aborted as soon as it is back.
  - name: STREAMLSTM_KAFKA__GROUP_INSTANCE_ID
    valueFrom:
      fieldRef:
        fieldPath: metadata.name
  {{- if not (hasKey (default dict .Values.config.engine) "threads") }}
  # The daemon would count the node's cores.
  - name: STREAMLSTM_ENGINE__THREADS
    valueFrom:
      resourceFieldRef:
        resource: requests.cpu
        divisor: "1"
  {{- end }}
  {{- with .Values.extraEnv }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
resources:
  {{- $resources := deepCopy .Values.resources }}
  {{- if gt (int .Values.gpu.count) 0 }}
  {{- $resources = mergeOverwrite $resources (dict "limits" (dict "nvidia.com/gpu" (int .Values.gpu.count))) }}
  {{- end }}
  {{- toYaml $resources | nindent 2 }}
volumeMounts:
  - name: config
    mountPath: /etc/streamlstm
    readOnly: true
  {{- if ne .Values.model.source "image" }}
  - name: model
    mountPath: /models
    readOnly: true
  {{- end }}
  {{- if include "streamlstm.secretSources" . }}
  - name: kafka-secrets
    mountPath: /run/secrets/kafka
    readOnly: true
  {{- end }}
  {{- with .Values.extraVolumeMounts }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end -}}

{{/* What brings the model: the user's container, with /models to write to and the same security context. */}}
{{- define "streamlstm.modelContainer" -}}
{{- $given := deepCopy .Values.model.initContainer -}}
{{- $mounts := append (default list $given.volumeMounts) (dict "name" "model" "mountPath" "/models") -}}
{{- $ours := dict "name" "model" "volumeMounts" $mounts "securityContext" .Values.containerSecurityContext -}}
{{- toYaml (list (mergeOverwrite $given $ours)) -}}
{{- end -}}

{{- define "streamlstm.volumes" -}}
- name: config
  configMap:
    name: {{ include "streamlstm.fullname" . }}
{{- if eq .Values.model.source "configMap" }}
- name: model
  configMap:
    name: {{ required "model.configMap: the name of a ConfigMap with the model" .Values.model.configMap }}
{{- else if eq .Values.model.source "existingClaim" }}
- name: model
  persistentVolumeClaim:
    claimName: {{ required "model.existingClaim: the name of a claim with the model" .Values.model.existingClaim }}
    readOnly: true
{{- else if eq .Values.model.source "initContainer" }}
- name: model
  emptyDir: {}
{{- end }}
{{- with include "streamlstm.secretSources" . }}
- name: kafka-secrets
  projected:
    defaultMode: 288 # 0440
    sources:
      {{- . | nindent 6 }}
{{- end }}
{{- with .Values.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* The secrets as files of one volume; empty without any. */}}
{{- define "streamlstm.secretSources" -}}
{{- with .Values.kafkaSecrets -}}
{{- if .ca.secret }}
- secret:
    name: {{ .ca.secret }}
    items:
      - {key: {{ .ca.key | quote }}, path: ca.crt}
{{- end }}
{{- if .clientCertificate.secret }}
- secret:
    name: {{ .clientCertificate.secret }}
    items:
      - {key: {{ .clientCertificate.certKey | quote }}, path: tls.crt}
      - {key: {{ .clientCertificate.keyKey | quote }}, path: tls.key}
      {{- with .clientCertificate.passwordKey }}
      - {key: {{ . | quote }}, path: tls.password}
      {{- end }}
{{- end }}
{{- if .password.secret }}
- secret:
    name: {{ .password.secret }}
    items:
      - {key: {{ .password.key | quote }}, path: password}
{{- end }}
{{- end -}}
{{- end -}}
