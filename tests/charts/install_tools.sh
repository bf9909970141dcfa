#!/usr/bin/env bash
# Put helm, kubeconform, kustomize and the schemas that judge the chart into .cache/charts of the checkout. Everything
# comes through go's and pip's ordinary clients, at the versions named here.
set -euo pipefail
cd "$(dirname "$0")/../.."

readonly FOLDER=$PWD/.cache/charts
readonly KUBERNETES_VALIDATE=1.37.0
readonly PROMETHEUS_OPERATOR=v0.85.0
readonly KEDA=v2.21.0
readonly TOOLS=(
  helm.sh/helm/v3/cmd/helm@v3.22.0
  github.com/yannh/kubeconform/cmd/kubeconform@v0.8.0
  sigs.k8s.io/kustomize/kustomize/v5@v5.8.1
)

stamp=$FOLDER/$(sha256sum "$0" tests/charts/schemas.py | sha256sum | cut -c1-16).installed
[[ -f $stamp ]] && exit 0

if ! command -v go >/dev/null; then
  echo "the check of the chart builds helm, kubeconform and kustomize: it needs go 1.26 or later (https://go.dev/doc/install)" >&2
  exit 1
fi

# Helm's releases are linked with the version of Kubernetes that they render for where none is named.
flags=-s
for package in pkg/chartutil pkg/lint/rules; do
  for part in Major=${KUBERNETES_VALIDATE%%.*} Minor=$(cut -d. -f2 <<<"$KUBERNETES_VALIDATE"); do
    flags+=" -X helm.sh/helm/v3/$package.k8sVersion$part"
  done
done
mkdir -p "$FOLDER"
for tool in "${TOOLS[@]}"; do
  GOBIN=$FOLDER/bin go install -ldflags="$flags" "$tool"
done

crds=$FOLDER/crds
rm -rf "$crds" "$FOLDER/schemas"
mkdir -p "$crds"
module() { # the folder of a module's sources, fetched
  go mod download -json "$1" | python3 -c 'import json, sys; print(json.load(sys.stdin)["Dir"])'
}
operator=$(cd / && module "github.com/prometheus-operator/prometheus-operator@$PROMETHEUS_OPERATOR")
keda=$(cd / && module "github.com/kedacore/keda/v2@$KEDA")
cp "$operator"/example/prometheus-operator-crd/monitoring.coreos.com_{podmonitors,prometheusrules}.yaml "$crds"
cp "$keda"/config/crd/bases/keda.sh_scaledobjects.yaml "$keda"/pkg/scalers/kafka_scaler.go "$crds"
chmod -R u+w "$crds"

.venv/bin/pip install -q --disable-pip-version-check "kubernetes-validate==$KUBERNETES_VALIDATE"
.venv/bin/python -m tests.charts.schemas "$crds" "$FOLDER/schemas"
touch "$stamp"
