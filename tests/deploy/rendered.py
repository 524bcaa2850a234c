"""Every manifest that can leave this repository: k8s/, deploy/examples, and each render of the chart."""

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

pytest.importorskip("helm_python", reason="Helm's library has no wheel for this platform")

ROOT = Path(__file__).parent.parent.parent
CHART = ROOT / "deploy" / "helm" / "modelmeter"
VALUE_SETS = sorted(path.name.removesuffix("-values.yaml") for path in (CHART / "ci").glob("*-values.yaml"))

Manifest = dict[str, Any]


def script(path: str) -> ModuleType:
    """A Python file that is no part of a package."""
    file = ROOT / path
    spec = importlib.util.spec_from_file_location(file.stem, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[file.stem] = module
    spec.loader.exec_module(module)
    return module


manifests = script("deploy/manifests.py")


def documents(text: str) -> list[Manifest]:
    return [document for document in yaml.safe_load_all(text) if document]


def render(name: str, values: Manifest | None = None, **arguments: str) -> list[Manifest]:
    """One value set of the chart, `values` on top of it."""
    texts = manifests.render(manifests.read_values(name) | (values or {}), **arguments)
    return [document for text in texts.values() for document in documents(text)]


def sources() -> dict[str, list[Manifest]]:
    found = {f"chart {name}": render(name) for name in VALUE_SETS}
    for path in sorted([*(ROOT / "k8s").rglob("*.yaml"), *(ROOT / "deploy" / "examples").glob("*.yaml")]):
        if path.name != "kustomization.yaml":
            found[str(path.relative_to(ROOT))] = documents(path.read_text("utf-8"))
    return found


SOURCES = sources()


def pods_of(items: list[Manifest]) -> Iterator[tuple[str, Manifest]]:
    """(the owner's name, the pod's spec)."""
    for item in items:
        spec = item.get("spec", {})
        if item["kind"] == "CronJob":
            spec = spec["jobTemplate"]["spec"]
        if "template" in spec:
            yield f"{item['kind']} {item['metadata']['name']}", spec["template"]["spec"]


def only(items: list[Manifest], kind: str, ending: str = "") -> Manifest:
    found = [item for item in items if item["kind"] == kind and item["metadata"]["name"].endswith(ending)]
    assert len(found) == 1, (kind, ending, [item["metadata"]["name"] for item in found])
    return found[0]
