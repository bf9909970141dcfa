{{/* The whole configuration as JSON: the values' config, with what the chart knows: the model's path, the secrets'. */}}
{{- define "streamlstm.config" -}}
{{- include "streamlstm.refuse" . -}}
{{- $known := dict -}}
{{- if ne .Values.model.source "image" -}}
{{- $_ := set $known "model" (dict "path" (printf "/models/%s" .Values.model.file)) -}}
{{- end -}}
{{- $files := dict -}}
{{- with .Values.kafkaSecrets -}}
{{- if .ca.secret }}{{ $_ := set $files "ssl_cafile" "/run/secrets/kafka/ca.crt" }}{{ end -}}
{{- if .clientCertificate.secret -}}
{{- $_ := set $files "ssl_certfile" "/run/secrets/kafka/tls.crt" -}}
{{- $_ := set $files "ssl_keyfile" "/run/secrets/kafka/tls.key" -}}
{{- if .clientCertificate.passwordKey }}{{ $_ := set $files "ssl_password_file" "/run/secrets/kafka/tls.password" }}{{ end -}}
{{- end -}}
{{- if .password.secret }}{{ $_ := set $files "sasl_plain_password_file" "/run/secrets/kafka/password" }}{{ end -}}
{{- end -}}
{{- if $files }}{{ $_ := set $known "kafka" (dict "security" $files) }}{{ end -}}
{{- mergeOverwrite (deepCopy .Values.config) $known | toJson -}}
{{- end -}}

{{/* A table as TOML. Takes "table", and "name", "" for the outermost. Not Sprig's toToml: Helm reads every number of the
     values as a float, and that would write 100 as 100.0. JSON's numbers, texts and lists are TOML's too. */}}
{{- define "streamlstm.toml" -}}
{{- range $key, $value := .table }}
{{- if not (or (kindIs "map" $value) (kindIs "invalid" $value)) }}
{{ $key }} = {{ toRawJson $value }}
{{- end }}
{{- end }}
{{- range $key, $value := .table }}
{{- if kindIs "map" $value }}
{{- $name := ternary $key (printf "%s.%s" $.name $key) (empty $.name) }}

[{{ $name }}]
{{- include "streamlstm.toml" (dict "name" $name "table" $value) }}
{{- end }}
{{- end }}
{{- end -}}

{{/* What the schema can't say: values that contradict each other. */}}
{{- define "streamlstm.refuse" -}}
{{- $config := .Values.config -}}
{{- if dig "kafka" "group_instance_id" "" $config }}
{{- fail "config.kafka.group_instance_id: leave it out; it is the pod's name, another one for each replica" }}
{{- end }}
{{- if dig "commit" "transactional_id" "" $config }}
{{- fail "config.commit.transactional_id: leave it out; it is made of the group and the pod's name, another one for each replica" }}
{{- end }}
{{- if not (dig "metrics" "enabled" true $config) }}
{{- fail "config.metrics.enabled: found false; the probes need the port" }}
{{- end }}
{{- if eq (include "streamlstm.port" .) "0" }}
{{- fail "config.metrics.port: found 0; the probes need a port that is known" }}
{{- end }}
{{- range dig "kafka" "bootstrap_servers" list $config }}
{{- if not (regexMatch ":[0-9]+$" .) }}
{{- fail (printf "config.kafka.bootstrap_servers: found %s; expected host:port" .) }}
{{- end }}
{{- end }}
{{- $path := dig "model" "path" "" $config }}
{{- if and (eq .Values.model.source "image") (not $path) }}
{{- fail "config.model.path: not set; with model.source = image it says where in the image the model is" }}
{{- end }}
{{- if and (ne .Values.model.source "image") $path }}
{{- fail (printf "config.model.path: found %s; with model.source = %s it follows from model.file" $path .Values.model.source) }}
{{- end }}
{{- if and (gt (int .Values.gpu.count) 0) (ne (dig "engine" "backend" "cpu" $config) "cuda") }}
{{- fail "gpu.count: asks for a GPU that config.engine.backend doesn't use; set that to cuda" }}
{{- end }}
{{- with .Values.autoscaling }}
{{- $login := or .authenticationRef .triggers (not (hasPrefix "SASL" (dig "kafka" "security" "security_protocol" "PLAINTEXT" $config))) }}
{{- if and .enabled (not $login) }}
{{- fail "autoscaling.authenticationRef: not set; with config.kafka.security.security_protocol = SASL_... KEDA needs a login of its own" }}
{{- end }}
{{- end }}
{{- range $name, $setting := dict "ca" "ssl_cafile" "clientCertificate" "ssl_certfile" "password" "sasl_plain_password_file" }}
{{- if and (get $.Values.kafkaSecrets $name).secret (dig "kafka" "security" $setting "" $config) }}
{{- fail (printf "config.kafka.security.%s and kafkaSecrets.%s: only one of them" $setting $name) }}
{{- end }}
{{- end }}
{{- end -}}
