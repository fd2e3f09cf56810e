{{- define "roomcast.name" -}}
{{- if contains .Chart.Name .Release.Name }}{{ .Release.Name | trunc 50 | trimSuffix "-" }}{{ else }}{{ printf "%s-%s" .Release.Name .Chart.Name | trunc 50 | trimSuffix "-" }}{{ end }}
{{- end }}

{{- define "roomcast.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "roomcast.labels" -}}
{{ include "roomcast.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{- define "roomcast.secret" -}}
{{- .Values.secrets.existingSecret | default (include "roomcast.name" .) }}
{{- end }}

{{- /* What [shutdown] needs, and the order in which a pod stops, must fit together. */ -}}
{{- define "roomcast.grace" -}}
{{- with .Values.shutdown }}
{{- if lt (int .timeout) (add .pause .drain | int) }}
{{- fail (printf "shutdown.timeout (%vs) must not be shorter than pause (%vs) and drain (%vs) together" .timeout .pause .drain) }}
{{- end }}
{{- add .endpoints .timeout 5 }}
{{- end }}
{{- end }}
