"""The requests that Grafana's Prometheus data source makes for the dashboard in deploy/grafana, replayed."""

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psycopg
import pytest
import yaml
from psycopg.conninfo import make_conninfo

from modelmeter.compactor import Compactor
from modelmeter.config import Config
from modelmeter.window import DAY, HOUR, SECOND
from tests.history import NOON, event, labels_of, store
from tests.web.serving import serving

GRAFANA = Path(__file__).parent.parent.parent / "deploy" / "grafana"
DASHBOARD = json.loads((GRAFANA / "dashboards" / "models.json").read_text("utf-8"))
UNIX = NOON // SECOND
SPAN = {"start": UNIX - 6 * 3600, "end": UNIX}
VARIABLES = {"__interval": "1m", "__range": "6h"}
TARGETS = [
    pytest.param(target, id=f"{panel['title']} {target['refId']}")
    for panel in DASHBOARD["panels"]
    for target in panel["targets"]
]


@pytest.fixture(scope="module")
def client(postgres: str, template_database: str) -> Iterator[httpx.Client]:
    name = f"modelmeter_test_grafana_{os.getpid()}"
    with psycopg.connect(postgres, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} TEMPLATE {template_database} STRATEGY wal_log".encode())
    url = make_conninfo(postgres, dbname=name)
    rng = np.random.default_rng(3)
    store(
        url,
        *(
            event(
                NOON - 32 * HOUR + number * 60 * SECOND + 7,
                labels=labels_of(model, version, env="prod"),
                prediction_accuracy=float(rng.beta(8, 2 if version == "v1" else 5)),
                drift=float(rng.gamma(2, 0.2)),
                inference_time=float(rng.lognormal(2, 0.6)),
            )
            for number in range(32 * 60)
            for model, version in (("Mistral", "v1"), ("Mistral", "v2"), ("Llama 3.1", "v1"))
        ),
    )
    compactor = Compactor(Config(database_url=url))
    while compactor.run_once(NOON + DAY):
        pass
    compactor.close()
    with serving(url) as client:
        yield client
    with psycopg.connect(postgres, autocommit=True) as connection:
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())


def substituted(text: str, **variables: str) -> str:
    for variable in DASHBOARD["templating"]["list"]:
        variables.setdefault(variable["name"], variable.get("allValue") or variable["current"]["value"])
    found = re.sub(r"\$\{?(\w+)\}?", lambda match: {**VARIABLES, **variables}[match[1]], text)
    assert "$" not in found
    return found


def data_of(answer: httpx.Response) -> Any:
    assert answer.status_code == 200, answer.text
    body = answer.json()
    assert body["status"] == "success"
    return body["data"]


def test_the_data_source_is_a_prometheus_that_the_panels_name() -> None:
    (source,) = yaml.safe_load((GRAFANA / "provisioning" / "datasources" / "modelmeter.yml").read_text())["datasources"]
    assert (source["type"], source["jsonData"]["httpMethod"]) == ("prometheus", "POST")
    for one in (*DASHBOARD["panels"], *(panel["targets"][0] for panel in DASHBOARD["panels"])):
        assert one["datasource"] == {"type": "prometheus", "uid": source["uid"]}


def test_the_data_source_is_healthy(client: httpx.Client) -> None:
    """«Save & test» asks 1 + 1; the version decides which features Grafana uses."""
    assert data_of(client.post("/api/v1/query", data={"query": "1+1", "time": str(UNIX)}))["result"][1] == "2"
    assert re.fullmatch(r"3\.\d+\.\d+", data_of(client.get("/api/v1/status/buildinfo"))["version"])


def test_the_query_editor_finds_metrics_and_labels(client: httpx.Client) -> None:
    metrics = data_of(client.get("/api/v1/label/__name__/values", params=SPAN))
    assert metrics == ["drift", "inference_time", "prediction_accuracy"]
    form = {**{name: str(value) for name, value in SPAN.items()}, "match[]": "drift"}
    assert data_of(client.post("/api/v1/labels", data=form)) == ["__name__", "env", "name", "version"]
    assert set(data_of(client.get("/api/v1/metadata"))) <= set(metrics)


def test_the_variables_are_the_models_and_their_versions(client: httpx.Client) -> None:
    wanted = {"model": ["Llama 3.1", "Mistral"], "version": ["v1"]}
    for variable in DASHBOARD["templating"]["list"]:
        if variable["type"] != "query":
            continue
        # Grafana escapes what the user chose for a regex.
        text = substituted(variable["query"]["query"], model="Llama 3\\\\.1")
        parts = re.fullmatch(r"label_values\((?:(.*), )?(\w+)\)", text)
        assert parts
        params = {**SPAN, **({"match[]": parts[1]} if parts[1] else {})}
        found = data_of(client.get(f"/api/v1/label/{parts[2]}/values", params=params))
        assert found == wanted[variable["name"]]
        if parts[1]:  # older ones ask for the series
            series = data_of(client.get("/api/v1/series", params=params))
            assert sorted({one[parts[2]] for one in series}) == found


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("chosen", [{}, {"model": "(Mistral|Llama 3\\\\.1)", "version": "v2"}], ids=["all", "some"])
def test_every_panel_has_data(client: httpx.Client, target: dict[str, Any], chosen: dict[str, str]) -> None:
    query = substituted(target["expr"], **chosen)
    if target.get("instant"):
        form = {"query": query, "time": str(UNIX)}
        rows = data_of(client.post("/api/v1/query", data=form))["result"]
        assert all(row["metric"]["alert"] for row in rows)
    else:
        form = {"query": query, "start": str(SPAN["start"]), "end": str(SPAN["end"]), "step": "60"}
        rows = data_of(client.post("/api/v1/query_range", data=form))["result"]
        assert all(len(row["values"]) > 300 for row in rows)
    versions = {(row["metric"]["name"], row["metric"]["version"]) for row in rows}
    if target.get("instant"):
        assert ("Mistral", "v2") in versions
    else:
        every = {("Mistral", "v1"), ("Mistral", "v2"), ("Llama 3.1", "v1")}
        assert versions == ({("Mistral", "v2")} if chosen else every)
