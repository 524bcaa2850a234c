"""GET /stats and /events over HTTP: shapes to the letter, every parameter, every kind of name."""

import json
import time
from urllib.parse import quote

import pytest
from psycopg.conninfo import conninfo_to_dict

from tests.web.conftest import Served
from tests.web.test_ingest import check_problem

NAMES = ["Mistral", "a/b", "a//b/", "/", "%2F", "50%", "a b+c", "ü😀", "?x=1#y", "..", "con\tcat", 'q"uote\\']
DAY = "2026-01-31T"


@pytest.fixture(scope="module")
def stocked(shared: Served) -> Served:
    """A server with three events of Mistral v1 on one day, one of v2, and one of each odd name."""
    events = [
        {"name": "Mistral", "version": "v1", "env": "prod", "drift": 1, "timestamp": f"{DAY}12:00:00Z"},
        {"name": "Mistral", "version": "v1", "env": "prod", "drift": 3, "latency": 8, "timestamp": f"{DAY}12:00:30.5Z"},
        {"name": "Mistral", "version": "v1", "drift": 5, "timestamp": f"{DAY}13:00:00Z"},
        {"name": "Mistral", "version": "v2", "drift": 2, "timestamp": f"{DAY}12:00:00Z"},
    ]
    events += [{"name": name, "version": name, "x": 1, "timestamp": f"{DAY}00:00:00Z"} for name in NAMES[1:]]
    assert shared.post(json.dumps(events)).json()["rejected"] == 0
    assert shared.store() == len(events)
    return shared


def test_the_stats_of_a_version_have_this_shape(stocked: Served) -> None:
    answer = stocked.client.get(f"/stats/Mistral/v1?start={DAY}12:00:00Z&end={DAY}13:00:00.000001Z&quantiles=0,0.5,1")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    assert float(answer.headers["server-timing"].removeprefix("total;dur=")) > 0
    found = answer.json()
    drift = found["metrics"].pop("drift")
    assert drift.pop("stddev") == pytest.approx((8 / 3) ** 0.5)
    assert drift.pop("quantiles") == {"0": 1.0, "0.5": pytest.approx(3, rel=0.011), "1": 5.0}
    assert drift == {"count": 3, "mean": 3.0, "min": 1.0, "max": 5.0, "last": 5.0}
    latency = found["metrics"].pop("latency")
    assert [*latency] == ["count", "mean", "stddev", "min", "max", "last", "quantiles"]
    assert latency["quantiles"] == {"0": 8.0, "0.5": 8.0, "1": 8.0}
    assert found == {
        "name": "Mistral",
        "version": "v1",
        "start": f"{DAY}12:00:00Z",
        "end": f"{DAY}13:00:00.000001Z",
        "events": 3,
        "metrics": {},
    }


def test_models_and_versions_have_this_shape(stocked: Served) -> None:
    first = {
        "name": "Mistral",
        "version": "v1",
        "events": 3,
        "first_seen": f"{DAY}12:00:00Z",
        "last_seen": f"{DAY}13:00:00Z",
    }
    found = stocked.client.get("/stats").json()
    assert [*found] == ["models"]
    assert first in found["models"]
    assert {model["name"] for model in found["models"]} == {*NAMES}
    found = stocked.client.get("/stats/Mistral").json()
    assert [*found] == ["name", "versions"]
    assert found["versions"][0] == first
    assert [version["version"] for version in found["versions"]] == ["v1", "v2"]


def test_events_have_this_shape_and_come_newest_first(stocked: Served) -> None:
    found = stocked.client.get("/events/Mistral/v1?start=0").json()
    assert found == {
        "events": [
            {"name": "Mistral", "version": "v1", "timestamp": f"{DAY}13:00:00Z", "drift": 5.0},
            {
                "name": "Mistral",
                "version": "v1",
                "timestamp": f"{DAY}12:00:30.500000Z",
                "env": "prod",
                "drift": 3.0,
                "latency": 8.0,
            },
            {"name": "Mistral", "version": "v1", "timestamp": f"{DAY}12:00:00Z", "env": "prod", "drift": 1.0},
        ]
    }


@pytest.mark.parametrize("name", NAMES)
def test_any_name_can_be_asked_for(stocked: Served, name: str) -> None:
    version = "v1" if name == "Mistral" else name
    path = f"{quote(name, safe='')}/{quote(version, safe='')}".replace("..", "%2E%2E")
    for address in (f"/stats/{path}?start=0", f"/events/{path}?start=0", f"/stats/{path.partition('/')[0]}"):
        answer = stocked.client.get(address)
        assert answer.status_code == 200, answer.text
        assert json.dumps(name) in json.dumps(answer.json())


@pytest.mark.parametrize(
    ("query", "events"),
    [
        (f"start={DAY}12:00:00Z&end={DAY}12:00:30.5Z", 1),
        (f"start={DAY}12:00:00.000001Z&end={DAY}12:00:30.500001Z", 1),
        (f"start={DAY}13:00:00%2B01:00&end={DAY}14:00:00%2B01:00", 2),
        (f"start={DAY}13:00:00+01:00&end={DAY}14:00:00+01:00", 2),
        ("start=1769860800&end=1769864400", 2),
        ("start=1769860800.5&end=1769864400.5", 2),
        ("start=1769860800000&end=1769864400000", 2),
        ("start=0&label.env=prod", 2),
        ("start=0&label.env=prod&label.name=Mistral", 2),
        ("start=0&label.env=test", 0),
        ("start=0&end=now", 3),
        ("start=-40000d&end=%2B1h", 3),
        ("end=1769864401", 3),
        ("start=1970-01-01T00:00:00Z&end=9999-12-30T23:59:59Z", 3),
        ("", 0),
    ],
)
def test_a_span_can_be_written_in_every_way(stocked: Served, query: str, events: int) -> None:
    answer = stocked.client.get(f"/stats/Mistral/v1?{query}")
    assert answer.status_code == 200, answer.text
    assert answer.json()["events"] == events
    raw = stocked.client.get(f"/events/Mistral/v1?{query}")
    assert raw.status_code == 200, raw.text
    assert len(raw.json()["events"]) == events


def test_one_metric_and_its_quantiles_can_be_asked_for(stocked: Served) -> None:
    found = stocked.client.get("/stats/Mistral/v1?start=0&metric=drift&quantiles=0.25,0.9999999,").json()
    assert [*found["metrics"]] == ["drift"]
    assert [*found["metrics"]["drift"]["quantiles"]] == ["0.25", "0.9999999"]
    found = stocked.client.get("/stats/Mistral/v1?start=0").json()
    assert [*found["metrics"]["drift"]["quantiles"]] == ["0.5", "0.95", "0.99"]


def test_a_limit_bounds_the_events(stocked: Served) -> None:
    assert len(stocked.client.get("/events/Mistral/v1?start=0&limit=2").json()["events"]) == 2


BAD = {
    "/stats/Mistral/v1?start=yesterday": "start",
    "/stats/Mistral/v1?start=": "start",
    "/stats/Mistral/v1?start=2026-01-31": "start",
    "/stats/Mistral/v1?end=1e400": "end",
    "/stats/Mistral/v1?end=-5x": "end",
    "/stats/Mistral/v1?start=1969-12-31T23:59:59Z": "start",
    "/stats/Mistral/v1?start=0001-01-01T00:00:00%2B14:00": "start",
    "/stats/Mistral/v1?end=9999-12-31T23:59:59-14:00": "end",
    f"/stats/Mistral/v1?end={'9' * 5000}": "end",
    "/stats/Mistral/v1?start=5&end=5": "start",
    "/stats/Mistral/v1?start=6&end=5": "start",
    "/stats/Mistral/v1?quantiles=2": "quantiles",
    "/stats/Mistral/v1?quantiles=nan": "quantiles",
    "/stats/Mistral/v1?quantiles=0.5;0.9": "quantiles",
    "/stats/Mistral/v1?metrics=drift": "metrics",
    "/stats/Mistral/v1?env=prod": "env",
    "/stats/Mistral/v1?start=0&start=1": "start",
    "/stats/Mistral/v1?label.env=a&label.env=b": "label.env",
    "/stats?name=Mistral": "name",
    "/stats/Mistral?start=0": "start",
    "/events/Mistral/v1?limit=0": "limit",
    "/events/Mistral/v1?limit=10001": "limit",
    "/events/Mistral/v1?limit=many": "limit",
    "/events/Mistral/v1?limit=%C2%B2": "limit",
    f"/events/Mistral/v1?limit={'9' * 5000}": "limit",
    "/events/Mistral/v1?quantiles=0.5": "quantiles",
}


@pytest.mark.parametrize("address", [*BAD], ids=lambda address: address[:60])
def test_a_parameter_that_cannot_be_read_is_a_400_that_names_it(stocked: Served, address: str) -> None:
    found = check_problem(stocked.client.get(address), 400)
    assert found["field"] == BAD[address]
    assert found["detail"].startswith(BAD[address])


@pytest.mark.parametrize(
    ("address", "what", "nearest"),
    [
        ("/stats/Mistrl/v1", "model", "Mistral"),
        ("/stats/mistral", "model", "Mistral"),
        ("/events/Mistrl/v1", "model", "Mistral"),
        ("/stats/Mistral/v3", "version", "v1"),
        ("/events/Mistral/1", "version", "v1"),
        ("/stats/Mistral/v1?metric=drifd", "metric", "drift"),
        ("/stats/Mistral/v1?metric=%00", "metric", None),
        ("/stats/a%00b/v1", "model", None),
        ("/stats/%ED%A0%80/v1", "model", None),
        ("/stats/%FF", "model", None),
        ("/events/Mistral/%00", "version", "v1"),
    ],
)
def test_what_is_unknown_is_a_404_with_the_nearest_names(
    stocked: Served, address: str, what: str, nearest: str | None
) -> None:
    found = check_problem(stocked.client.get(address), 404)
    assert found["what"] == what
    assert nearest is None or nearest in found["nearest"]


def test_a_label_that_no_database_can_hold_matches_nothing(stocked: Served) -> None:
    for query in ("label.env=%00", "label.%00=x", "label.=x", "label.env=%ED%A0%80", "label.env="):
        answer = stocked.client.get(f"/stats/Mistral/v1?start=0&{query}")
        assert (answer.status_code, answer.json()["events"]) == (200, 0)


def test_other_paths_and_methods_are_problems_too(stocked: Served) -> None:
    for path in ("/nowhere", "/stats/a/b/c", "/events/a/b/c", "/events/a", "/stats/"):
        check_problem(stocked.client.get(path), 404)
    for path in ("/stats/Mistral", "/healthz", "/metrics"):
        answer = stocked.client.delete(path)
        check_problem(answer, 405)
        assert "GET" in answer.headers["allow"]
    check_problem(stocked.client.get("/events"), 405)


def test_the_documentation_tells_all_routes(stocked: Served) -> None:
    document = stocked.client.get("/openapi.json").json()
    routes = {(path, method) for path, methods in document["paths"].items() for method in methods}
    assert routes >= {
        ("/events", "post"),
        ("/stats", "post"),
        ("/stats", "get"),
        ("/stats/{name}", "get"),
        ("/stats/{name}/{version}", "get"),
        ("/events/{name}/{version}", "get"),
        ("/healthz", "get"),
        ("/readyz", "get"),
        ("/metrics", "get"),
    }
    parameters = document["paths"]["/stats/{name}/{version}"]["get"]["parameters"]
    assert {parameter["name"] for parameter in parameters} >= {"name", "version", "start", "end", "metric", "quantiles"}
    listed = document["paths"]["/events/{name}/{version}"]["get"]["parameters"]
    assert {parameter["name"] for parameter in listed} >= {"name", "version", "start", "end", "limit"}
    page = stocked.client.get("/docs")
    assert page.status_code == 200
    assert "/openapi.json" in page.text


def test_health_readiness_and_counts_are_told(stocked: Served) -> None:
    assert stocked.client.get("/healthz").json() == {"status": "ok"}
    assert stocked.client.get("/readyz").json() == {"status": "ready"}
    counts = stocked.client.get("/metrics")
    assert counts.headers["content-type"].startswith("text/plain")
    for name in (
        "events_accepted_total",
        "events_refused_total",
        "requests_refused_total",
        "queue_messages",
        "queue_bytes",
        "queue_age_seconds",
        "batch_events_bucket",
        "store_seconds_bucket",
        "lag_seconds_bucket",
    ):
        assert f"modelmeter_{name}" in counts.text


def test_counts_follow_what_happens(served: Served) -> None:
    def count(line: str) -> float:
        found = [row for row in served.client.get("/metrics").text.splitlines() if row.startswith(line + " ")]
        return float(found[0].split()[-1]) if found else 0

    accepted, refused = "modelmeter_events_accepted_total", 'modelmeter_events_refused_total{code="no_metric"}'
    before = count(accepted), count(refused)
    served.post(json.dumps([{"name": "a", "version": "b", "x": 1}] * 3 + [{"name": "a", "version": "b"}] * 2))
    assert (count(accepted), count(refused)) == (before[0] + 3, before[1] + 2)
    served.wait_until(lambda: count("modelmeter_queue_events") == 3)


def test_freshness_is_one_step_of_the_worker(served: Served) -> None:
    began = time.time()
    served.post(json.dumps({"name": "a", "version": "b", "x": 1}))
    assert served.client.get("/stats").json() == {"models": []}
    served.store()
    found = served.client.get("/stats/a/b").json()
    assert (found["events"], found["metrics"]["x"]["last"]) == (1, 1.0)
    assert time.time() - began < 20
    assert conninfo_to_dict(served.database_url)["dbname"]
