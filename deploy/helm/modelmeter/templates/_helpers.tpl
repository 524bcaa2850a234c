{{- define "modelmeter.prefix" -}}
{{- if .Values.namePrefix -}}{{ .Values.namePrefix }}
{{- else if contains "modelmeter" .Release.Name -}}{{ .Release.Name | trunc 40 | trimSuffix "-" }}-
{{- else -}}{{ .Release.Name | trunc 30 | trimSuffix "-" }}-modelmeter-
{{- end -}}
{{- end -}}

{{- define "modelmeter.databaseName" -}}
{{- .Values.database.bundled.name | default (printf "%sdatabase" (include "modelmeter.prefix" .)) -}}
{{- end -}}

{{- define "modelmeter.databaseSecret" -}}
{{- if .Values.database.bundled.enabled -}}{{ include "modelmeter.databaseName" . }}
{{- else -}}{{ required "database.existingSecret: name the Secret that holds the database's URL" .Values.database.existingSecret }}
{{- end -}}
{{- end -}}

{{- define "modelmeter.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end -}}

{{- define "modelmeter.migrations" -}}
{{- .Values.migrations.mode | default (ternary "init" "hook" .Values.database.bundled.enabled) -}}
{{- end -}}

{{- define "modelmeter.queueKind" -}}
{{- $scheme := regexFind "^[a-z]+" .Values.queue.url -}}
{{- if eq $scheme "nats" -}}nats
{{- else if eq $scheme "pubsub" -}}pubsub
{{- else -}}postgres
{{- end -}}
{{- end -}}

{{/* (dict "root" $ "component" "api") */}}
{{- define "modelmeter.selector" -}}
app.kubernetes.io/name: modelmeter
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end -}}

{{- define "modelmeter.labels" -}}
{{ include "modelmeter.selector" . }}
app.kubernetes.io/version: {{ .root.Values.image.tag | default .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ .root.Chart.Name }}-{{ .root.Chart.Version }}
{{- end -}}

{{- define "modelmeter.podMetadata" -}}
labels:
  {{- include "modelmeter.selector" . | nindent 2 }}
  {{- with .root.Values.podLabels }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- if or .root.Values.podAnnotations (and .root.Values.rules (has .component (list "api" "worker" "keeper"))) }}
annotations:
  {{- if has .component (list "api" "worker" "keeper") }}
  {{- with .root.Values.rules }}
  modelmeter/rules: {{ sha256sum . | trunc 16 | quote }}
  {{- end }}
  {{- end }}
  {{- with .root.Values.podAnnotations }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end }}
{{- end -}}

{{/* What all pods have in common. enableServiceLinks: Kubernetes would add MODELMETER_..._PORT, which is no setting. */}}
{{- define "modelmeter.podSpec" -}}
{{- $values := .root.Values -}}
serviceAccountName: {{ .serviceAccount | default (include "modelmeter.serviceAccount" .root) }}
automountServiceAccountToken: false
enableServiceLinks: false
securityContext:
  runAsNonRoot: true
  {{- with .user }}
  runAsUser: {{ . }}
  runAsGroup: {{ . }}
  fsGroup: {{ . }}
  fsGroupChangePolicy: OnRootMismatch
  {{- end }}
  seccompProfile: {type: RuntimeDefault}
  {{- if not .user }}
  {{- with $values.podSecurityContext }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
  {{- end }}
{{- with $values.image.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
{{- with $values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with $values.nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $values.tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $values.affinity }}
affinity: {{- toYaml . | nindent 2 }}
{{- end }}
{{- if and $values.topologySpread .spread }}
topologySpreadConstraints:
  {{- range list "kubernetes.io/hostname" "topology.kubernetes.io/zone" }}
  - maxSkew: 1
    topologyKey: {{ . }}
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels:
        {{- include "modelmeter.selector" $ | nindent 8 }}
  {{- end }}
{{- end }}
{{- end -}}

{{- define "modelmeter.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{ .Values.serviceAccount.name | default (printf "%sserver" (include "modelmeter.prefix" .)) }}
{{- else -}}{{ .Values.serviceAccount.name | default "default" }}
{{- end -}}
{{- end -}}

{{- define "modelmeter.container" -}}
image: {{ include "modelmeter.image" .root }}
imagePullPolicy: {{ .root.Values.image.pullPolicy }}
{{ include "modelmeter.restricted" . }}
{{- end -}}

{{- define "modelmeter.restricted" -}}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: {drop: [ALL]}
{{- end -}}

{{- define "modelmeter.databaseEnv" -}}
- name: MODELMETER_DATABASE_URL
  valueFrom:
    secretKeyRef:
      name: {{ include "modelmeter.databaseSecret" . }}
      key: {{ ternary "url" .Values.database.key .Values.database.bundled.enabled }}
{{- end -}}

{{- define "modelmeter.queueEnv" -}}
- name: MODELMETER_QUEUE
  {{- if .Values.queue.existingSecret }}
  valueFrom:
    secretKeyRef: {name: {{ .Values.queue.existingSecret }}, key: {{ .Values.queue.key }}}
  {{- else }}
  value: {{ .Values.queue.url | quote }}
  {{- end }}
{{- end -}}

{{- define "modelmeter.env" -}}
{{- $values := .root.Values -}}
{{ include "modelmeter.databaseEnv" .root }}
{{ include "modelmeter.queueEnv" .root }}
- name: MODELMETER_GRACE_SECONDS
  value: {{ .graceSeconds | quote }}
{{- if $values.rules }}
- name: MODELMETER_RULES
  value: /etc/modelmeter/rules.yaml
{{- end }}
{{- if $values.notifications }}
- name: MODELMETER_NOTIFICATIONS
  value: /etc/modelmeter/notifications.yaml
{{- end }}
# Polars would start a thread for each core of the node.
- name: POLARS_MAX_THREADS
  value: "2"
{{- range $name, $value := $values.config }}
- name: MODELMETER_{{ upper $name }}
  {{- /* Helm reads numbers as floats, and would write 8.589934592e+09. */}}
  value: {{ if and (kindIs "float64" $value) (eq (floor $value) $value) }}{{ $value | int64 | quote }}{{ else }}{{ $value | toString | quote }}{{ end }}
{{- end }}
{{- end -}}

{{- define "modelmeter.envFrom" -}}
{{- with .Values.notificationSecrets }}
envFrom:
  - secretRef: {name: {{ . }}}
{{- end }}
{{- end -}}

{{- define "modelmeter.mounts" -}}
- {name: tmp, mountPath: /tmp}
{{- if or .Values.rules .Values.notifications }}
- {name: rules, mountPath: /etc/modelmeter, readOnly: true}
{{- end }}
{{- end -}}

{{- define "modelmeter.volumes" -}}
- {name: tmp, emptyDir: {sizeLimit: 256Mi}}
{{- if or .Values.rules .Values.notifications }}
- name: rules
  configMap: {name: {{ include "modelmeter.prefix" . }}rules}
{{- end }}
{{- end -}}

{{- define "modelmeter.migrate" -}}
- name: migrate
  {{- include "modelmeter.container" . | nindent 2 }}
  args: [migrate, --accept-newer, --wait, {{ .root.Values.migrations.waitSeconds | quote }}]
  env:
    {{- include "modelmeter.databaseEnv" .root | nindent 4 }}
  resources: {{- toYaml .root.Values.migrations.resources | nindent 4 }}
  volumeMounts:
    - {name: tmp, mountPath: /tmp}
{{- end -}}

{{- define "modelmeter.createQueue" }}
- name: queue
  {{- include "modelmeter.container" . | nindent 2 }}
  args: [queue, create, --wait, {{ .root.Values.migrations.waitSeconds | quote }}]
  env:
    {{- include "modelmeter.databaseEnv" .root | nindent 4 }}
    {{- include "modelmeter.queueEnv" .root | nindent 4 }}
  resources: {{- toYaml .root.Values.migrations.resources | nindent 4 }}
  volumeMounts:
    - {name: tmp, mountPath: /tmp}
{{- end -}}
