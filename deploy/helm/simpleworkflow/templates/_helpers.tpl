{{- define "simpleworkflow.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end }}

{{- define "simpleworkflow.labels" -}}
app.kubernetes.io/name: simpleworkflow
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}

{{- define "simpleworkflow.selector" -}}
app.kubernetes.io/name: simpleworkflow
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "simpleworkflow.pod" -}}
automountServiceAccountToken: false
securityContext:
  runAsNonRoot: true
  runAsUser: 10001
  seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "simpleworkflow.container" -}}
image: {{ include "simpleworkflow.image" . | quote }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: {drop: [ALL]}
{{- end }}

{{- define "simpleworkflow.environment" -}}
- name: DATABASE_URL
  valueFrom:
    secretKeyRef: {name: {{ .Values.database.secret | quote }}, key: {{ .Values.database.key | quote }}}
- name: SIMPLEWORKFLOW_LOG_LEVEL
  value: {{ .Values.worker.logLevel | quote }}
{{- end }}
