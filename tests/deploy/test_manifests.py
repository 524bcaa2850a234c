"""Every manifest is valid on every Kubernetes that is supported, and safe to run in a restricted namespace."""

import re
import shutil
import subprocess
from typing import Any

import kubernetes_validate
import pytest

from tests.deploy.rendered import ROOT, SOURCES, Manifest, manifests, pods_of

RELEASES = ("1.25", "1.28", "1.31", "1.34", "1.37")
FROM_OTHERS = {
    "ScaledObject": "keda.sh/v1alpha1",
    "TriggerAuthentication": "keda.sh/v1alpha1",
    "ServiceMonitor": "monitoring.coreos.com/v1",
    "PrometheusRule": "monitoring.coreos.com/v1",
    "HTTPRoute": "gateway.networking.k8s.io/v1",
    "Cluster": "postgresql.cnpg.io/v1",
    "ScheduledBackup": "postgresql.cnpg.io/v1",
}
"""Kinds that an operator brings; Kubernetes itself has no schema for them."""

every_source = pytest.mark.parametrize("source", SOURCES)


def own(source: str) -> list[Manifest]:
    return [item for item in SOURCES[source] if item["kind"] not in FROM_OTHERS]


@pytest.mark.parametrize("release", RELEASES)
@every_source
def test_every_manifest_is_valid(source: str, release: str) -> None:
    for item in SOURCES[source]:
        if item["kind"] in FROM_OTHERS:
            assert item["apiVersion"] == FROM_OTHERS[item["kind"]]
            assert item["metadata"]["name"]
        else:
            kubernetes_validate.validate(item, release, strict=True)


def test_validation_refuses_a_field_that_does_not_exist() -> None:
    item: dict[str, Any] = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "a"}, "spec": {"prots": []}}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(item, RELEASES[0], strict=True)


@every_source
def test_every_name_is_there_once(source: str) -> None:
    names = [(item["kind"], item["metadata"]["name"]) for item in SOURCES[source]]
    assert len(names) == len(set(names))


@every_source
def test_every_pod_is_restricted(source: str) -> None:
    for name, pod in pods_of(own(source)):
        assert pod["securityContext"]["runAsNonRoot"] is True, name
        assert pod["securityContext"].get("runAsUser", 1) > 0, name
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, name
        assert pod["automountServiceAccountToken"] is False, name
        assert not any(pod.get(field) for field in ("hostNetwork", "hostPID", "hostIPC")), name
        for volume in pod.get("volumes", []):
            assert set(volume) - {"name"} <= {"emptyDir", "configMap", "secret"}, name
        for container in [*pod.get("initContainers", []), *pod["containers"]]:
            context = container["securityContext"]
            assert context["allowPrivilegeEscalation"] is False, name
            assert context["readOnlyRootFilesystem"] is True, name
            assert context["capabilities"] == {"drop": ["ALL"]}, name
            assert not any("hostPort" in port for port in container.get("ports", [])), name


@every_source
def test_no_service_of_the_namespace_becomes_a_setting(source: str) -> None:
    """A Service called modelmeter-api would make MODELMETER_API_PORT, which the settings refuse."""
    assert all(pod["enableServiceLinks"] is False for _, pod in pods_of(own(source)))


@every_source
def test_every_container_has_requests_and_limits(source: str) -> None:
    for name, pod in pods_of(own(source)):
        for container in [*pod.get("initContainers", []), *pod["containers"]]:
            assert set(container["resources"]["requests"]) >= {"cpu", "memory"}, name
            assert set(container["resources"]["limits"]) >= {"cpu", "memory"}, name


@every_source
def test_what_runs_for_long_has_all_probes(source: str) -> None:
    for name, pod in pods_of(own(source)):
        if not name.startswith(("Deployment", "StatefulSet")):
            assert pod["restartPolicy"] == "Never", name
            continue
        for container in pod["containers"]:
            assert {"startupProbe", "readinessProbe", "livenessProbe"} <= set(container), name
            ports = {port["name"] for port in container["ports"]}
            for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
                said = container[probe].get("httpGet", container[probe].get("tcpSocket", {})).get("port")
                assert said is None or said in ports, (name, probe)


@every_source
def test_every_image_has_a_release(source: str) -> None:
    for name, pod in pods_of(own(source)):
        for container in [*pod.get("initContainers", []), *pod["containers"]]:
            image, _, tag = container["image"].rpartition(":")
            assert image, name
            assert tag != "latest", name


@every_source
def test_every_api_drains_before_it_is_killed(source: str) -> None:
    for _, pod in pods_of(own(source)):
        for container in pod["containers"]:
            if container["name"] != "api":
                continue
            command = container["lifecycle"]["preStop"]["exec"]["command"]
            assert command[:2] == ["python", "-c"], "the image has no other program"
            slept = re.fullmatch(r"import time; time.sleep\((\d+)\)", command[2])
            assert slept
            grace = next(one["value"] for one in container["env"] if one["name"] == "MODELMETER_GRACE_SECONDS")
            assert pod["terminationGracePeriodSeconds"] > int(slept[1]) + int(grace)


@every_source
def test_every_service_and_policy_finds_its_pods(source: str) -> None:
    items = own(source)
    pods = [
        item["spec"]["jobTemplate"]["spec"]["template"] if item["kind"] == "CronJob" else item["spec"]["template"]
        for item in items
        if item["kind"] in {"Deployment", "StatefulSet", "Job", "CronJob"}
    ]
    for item in items:
        spec = item.get("spec", {})
        selector = spec.get("selector") if item["kind"] == "Service" else spec.get("podSelector", {}).get("matchLabels")
        if not selector:
            continue
        name = f"{item['kind']} {item['metadata']['name']}"
        found = [pod for pod in pods if selector.items() <= pod["metadata"]["labels"].items()]
        if not pods:  # a file of additions
            continue
        assert len(found) == 1, name
        ports = {port["name"] for container in found[0]["spec"]["containers"] for port in container.get("ports", [])}
        named = spec.get("ports", []) if item["kind"] == "Service" else []
        assert {port["targetPort"] for port in named} <= ports, name


def test_the_files_under_k8s_are_what_the_chart_renders() -> None:
    for path, text in manifests.manifests().items():
        assert path.read_text("utf-8") == text, f"{path.relative_to(ROOT)} is old; run script/manifests"


def test_the_pipeline_is_what_its_readers_expect() -> None:
    names = {(item["kind"], item["metadata"]["name"]) for item in SOURCES["k8s/pipeline.yaml"]}
    assert names >= {
        ("Deployment", "modelapi"),
        ("Service", "modelapi"),
        ("Deployment", "modelworker"),
        ("Deployment", "modelkeeper"),
        ("StatefulSet", "statsdatabase"),
        ("Secret", "statsdatabase"),
        ("CronJob", "etl"),
    }
    for name, pod in pods_of(SOURCES["k8s/pipeline.yaml"]):
        wanted = "postgres:17" if name.endswith("statsdatabase") else "modelmeter:v1"
        assert {container["image"] for container in pod["containers"]} == {wanted}


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not here")
def test_kustomize_builds_production() -> None:
    ran = subprocess.run(
        ["kubectl", "kustomize", str(ROOT / "k8s" / "production")], capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr
    assert "namespace: modelmeter" in ran.stdout
