"""Try the manifests and the chart on the cluster that KUBECONFIG names. Run by script/test-deploy.

Everything happens in a namespace of its own, which is removed at the end. A kind that the cluster lacks is left out
and said; the CronJob is always run as a Job of its template. A failed claim is said, and the exit code is 1.
"""

import argparse
import contextlib
import json
import os
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import helm_python as helm
import yaml

ROOT = Path(__file__).parent.parent
CHART = ROOT / "deploy" / "helm" / "modelmeter"

Manifest = dict[str, Any]


class Trial:
    """One run in one namespace."""

    def __init__(self, image: str, second_image: str, postgres: str, nats: str) -> None:
        self.namespace = f"modelmeter-test-{uuid.uuid4().hex[:6]}"
        self.image = image
        self.second_image = second_image
        self.nats = nats
        self.failed: list[str] = []
        text = (ROOT / "k8s" / "pipeline.yaml").read_text("utf-8")
        text = text.replace("image: modelmeter:v1", f"image: {image}").replace(
            "image: postgres:17", f"image: {postgres}"
        )
        self.items: list[Manifest] = [item for item in yaml.safe_load_all(text) if item]
        self._versions: set[str] = set()

    def kubectl(self, *arguments: str, stdin: str | None = None, check: bool = True) -> str:
        ran = subprocess.run(
            ["kubectl", "--namespace", self.namespace, *arguments],
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
        )
        if check and ran.returncode:
            raise RuntimeError(f"kubectl {' '.join(arguments)}: {ran.stderr.strip()}")
        return ran.stdout

    def claim(self, text: str, holds: bool, detail: object = "") -> None:
        print(f"  {'ok  ' if holds else 'FAIL'} {text}{f': {detail}' if detail != '' else ''}", flush=True)
        if not holds:
            self.failed.append(text)

    def has(self, api_version: str, kind: str) -> bool:
        if not self._versions:
            for line in self.kubectl("api-resources", "--no-headers").splitlines():
                *_, version, _, its_kind = line.split()
                self._versions.add(f"{version} {its_kind}")
        return f"{api_version} {kind}" in self._versions

    def apply(self, items: list[Manifest]) -> None:
        known = [item for item in items if self.has(item["apiVersion"], item["kind"])]
        for item in items:
            if item not in known:
                print(f"  this cluster has no {item['apiVersion']} {item['kind']}; left out", flush=True)
        self.kubectl("apply", "-f", "-", stdin=yaml.safe_dump_all(known))

    def pods(self, selector: str = "") -> list[Manifest]:
        found = json.loads(self.kubectl("get", "pods", "-o", "json", "-l", selector))["items"]
        return [pod for pod in found if "deletionTimestamp" not in pod["metadata"]]

    def component(self, name: str) -> list[Manifest]:
        return self.pods(f"app.kubernetes.io/instance=pipeline,app.kubernetes.io/component={name}")

    def is_ready(self, selector: str, count: int) -> bool:
        found = self.pods(selector)
        ready = [
            pod
            for pod in found
            if any(one["type"] == "Ready" and one["status"] == "True" for one in pod["status"].get("conditions", []))
        ]
        return len(ready) == len(found) == count

    def wait(self, what: str, holds: Callable[[], bool], seconds: float) -> float:
        began = time.monotonic()
        while not holds():
            if time.monotonic() - began > seconds:
                print(self.kubectl("get", "pods", "-o", "wide", check=False))
                raise RuntimeError(f"{what}: not within {seconds} s")
            time.sleep(0.25)
        return time.monotonic() - began

    def all_ready(self, seconds: float = 120) -> float:
        """Seconds until everything of pipeline.yaml is ready."""
        number = {"api": 2, "worker": 1, "keeper": 1, "database": 1}
        selector = "app.kubernetes.io/instance=pipeline,app.kubernetes.io/component="
        return self.wait(
            "all ready", lambda: all(self.is_ready(selector + name, n) for name, n in number.items()), seconds
        )

    @contextlib.contextmanager
    def load(self, url: str = "http://modelapi") -> Iterator[dict[str, Any]]:
        """Events under way meanwhile; what came of them is in the yielded dict afterwards."""
        model = f"m{uuid.uuid4().hex[:8]}"
        name = f"load-{model}"
        self.apply([self._load_pod(name, model, url)])
        self.wait("the load", lambda: "sending" in self.kubectl("logs", name, check=False), 60)
        result: dict[str, Any] = {}
        time.sleep(2)
        yield result
        time.sleep(2)
        self.kubectl("exec", name, "--", "python", "-c", "open('/tmp/stop', 'w')")
        self.wait(
            "the load's end",
            lambda: (
                json.loads(self.kubectl("get", "pod", name, "-o", "json"))["status"]["phase"] in {"Succeeded", "Failed"}
            ),
            200,
        )
        lines = self.kubectl("logs", name).splitlines()
        if not lines[-1].startswith("{"):
            raise RuntimeError(f"the load failed: {lines[-5:]}")
        result |= json.loads(lines[-1])
        self.kubectl("delete", "pod", name, "--wait=false")

    def judge(self, result: dict[str, Any], *, undisturbed: bool) -> None:
        print(f"  {json.dumps(result)}")
        self.claim(
            "nothing lost, nothing twice",
            result["counted"] == result["acknowledged"] > 0,
            f"{result['acknowledged']:,} acknowledged, {result['counted']:,} counted",
        )
        if undisturbed:
            self.claim("no request refused or cut", set(result["outcomes"]) == {"202"}, result["outcomes"])

    def _load_pod(self, name: str, model: str, url: str) -> Manifest:
        return {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name, "labels": {"test": "load"}},
            "spec": {
                "restartPolicy": "Never",
                "automountServiceAccountToken": False,
                "enableServiceLinks": False,
                "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
                "containers": [
                    {
                        "name": "load",
                        "image": self.image,
                        "imagePullPolicy": "IfNotPresent",
                        "command": ["python", "/load/trial_client.py"],
                        "env": [{"name": "STATS_API_URL", "value": url}, {"name": "MODEL", "value": model}],
                        "securityContext": {
                            "allowPrivilegeEscalation": False,
                            "readOnlyRootFilesystem": True,
                            "capabilities": {"drop": ["ALL"]},
                        },
                        "resources": {
                            "requests": {"cpu": "100m", "memory": "64Mi"},
                            "limits": {"cpu": "1", "memory": "256Mi"},
                        },
                        "volumeMounts": [
                            {"name": "load", "mountPath": "/load"},
                            {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108
                        ],
                    }
                ],
                "volumes": [{"name": "load", "configMap": {"name": "load"}}, {"name": "tmp", "emptyDir": {}}],
            },
        }

    def begin(self) -> None:
        labels = {"pod-security.kubernetes.io/enforce": "restricted"}
        self.apply(
            [
                {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": self.namespace, "labels": labels}},
                {
                    "apiVersion": "v1",
                    "kind": "ConfigMap",
                    "metadata": {"name": "load"},
                    "data": {"trial_client.py": (ROOT / "deploy" / "trial_client.py").read_text("utf-8")},
                },
            ]
        )

    def end(self) -> None:
        self.kubectl("delete", "namespace", self.namespace, "--timeout=180s", check=False)

    # The steps.

    def start_in_any_order(self) -> None:
        """The API first, the database last: everything waits, nothing crashes; all is up soon after the last."""
        database = [item for item in self.items if item["kind"] == "StatefulSet"]
        self.apply([item for item in self.items if item not in database])
        selector = "app.kubernetes.io/instance=pipeline,app.kubernetes.io/component="

        def run() -> bool:
            return all(
                pod["status"]["phase"] == "Running" and pod["status"]["containerStatuses"][0]["state"].get("running")
                for name in ("api", "worker")
                for pod in self.pods(selector + name) or [{"status": {"phase": "none"}}]
            )

        self.wait("API and worker run without a database", run, 60)
        time.sleep(10)
        self.claim("without a database no API is ready", not self.is_ready(f"{selector}api", 2))
        self.apply(database)
        seconds = self.all_ready()
        self.claim("all up within 30 s of the database", seconds <= 30, f"{seconds:.1f} s")
        restarts = {
            pod["metadata"]["name"]: one["restartCount"]
            for pod in self.pods()
            for one in pod["status"]["containerStatuses"]
        }
        self.claim("no crash loop", not any(restarts.values()), f"{sum(restarts.values())} restarts")
        self.kubectl("delete", "deployment,statefulset", "--all", "--wait=true")
        self.wait("all gone", lambda: not json.loads(self.kubectl("get", "pods", "-o", "json"))["items"], 90)
        self.apply(self.items)
        seconds = self.all_ready()
        self.claim("all at once, on a volume with data: up within 30 s", seconds <= 30, f"{seconds:.1f} s")

    def run_etl(self) -> None:
        """The CronJob's template, as a Job; then the stats that the README asks for."""
        cron = next(item for item in self.items if item["kind"] == "CronJob")
        job = {
            "apiVersion": "batch/v1",
            "kind": "Job",
            "metadata": {"name": "etl-once"},
            "spec": cron["spec"]["jobTemplate"]["spec"],
        }
        job["spec"]["template"]["spec"]["containers"][0]["args"][-1] = "10"
        self.apply([job])
        self.kubectl("wait", "--for=condition=complete", "job/etl-once", "--timeout=90s")
        print(f"  {self.kubectl('logs', 'job/etl-once').strip().splitlines()[-2:]}")
        answer = self.fetch("/stats/Llama/v1")
        self.claim("stats of Llama v1 through the Service", answer["events"] > 0, f"{answer['events']} events")

    def fetch(self, path: str, service: str = "modelapi") -> Any:
        code = f"import urllib.request as r; print(r.urlopen('http://{service}{path}', timeout=10).read().decode())"
        pod = self.component("worker")[0]["metadata"]["name"]
        return json.loads(self.kubectl("exec", pod, "-c", "worker", "--", "python", "-c", code))

    def delete_each_pod(self) -> None:
        """Each pod of ours goes once, the workers are scaled, and clients notice nothing."""
        with self.load() as result:
            for name in ("api", "worker", "keeper"):
                for pod in self.component(name):
                    self.kubectl("delete", "pod", pod["metadata"]["name"], "--wait=true")
                    self.all_ready()
            self.kubectl("scale", "deployment/modelworker", "--replicas=3")
            selector = "app.kubernetes.io/instance=pipeline,app.kubernetes.io/component=worker"
            self.wait("three workers", lambda: self.is_ready(selector, 3), 60)
            time.sleep(3)
            self.kubectl("scale", "deployment/modelworker", "--replicas=1")
            self.all_ready()
        self.judge(result, undisturbed=True)

    def kill_hard(self) -> None:
        """An API, a worker and the database go without a farewell; then the database with one."""
        with self.load() as result:
            for name in ("api", "worker", "database"):
                self.kubectl(
                    "delete", "pod", self.component(name)[0]["metadata"]["name"], "--grace-period=0", "--force"
                )
                seconds = self.all_ready()
                print(f"  after the kill of {name}: all ready in {seconds:.1f} s", flush=True)
            self.kubectl("delete", "pod", self.component("database")[0]["metadata"]["name"])
            print(f"  after the database's restart: all ready in {self.all_ready():.1f} s", flush=True)
        self.judge(result, undisturbed=False)

    def roll(self) -> None:
        """To the second image and back, under load; when its schema is newer, the first one runs on that."""
        with self.load() as result:
            for image in (self.second_image, self.image):
                for name in ("api", "worker", "keeper"):
                    images = [f"{name}={image}", *([f"migrate={image}"] if name == "keeper" else [])]
                    self.kubectl("set", "image", f"deployment/model{name}", *images)
                for name in ("api", "worker", "keeper"):
                    self.kubectl("rollout", "status", f"deployment/model{name}", "--timeout=180s")
                self.all_ready()
                running = {pod["spec"]["containers"][0]["image"] for pod in self.component("api")}
                self.claim(f"the API runs {image}", running == {image})
        self.judge(result, undisturbed=True)

    def chart(self) -> None:
        """Helm: install with the migrations' hook on the database, upgrade, roll back, uninstall; under load."""
        repository, tag = self.image.rsplit(":", 1)
        second = self.second_image.rsplit(":", 1)[1]
        scalable = self.has("autoscaling/v2", "HorizontalPodAutoscaler")
        values: dict[str, Any] = {
            "image": {"repository": repository, "tag": tag},
            "database": {"existingSecret": "statsdatabase"},
            "podDisruptionBudgets": self.has("policy/v1", "PodDisruptionBudget"),
        }
        for name in ("api", "worker"):
            values[name] = {
                "autoscaling": {"enabled": scalable, "minReplicas": 2, "maxReplicas": 3},
                "replicas": 2,
                "resources": {
                    "requests": {"cpu": "100m", "memory": "128Mi"},
                    "limits": {"cpu": "2", "memory": "1Gi"},
                },
            }
        release = "trial"
        with helm.Config(namespace=self.namespace, kubeconfig_path=os.environ["KUBECONFIG"]) as config:
            began = time.monotonic()
            done = config.install(str(CHART), release, values, wait="watcher", timeout=180)
            self.claim("helm install", done["status"] == "deployed", f"{time.monotonic() - began:.1f} s")
            url = "http://trial-modelmeter-api"
            with self.load(url) as result:
                values["image"]["tag"] = second
                began = time.monotonic()
                done = config.upgrade(str(CHART), release, values, wait="watcher", timeout=180)
                self.claim("helm upgrade", done["status"] == "deployed", f"{time.monotonic() - began:.1f} s")
                self.claim("the API runs the second image", self._image_of(release) == {self.second_image})
                config.rollback(release, version=1, wait="watcher", timeout=180)
                history = [(one["revision"], one["status"]) for one in config.history(release)]
                self.claim("helm rollback", (3, "deployed") in history, history)
                self.claim("the API runs the first image again", self._image_of(release) == {self.image})
                self.wait(
                    "the old pods' end",
                    lambda: len(self._of(release)) == len(self.pods(f"app.kubernetes.io/instance={release}")),
                    60,
                )
            self.judge(result, undisturbed=True)
            config.uninstall(release, wait="watcher", timeout=120)
        label = f"app.kubernetes.io/instance={release}"
        kinds = "deployment,service,job,configmap,secret,serviceaccount,networkpolicy"
        left = json.loads(self.kubectl("get", kinds, "-o", "json", "-l", label))["items"]
        self.claim("helm uninstall leaves nothing", left == [], [item["metadata"]["name"] for item in left])

    def queue_last(self) -> None:
        """NATS as the queue, and it comes last: everything waits for it; then events count once through it."""
        repository, tag = self.image.rsplit(":", 1)
        small = {"requests": {"cpu": "100m", "memory": "128Mi"}, "limits": {"cpu": "2", "memory": "1Gi"}}
        values = {
            "image": {"repository": repository, "tag": tag},
            "database": {"existingSecret": "statsdatabase"},
            "queue": {"url": "nats://nats:4222/events", "create": True},
            "migrations": {"mode": "init"},
            "podDisruptionBudgets": False,
            "api": {"autoscaling": {"enabled": False}, "replicas": 2, "resources": small},
            "worker": {"autoscaling": {"enabled": False}, "replicas": 2, "resources": small},
        }
        release = "outside"
        selector = f"app.kubernetes.io/instance={release}"
        with helm.Config(namespace=self.namespace, kubeconfig_path=os.environ["KUBECONFIG"]) as config:
            config.install(str(CHART), release, values, timeout=60)
            api = f"{selector},app.kubernetes.io/component=api"
            self.wait("the API runs", lambda: len(self.pods(api)) == 2, 30)
            time.sleep(10)
            self.claim("without the queue no API is ready", not self.is_ready(api, 2))
            self.apply(_broker(self.nats))
            seconds = self.wait("all ready", lambda: self.is_ready(selector, 5), 120)
            self.claim("all up within 30 s of the queue", seconds <= 30, f"{seconds:.1f} s")
            with self.load(f"http://{release}-modelmeter-api") as result:
                for name in ("worker", "api"):
                    pod = self.pods(f"{selector},app.kubernetes.io/component={name}")[0]["metadata"]["name"]
                    self.kubectl("delete", "pod", pod, "--wait=true")
                    self.wait("all ready", lambda: self.is_ready(selector, 5), 120)
            self.judge(result, undisturbed=True)
            config.uninstall(release, wait="watcher", timeout=120)
        self.kubectl("delete", "pod,service", "nats", "--wait=true")

    def _of(self, release: str) -> list[Manifest]:
        found: list[Manifest] = json.loads(
            self.kubectl("get", "pods", "-o", "json", "-l", f"app.kubernetes.io/instance={release}")
        )["items"]
        return found

    def _image_of(self, release: str) -> set[str]:
        pods = self.pods(f"app.kubernetes.io/instance={release},app.kubernetes.io/component=api")
        return {pod["spec"]["containers"][0]["image"] for pod in pods}


def _broker(image: str) -> list[Manifest]:
    """One nats-server with JetStream on the pod's own disk, and its Service."""
    labels = {"test": "nats"}
    return [
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "nats"},
            "spec": {"selector": labels, "ports": [{"port": 4222}]},
        },
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "nats", "labels": labels},
            "spec": {
                "automountServiceAccountToken": False,
                "enableServiceLinks": False,
                "securityContext": {
                    "runAsNonRoot": True,
                    "runAsUser": 10001,
                    "seccompProfile": {"type": "RuntimeDefault"},
                },
                "containers": [
                    {
                        "name": "nats",
                        "image": image,
                        "imagePullPolicy": "IfNotPresent",
                        "command": ["nats-server", "--jetstream", "--store_dir", "/data"],
                        "securityContext": {
                            "allowPrivilegeEscalation": False,
                            "readOnlyRootFilesystem": True,
                            "capabilities": {"drop": ["ALL"]},
                        },
                        "resources": {
                            "requests": {"cpu": "100m", "memory": "64Mi"},
                            "limits": {"cpu": "1", "memory": "512Mi"},
                        },
                        "readinessProbe": {"tcpSocket": {"port": 4222}, "periodSeconds": 1},
                        "volumeMounts": [{"name": "data", "mountPath": "/data"}],
                    }
                ],
                "volumes": [{"name": "data", "emptyDir": {"sizeLimit": "1Gi"}}],
            },
        },
    ]


def main() -> int:
    parser = argparse.ArgumentParser(prog="script/test-deploy", description=__doc__)
    parser.add_argument("--image", default="modelmeter:v1", help="an image that the cluster has or can pull")
    parser.add_argument("--second-image", default="modelmeter:v2", help="the same or another release under another tag")
    parser.add_argument("--postgres", default="postgres:17")
    parser.add_argument("--nats", default="nats:2", help="an image with nats-server; without it, --skip queue_last")
    parser.add_argument("--skip", nargs="+", metavar="STEP", default=[], help="not these steps")
    parser.add_argument("--only", nargs="+", metavar="STEP", help="after the start, only these steps")
    parser.add_argument("--keep", action="store_true", help="leave the namespace, to look at it")
    arguments = parser.parse_args()
    if "KUBECONFIG" not in os.environ:
        parser.error("set KUBECONFIG to the cluster that may be used")
    trial = Trial(arguments.image, arguments.second_image, arguments.postgres, arguments.nats)
    steps = [trial.run_etl, trial.delete_each_pod, trial.kill_hard, trial.roll, trial.chart, trial.queue_last]
    print(f"namespace {trial.namespace}", flush=True)
    try:
        trial.begin()
        for step in [trial.start_in_any_order, *steps]:
            if step != trial.start_in_any_order and (
                step.__name__ in arguments.skip or (arguments.only and step.__name__ not in arguments.only)
            ):
                continue
            began = time.monotonic()
            print(f"{step.__name__}: {(step.__doc__ or '').strip()}", flush=True)
            step()
            print(f"  {time.monotonic() - began:.0f} s", flush=True)
    except (RuntimeError, helm.HelmError, KeyboardInterrupt) as error:
        trial.claim("the trial came to its end", holds=False, detail=error)
        print(trial.kubectl("get", "pods", "-o", "wide", check=False))
        print(trial.kubectl("get", "events", "--sort-by=.lastTimestamp", check=False)[-3000:])
    finally:
        if not arguments.keep:
            trial.end()
    print("FAILED: " + "; ".join(trial.failed) if trial.failed else "all claims hold")
    return bool(trial.failed)


if __name__ == "__main__":
    sys.exit(main())
