"""Write k8s/: the chart rendered for those without Helm. tests/deploy holds the two together."""

import re
from pathlib import Path
from typing import Any

import helm_python as helm
import yaml

ROOT = Path(__file__).parent.parent
CHART = ROOT / "deploy" / "helm" / "modelmeter"

_ORDER = ("ServiceAccount", "Secret", "ConfigMap", "NetworkPolicy", "Service", "StatefulSet", "Deployment")
_OF_HELM = re.compile(r"^ *(helm\.sh/chart|app\.kubernetes\.io/managed-by): .*\n", re.MULTILINE)

_PIPELINE = """\
# modelmeter in a small cluster, its database inside:
#
#   minikube start
#   eval $(minikube docker-env)
#   docker build . -t modelmeter:v1
#   kubectl apply -f k8s/pipeline.yaml
#   kubectl port-forward svc/modelapi 8080:80    # then: curl http://localhost:8080/stats/Llama/v1
#
# docs/kubernetes.md goes on from here. Made by script/manifests from deploy/helm/modelmeter/ci/minikube-values.yaml.
"""
_PRODUCTION = """\
# Rendered from deploy/helm/modelmeter/ci/production-values.yaml by script/manifests; change it with a kustomization.
"""


def render(values: dict[str, Any], name: str = "modelmeter", namespace: str = "default") -> dict[str, str]:
    """The chart's manifests by template."""
    with helm.Chart.load(CHART) as chart:
        chart.validate_schema(values)
        found = chart.render(values, name=name, namespace=namespace)
    return {path.removeprefix("modelmeter/templates/"): text for path, text in found.items() if path.endswith(".yaml")}


def read_values(name: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((CHART / "ci" / f"{name}-values.yaml").read_text("utf-8"))
    return found


def _join(head: str, texts: list[str]) -> str:
    documents = [part.strip("\n") for text in texts for part in re.split(r"^---\n", text, flags=re.MULTILINE)]
    documents = [part for part in documents if part.strip()]

    def place(document: str) -> int:
        kind = re.search(r"^kind: (\w+)", document, re.MULTILINE)
        assert kind is not None, document
        return _ORDER.index(kind[1]) if kind[1] in _ORDER else len(_ORDER)

    documents.sort(key=place)
    return head + "".join(f"---\n{_OF_HELM.sub('', document + chr(10))}" for document in documents)


def manifests() -> dict[Path, str]:
    """What each file under k8s/ shall hold."""
    pipeline = render(read_values("minikube"), name="pipeline")
    production = render(read_values("production") | {"migrations": {"mode": "init"}}, namespace="modelmeter")
    monitoring = production.pop("monitoring.yaml")
    return {
        ROOT / "k8s" / "pipeline.yaml": _join(_PIPELINE, list(pipeline.values())),
        ROOT / "k8s" / "production" / "modelmeter.yaml": _join(_PRODUCTION, list(production.values())),
        ROOT / "k8s" / "production" / "monitoring.yaml": _join(_PRODUCTION, [monitoring]),
    }


if __name__ == "__main__":
    for path, text in manifests().items():
        path.write_text(text, "utf-8")
        print(path.relative_to(ROOT))
