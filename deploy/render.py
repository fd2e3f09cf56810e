"""Renders deploy/helm/roomcast into deploy/kubernetes, or into the directory that is given: `make manifests`.

It needs the package helm-python-sdk (tests/requirements.txt), which is Helm itself. `lint` as the argument checks the chart,
`template` renders the chart with the values that come as JSON on standard input, and prints it.
"""

import json
import shutil
import sys
from pathlib import Path

import helm_python as helm

DEPLOY = Path(__file__).parent
CHART = DEPLOY / "helm" / "roomcast"
# What needs the operator's kinds, a custom metric or a controller is apart, so that `kubectl apply -f` takes the rest.
OPTIONAL = ["servicemonitor", "prometheusrule", "horizontalpodautoscaler"]
OPTIONAL_VALUES = {"serviceMonitor": {"enabled": True}, "prometheusRule": {"enabled": True}, "autoscaling": {"enabled": True}}
HEAD = "# Rendered from deploy/helm/roomcast by `make manifests`. Change the chart, not this file.\n"
# Names the tool that applied a manifest, which is not Helm here.
HELM_LABELS = ["app.kubernetes.io/managed-by:", "helm.sh/chart:"]


def templates(values):
    """The rendered templates by name, without those that render to nothing."""
    with helm.Chart.load(str(CHART)) as chart:
        rendered = chart.render(values, name="roomcast", namespace="default")
    by_name = {Path(name).stem: text.strip("\n") + "\n" for name, text in rendered.items() if name.endswith(".yaml")}
    return {name: text for name, text in by_name.items() if text.strip()}


def plain(text):
    lines = [line for line in text.splitlines() if not any(label in line for label in HELM_LABELS)]
    return HEAD + "\n".join(lines) + "\n"


def render(target):
    required = templates({})
    optional = {name: templates(OPTIONAL_VALUES)[name] for name in OPTIONAL}
    for directory, files in [(target, required), (target / "optional", optional)]:
        directory.mkdir(parents=True, exist_ok=True)
        for old in directory.glob("*.yaml"):
            old.unlink()
        for name, text in files.items():
            (directory / f"{name}.yaml").write_text(plain(text))


def main(what="render", target=DEPLOY / "kubernetes"):
    if what == "lint":
        report = helm.lint(str(CHART), strict=True)
        print(json.dumps(report, indent=2))
        sys.exit(bool(report["errors"]))
    if what == "template":
        print("---\n".join(templates(json.load(sys.stdin)).values()))
        return
    # A chart is a folder that is installed alone, so it has copies.
    shutil.copy(DEPLOY / "prometheus" / "alerts.yaml", CHART / "files")
    shutil.copy(DEPLOY / "grafana" / "dashboard.json", CHART / "files")
    render(Path(target))


main(*sys.argv[1:])
