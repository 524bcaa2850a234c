"""The Helm chart: linted and rendered by Helm itself; what its values promise."""

import re
from typing import Any

import helm_python as helm
import pytest
import yaml
from prometheus_client import REGISTRY

from modelmeter import __version__, telemetry
from modelmeter.config import Config
from tests.deploy.rendered import CHART, VALUE_SETS, manifests, only, pods_of, render


def environment(pod: dict[str, Any]) -> dict[str, Any]:
    return {one["name"]: one.get("value", one.get("valueFrom")) for one in pod["containers"][0]["env"]}


@pytest.mark.parametrize("name", VALUE_SETS)
def test_helm_finds_nothing_to_complain_of(name: str) -> None:
    report = helm.lint(CHART, manifests.read_values(name), strict=True)
    assert report["errors"] == []
    assert [message for message in report["messages"] if message["severity"] > 1] == []


def test_the_chart_is_of_this_release() -> None:
    with helm.Chart.load(CHART) as chart:
        assert chart.metadata["appVersion"] == __version__
    image = (CHART.parent.parent.parent / "Dockerfile").read_text("utf-8")
    assert f"ARG VERSION={__version__}\n" in image


def test_without_a_database_the_chart_says_what_to_give() -> None:
    with helm.Chart.load(CHART) as chart, pytest.raises(helm.HelmError, match="name the Secret that holds"):
        chart.render({}, name="modelmeter")


@pytest.mark.parametrize(
    "values",
    [
        {"databse": {}},
        {"api": {"replicas": "two"}},
        {"image": {"tag": "latest"}},
        {"queue": {"url": "kafka://host"}},
        {"config": {"database_url": "postgresql://..."}},
        {"ingress": {"enabled": True}},
    ],
)
def test_a_wrong_value_is_refused(values: dict[str, Any]) -> None:
    with helm.Chart.load(CHART) as chart, pytest.raises(helm.HelmError):
        chart.validate_schema({"database": {"existingSecret": "a"}} | values)


def test_every_value_is_in_the_schema() -> None:
    with helm.Chart.load(CHART) as chart:
        schema, values = chart.schema, chart.values

    def compare(value: Any, shape: dict[str, Any], path: str) -> None:
        if isinstance(value, dict) and "properties" in shape:
            assert shape["additionalProperties"] is False, path
            for name, inner in value.items():
                assert name in shape["properties"], f"{path}.{name}"
                compare(inner, shape["properties"][name], f"{path}.{name}")

    assert schema is not None
    compare(values, schema, "")


@pytest.mark.parametrize("name", VALUE_SETS)
def test_every_setting_in_a_pod_is_known(name: str) -> None:
    known = {f"MODELMETER_{field.upper()}" for field in Config.model_fields}
    for owner, pod in pods_of(render(name)):
        for container in [*pod.get("initContainers", []), *pod["containers"]]:
            given = {one["name"] for one in container.get("env", []) if one["name"].startswith("MODELMETER_")}
            assert given <= known, owner


def test_large_numbers_stay_whole() -> None:
    """Helm reads numbers as floats: 8589934592 must not become 8.589934592e+09."""
    api = only(render("cloudnativepg-keda"), "Deployment", "api")
    assert environment(api["spec"]["template"]["spec"])["MODELMETER_QUEUE_LIMIT_BYTES"] == "8589934592"
    rule = yaml.safe_dump(only(render("cloudnativepg-keda"), "PrometheusRule"))
    assert "0.8 * 8589934592" in rule


def test_the_schema_comes_before_the_release() -> None:
    items = render("production")
    job = only(items, "Job")
    assert job["metadata"]["annotations"]["helm.sh/hook"] == "pre-install,pre-upgrade"
    assert all("initContainers" not in pod for _, pod in pods_of(items))


def test_with_its_own_database_the_keeper_migrates() -> None:
    """A hook before the install would wait for a database that comes with the install."""
    items = render("plain")
    assert not [item for item in items if item["kind"] == "Job"]
    keeper = only(items, "Deployment", "keeper")["spec"]["template"]["spec"]
    assert keeper["initContainers"][0]["args"] == ["migrate", "--accept-newer", "--wait", "600"]


@pytest.mark.parametrize(
    ("name", "kind", "wanted"),
    [
        ("cloudnativepg-keda", "postgresql", {"targetQueryValue": "200000"}),
        ("onprem-nats", "nats-jetstream", {"stream": "modelmeter", "consumer": "modelmeter", "lagThreshold": "200"}),
        (
            "gke-pubsub",
            "gcp-pubsub",
            {"subscriptionName": "projects/example/subscriptions/modelmeter-workers", "value": "200"},
        ),
    ],
)
def test_keda_asks_the_queue_that_is_used(name: str, kind: str, wanted: dict[str, str]) -> None:
    items = render(name)
    (trigger,) = only(items, "ScaledObject")["spec"]["triggers"]
    assert trigger["type"] == kind
    assert trigger["metadata"].items() >= wanted.items()
    assert all(isinstance(value, str) for value in trigger["metadata"].values())
    scaled = [item["metadata"]["name"] for item in items if item["kind"] == "HorizontalPodAutoscaler"]
    assert [one for one in scaled if one.endswith("worker")] == []


def test_without_keda_workers_scale_by_cpu() -> None:
    scaled = [item for item in render("production") if item["kind"] == "HorizontalPodAutoscaler"]
    assert sorted(item["spec"]["scaleTargetRef"]["name"] for item in scaled) == ["modelmeter-api", "modelmeter-worker"]


@pytest.mark.parametrize("name", VALUE_SETS)
def test_what_is_scaled_has_no_fixed_number(name: str) -> None:
    """Else each upgrade would set the number back."""
    items = render(name)
    targets = {
        item["spec"]["scaleTargetRef"]["name"]
        for item in items
        if item["kind"] in {"HorizontalPodAutoscaler", "ScaledObject"}
    }
    for item in items:
        if item["kind"] == "Deployment":
            assert ("replicas" in item["spec"]) == (item["metadata"]["name"] not in targets)


def test_a_change_of_the_rules_replaces_the_pods() -> None:
    annotations = [
        only(render("plain", {"rules": text}), "Deployment", "worker")["spec"]["template"]["metadata"]["annotations"]
        for text in ("groups: []", "groups: [{}]")
    ]
    assert annotations[0] != annotations[1]


def test_alerts_about_ourselves_name_metrics_that_we_have() -> None:
    assert telemetry.EVENTS_ACCEPTED
    have = {
        name
        for family in REGISTRY.collect()
        for name in [
            family.name,
            f"{family.name}_total" if family.type == "counter" else f"{family.name}_bucket",
        ]
    }
    rules = only(render("production"), "PrometheusRule")["spec"]["groups"][0]["rules"]
    for rule in rules:
        used = set(re.findall(r"modelmeter_[a-z_]+", rule["expr"]))
        assert used, rule["alert"]
        assert used <= have, rule["alert"]


def test_alerts_about_ourselves_are_promql() -> None:
    promql = pytest.importorskip("promql_parser")
    for rule in only(render("production"), "PrometheusRule")["spec"]["groups"][0]["rules"]:
        promql.parse(rule["expr"])
        assert rule["annotations"]["summary"]


def test_notifications_and_their_secrets_reach_the_processes_that_need_them() -> None:
    items = render("cloudnativepg-keda")
    text = only(items, "ConfigMap", "rules")["data"]["notifications.yaml"]
    assert "secret_env: ALERTS_SECRET" in text
    for name in ("api", "worker", "keeper"):
        (container,) = only(items, "Deployment", name)["spec"]["template"]["spec"]["containers"]
        assert {"secretRef": {"name": "modelmeter-notifications"}} in container["envFrom"]
        environment = {one["name"]: one.get("value") for one in container["env"]}
        assert environment["MODELMETER_NOTIFICATIONS"] == "/etc/modelmeter/notifications.yaml"
