"""Rules and alerts over HTTP, beside what Prometheus answers."""

import random
from collections.abc import Iterator
from typing import Any

import pytest

from modelmeter.config import Config
from modelmeter.evaluator import Evaluator
from modelmeter.recorder import Recorder
from modelmeter.rule_book import RuleBook
from modelmeter.store.queue import PostgresProducer
from modelmeter.web.alerts import exponent_form
from modelmeter.window import SECOND
from tests.history import NOON, event, labels_of, store
from tests.web.conftest import Served

GROUP = """
name: speed
interval: 15s
rules:
  - alert: Slow
    expr: last_over_time(inference_time[1m]) > 100
    for: 15s
    labels: {severity: page}
    annotations: {summary: "{{ $labels.name }}"}
  - record: model:inference_time:max
    expr: max by (name) (inference_time)
"""


@pytest.fixture
def evaluator(served: Served) -> Iterator[Evaluator]:
    config = Config(database_url=served.database_url)
    made = Evaluator(config, RuleBook(None), Recorder(PostgresProducer(served.database_url, connections=1)))
    yield made
    made.close()


def loaded(served: Served, evaluator: Evaluator, *, at: int = NOON) -> None:
    assert served.client.put("/rules/speed", content=GROUP, headers={"X-Updated-By": "Ada"}).status_code == 201
    store(
        served.database_url,
        event(NOON - SECOND, labels=labels_of("Mistral"), inference_time=200),
        event(NOON - SECOND, labels=labels_of("Llama"), inference_time=300),
    )
    evaluator.run_once(NOON)
    if at > NOON:
        evaluator.run_once(at)


def data(served: Served, path: str, **query: Any) -> Any:
    answer = served.client.get(path, params=query)
    assert answer.status_code == 200, answer.text
    found = answer.json()
    return found.get("data", found)


def test_rules_and_alerts_have_the_form_of_prometheus(served: Served, evaluator: Evaluator) -> None:
    loaded(served, evaluator)
    (group,) = data(served, "/api/v1/rules")["groups"]
    assert {key: group[key] for key in ("name", "file", "interval", "limit")} == {
        "name": "speed", "file": "", "interval": 15.0, "limit": 0,
    }  # fmt: skip
    assert group["lastEvaluation"] == "2026-03-01T12:00:00Z"
    slow, recording = group["rules"]
    assert {key: slow[key] for key in ("state", "name", "query", "duration", "health", "type", "labels")} == {
        "state": "pending", "name": "Slow", "query": "last_over_time(inference_time[1m]) > 100", "duration": 15.0,
        "health": "ok", "type": "alerting", "labels": {"severity": "page"},
    }  # fmt: skip
    assert (recording["type"], recording["name"]) == ("recording", "model:inference_time:max")
    alerts = sorted(data(served, "/api/v1/alerts")["alerts"], key=lambda one: str(one["labels"]["name"]))
    assert slow["alerts"] == data(served, "/api/v1/alerts")["alerts"]
    assert alerts[1] == {
        "labels": {"alertname": "Slow", "name": "Mistral", "version": "v1", "severity": "page"},
        "annotations": {"summary": "Mistral"},
        "state": "pending",
        "activeAt": "2026-03-01T12:00:00Z",
        "value": "2e+02",
    }


def test_rules_are_filtered_as_in_prometheus(served: Served, evaluator: Evaluator) -> None:
    loaded(served, evaluator)

    def names(**query: str) -> list[str]:
        answer = served.client.get(
            "/api/v1/rules", params={key.replace("__", "[]"): value for key, value in query.items()}
        )
        return [rule["name"] for group in answer.json()["data"]["groups"] for rule in group["rules"]]

    assert names(type="record") == ["model:inference_time:max"]
    assert names(type="alert") == ["Slow"]
    assert names(rule_name__="Slow") == ["Slow"]
    assert names(rule_group__="other") == []
    assert names(match__='{severity="page"}') == ["Slow"]
    assert served.client.get("/api/v1/rules?type=event").json()["errorType"] == "bad_data"
    assert "alerts" not in served.client.get("/api/v1/rules?exclude_alerts=1").json()["data"]["groups"][0]["rules"][0]


def test_alerts_now_and_their_history_are_filtered_by_labels(served: Served, evaluator: Evaluator) -> None:
    loaded(served, evaluator, at=NOON + 15 * SECOND)
    found = data(served, "/alerts", match='{name="Llama"}')["alerts"]
    assert [(one["rule"], one["state"], one["value"], one["reason"]) for one in found] == [
        ("Slow", "firing", 300.0, "held")
    ]
    span = {"start": str(NOON // SECOND - 60), "end": str(NOON // SECOND + 60)}
    everything = data(served, "/alerts/history", **span)["transitions"]
    assert [(one["from"], one["to"]) for one in everything] == [("pending", "firing")] * 2 + [
        ("inactive", "pending")
    ] * 2
    llama = data(served, "/alerts/history", match='{name="Llama"}', state="firing", **span)
    assert [one["labels"]["name"] for one in llama["transitions"]] == ["Llama"]
    first = data(served, "/alerts/history", limit=3, **span)
    rest = data(served, "/alerts/history", cursor=first["next"], **span)
    assert first["transitions"] + rest["transitions"] == everything
    assert rest["next"] is None


def test_an_alert_can_be_dismissed(served: Served, evaluator: Evaluator) -> None:
    loaded(served, evaluator, at=NOON + 15 * SECOND)
    fingerprint = data(served, "/alerts", match='{name="Llama"}')["alerts"][0]["fingerprint"]
    assert served.client.delete(f"/alerts/{fingerprint}").json() == {"dismissed": 1}
    assert [one["labels"]["name"] for one in data(served, "/alerts")["alerts"]] == ["Mistral"]
    assert served.client.delete(f"/alerts/{fingerprint}").status_code == 404


def test_groups_come_and_go_over_http(served: Served, evaluator: Evaluator) -> None:
    loaded(served, evaluator)
    shown = data(served, "/rules/speed")
    assert (shown["in_use"], shown["content"], shown["updated_by"]) == (True, GROUP, "Ada")
    assert [rule["type"] for rule in shown["rules"]] == ["alerting", "recording"]
    assert served.client.put("/rules/speed", content=GROUP.replace("15s", "30s")).status_code == 200
    assert served.client.delete("/rules/speed").status_code == 200
    evaluator.forget()
    evaluator._looked_at = -10
    evaluator.run_once(NOON + 60 * SECOND)
    assert data(served, "/rules") == {"groups": []}
    assert served.client.delete("/rules/speed").status_code == 404
    assert data(served, "/alerts") == {"alerts": []}


@pytest.mark.parametrize(
    ("content", "line", "reason"),
    [
        ("name: speed\nrules:\n  - alert: A\n    expr: rate(x)", 4, "expected"),
        ("name: other\nrules: []", None, "the path says"),
        ("name: speed\nrules: [{alert: A, event: x > 1}]", None, "read from files by the workers"),
        ("name: [", 1, "not YAML"),
        (
            "name: speed\nrules:\n  - alert: A\n    expr: x > 1\n    annotations: {a: '{{ $lables.x }}'}",
            5,
            "undefined variable",
        ),
        ("name: speed\nrules:\n  - alert: A\n    expr: x > 1\n    fro: 5m", 5, "did you mean for"),
    ],
)
def test_a_wrong_group_is_refused_with_its_line(served: Served, content: str, line: int | None, reason: str) -> None:
    answer = served.client.put("/rules/speed", content=content)
    assert answer.status_code == 400
    assert answer.json().get("line") == line
    assert reason in answer.json()["detail"]


def test_a_rule_is_tried_without_keeping_it(served: Served) -> None:
    served.post('{"name": "Mistral", "version": "v1", "inference_time": 7}')
    served.store()
    rule = '{"alert": "Slow", "expr": "inference_time > 5", "annotations": {"summary": "{{ $value }} ms"}}'
    (found,) = data_of(served.client.post("/rules/test", content=rule))["rules"]
    assert found["error"] is None
    assert [(one["state"], one["value"], one["annotations"]) for one in found["alerts"]] == [
        ("firing", 7.0, {"summary": "7 ms"})
    ]
    assert data(served, "/rules") == {"groups": []}
    failing = '{"alert": "Slow", "expr": "inference_time > on() group_left() inference_time"}'
    assert data_of(served.client.post("/rules/test", content=failing))["rules"][0]["error"] is None
    assert served.client.post("/rules/test", content="{}").status_code == 400


def data_of(answer: Any) -> Any:
    assert answer.status_code == 200, answer.text
    return answer.json()


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1.0, "1e+00"),
        (0.0, "0e+00"),
        (123.456, "1.23456e+02"),
        (1e-7, "1e-07"),
        (-2e100, "-2e+100"),
        (None, "NaN"),
        (float("inf"), "+Inf"),
    ],
)
def test_values_of_alerts_are_written_as_prometheus_does(value: float | None, text: str) -> None:
    assert exponent_form(value) == text


BACKTEST = """
name: speed
interval: 15s
rules:
  - alert: Held
    expr: last_over_time(inference_time[1m]) > 100
    for: 30s
  - alert: Kept
    expr: last_over_time(inference_time[1m]) > 100
    keep_firing_for: 45s
  - alert: Recovering
    expr: last_over_time(inference_time[1m]) > 100
    recover: last_over_time(inference_time[1m]) < 40
  - alert: Sure
    expr: avg_over_time(inference_time[1m]) > 100
    min_samples: 3
  - alert: Loose
    expr: last_over_time(inference_time[1m]) > 100
    no_data: ok
    labels: {level: "{{ if gt $value 150.0 }}high{{ else }}low{{ end }}"}
"""


def test_a_backtest_finds_what_the_evaluator_would_have_done(served: Served, evaluator: Evaluator) -> None:
    dice = random.Random(20260301)
    events = [
        event(
            NOON + dice.randrange(0, 20 * 60) * SECOND,
            labels=labels_of(name),
            inference_time=dice.choice([20, 60, 120, 200]),
        )
        for name in ("Mistral", "Llama")
        for _ in range(50)
    ]
    store(served.database_url, *events)
    end = NOON + 25 * 60 * SECOND
    span = {"start": str(NOON // SECOND), "end": str(end // SECOND), "step": "15s"}
    answer = served.client.post("/rules/backtest", params=span, content=BACKTEST)
    found = data_of(answer)["rules"]
    assert [rule["error"] for rule in found] == [None] * 5
    assert all(rule["firings"] for rule in found), "the test has no teeth"
    assert served.client.put("/rules/speed", content=BACKTEST).status_code == 201
    evaluator.run_once(NOON)
    while evaluator.run_once(end):
        pass
    query = {"start": str(NOON // SECOND), "end": str(end // SECOND + 1), "limit": 10_000}
    changes = data(served, "/alerts/history", **query)["transitions"]
    happened = sorted(
        (sorted(one["labels"].items()), one["at"], one["to"]) for one in changes if one["to"] != "inactive"
    )
    would_have = sorted(
        (sorted(alert["labels"].items()), one["start"], one["state"])
        for rule in found
        for alert in rule["alerts"]
        for one in alert["intervals"]
    )
    assert would_have == happened
    resolved = sorted((sorted(one["labels"].items()), one["at"]) for one in changes if one["from"] == "firing")
    would_end = sorted(
        (sorted(alert["labels"].items()), one["end"])
        for rule in found
        for alert in rule["alerts"]
        for one in alert["intervals"]
        if one["state"] == "firing" and one["end"]
    )
    assert would_end == resolved
