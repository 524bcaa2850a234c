"""`compare:` of a rule on stored events: by trying it over HTTP, and by the evaluator."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import psycopg
import pytest

from modelmeter.config import Config
from modelmeter.evaluator import Evaluator
from modelmeter.recorder import Recorder
from modelmeter.rule_book import RuleBook
from modelmeter.store.queue import PostgresProducer
from modelmeter.window import HOUR, MINUTE, SECOND
from tests.history import event, labels_of, store
from tests.web.serving import serving

NOW = time.time_ns() // 1000 // (15 * SECOND) * 15 * SECOND
"""Rules are tried at the present time."""


def rule(compare: str, expression: str = "avg_over_time(latency[1h]) > 1.2") -> dict[str, object]:
    return {"alert": "Slower", "expr": expression, "compare": compare}


def latency(url: str, ago: int, *values: float, name: str = "Mistral", version: str = "v1") -> None:
    labels = labels_of(name, version)
    store(url, *(event(NOW - ago + at, labels=labels, latency=value) for at, value in enumerate(values)))


def tried(url: str, *rules: dict[str, object]) -> list[tuple[Any, ...]]:
    """Of each rule tried over HTTP: its query, its error, and the value of each alert by model and version."""
    with serving(url) as client:
        found = []
        for one in rules:
            answer = client.post("/rules/test", json=one)
            assert answer.status_code == 200, answer.text
            (result,) = answer.json()["rules"]
            alerts = {
                (alert["labels"]["name"], alert["labels"].get("version")): alert["value"]
                for alert in result.get("alerts", [])
            }
            found.append((result["query"], result["error"], alerts))
        return found


class Evaluated:
    """An evaluator of one rule."""

    def __init__(self, url: str, folder: Path) -> None:
        self.url, self.path = url, folder / "rules.yml"

    def run(self, rule: dict[str, object]) -> Sequence[tuple[Any, ...]]:
        """The alerts: model, version, state and value; then the errors of the group's rules."""
        self.path.write_bytes(msgspec.json.encode({"groups": [{"name": "g", "interval": "15s", "rules": [rule]}]}))
        book = RuleBook(self.path)
        book.read()
        recorder = Recorder(PostgresProducer(self.url, connections=1))
        evaluator = Evaluator(Config(database_url=self.url), book, recorder)
        try:
            evaluator.run_once(NOW)
        finally:
            evaluator.close()
        with psycopg.connect(self.url) as connection:
            alerts = connection.execute(
                "SELECT labels->>'name', labels->>'version', state, value FROM modelmeter.alert ORDER BY 1, 2"
            ).fetchall()
            errors = connection.execute("SELECT unnest(rule_errors) FROM modelmeter.loaded_group").fetchall()
        return [*alerts, *(error for error in errors if error != ("",))]


@pytest.fixture
def evaluated(database_url: str, tmp_path: Path) -> Evaluated:
    return Evaluated(database_url, tmp_path)


def test_previous_window_is_the_ratio_to_as_much_earlier(database_url: str, evaluated: Evaluated) -> None:
    latency(database_url, 90 * MINUTE, 10, 20)
    latency(database_url, 30 * MINUTE, 25, 35)
    latency(database_url, 90 * MINUTE, 10, name="Llama")
    latency(database_url, 30 * MINUTE, 11, name="Llama")
    latency(database_url, 30 * MINUTE, 99, name="New")  # nothing to compare it with
    ((query, error, alerts),) = tried(database_url, rule("previous_window"))
    assert error is None
    assert query == "(avg_over_time(latency[1h]) / avg_over_time(latency[1h] offset 1h)) > 1.2"
    assert alerts == {("Mistral", "v1"): 2.0}
    assert evaluated.run(rule("previous_window")) == [("Mistral", "v1", "firing", 2.0)]


def test_previous_version_is_the_one_that_came_before(database_url: str, evaluated: Evaluated) -> None:
    latency(database_url, 50 * MINUTE, 100, version="v9")  # the order is that of first events, not of names
    latency(database_url, 40 * MINUTE, 10, version="v10")
    latency(database_url, 20 * MINUTE, 30, version="v2")
    latency(database_url, 20 * MINUTE, 30, name="Llama", version="v1")  # there is no version before it
    ((query, error, alerts),) = tried(database_url, rule("previous_version"))
    assert error is None
    assert 'name="Mistral"' in query
    assert 'version="v2"' in query
    assert 'version="v10"' in query
    assert "Llama" not in query
    assert alerts == {("Mistral", "v2"): 3.0}
    assert evaluated.run(rule("previous_version")) == [("Mistral", "v2", "firing", 3.0)]


def test_without_a_previous_version_there_is_no_alert_and_no_error(database_url: str, evaluated: Evaluated) -> None:
    latency(database_url, 20 * MINUTE, 30)
    ((_, error, alerts),) = tried(database_url, rule("previous_version"))
    assert (error, alerts) == (None, {})
    assert evaluated.run(rule("previous_version")) == []


def test_a_baseline_is_the_reference_of_all(database_url: str, evaluated: Evaluated) -> None:
    latency(database_url, 3 * HOUR, 10, 30)
    latency(database_url, 20 * MINUTE, 50)
    latency(database_url, 20 * MINUTE, 60, version="v2")
    latency(database_url, 20 * MINUTE, 21, version="v3")
    start, end = (NOW - 4 * HOUR) // HOUR * HOUR, (NOW - HOUR) // HOUR * HOUR
    with serving(database_url) as client:
        body = {"match": '{name="Mistral",version="v1"}', "start": start // SECOND, "end": end // SECOND}
        answer = client.put("/baselines/golden", json=body)
        assert answer.status_code == 201, answer.text
    ((_, error, alerts),) = tried(database_url, rule("baseline:golden"))
    assert error is None
    assert alerts == {("Mistral", "v1"): 2.5, ("Mistral", "v2"): 3.0}
    assert evaluated.run(rule("baseline:golden")) == [
        ("Mistral", "v1", "firing", 2.5),
        ("Mistral", "v2", "firing", 3.0),
    ]


def test_a_baseline_that_is_not_there_is_a_clear_error(database_url: str, evaluated: Evaluated) -> None:
    latency(database_url, 20 * MINUTE, 30)
    problem = "there is no baseline 'golden'; make it first, or correct the rule's compare"
    ((_, error, alerts),) = tried(database_url, rule("baseline:golden"))
    assert (error, alerts) == (problem, {})
    assert evaluated.run(rule("baseline:golden")) == [(problem,)]


@pytest.mark.parametrize(
    ("compare", "expression", "problem"),
    [
        ("last_week", "avg_over_time(latency[1h]) > 1.2", "none of previous_window, previous_version and baseline"),
        ("previous_window", "latency > 1.2", "previous_window needs a range"),
        ("previous_window", "avg_over_time(latency[1h])", "must be a comparison with a number"),
    ],
)
def test_a_comparison_that_cannot_be_is_refused(database_url: str, compare: str, expression: str, problem: str) -> None:
    with serving(database_url) as client:
        answer = client.post("/rules/test", json=rule(compare, expression))
    assert answer.status_code == 400
    assert problem in answer.json()["detail"]


def test_reference_stands_in_for_the_other_side(database_url: str) -> None:
    latency(database_url, 90 * MINUTE, *range(100))
    latency(database_url, 30 * MINUTE, *range(100, 200))
    shifted = rule("previous_window", "ks(latency[1h], reference[1h]) > 0.5")
    ((query, error, alerts),) = tried(database_url, shifted)
    assert error is None
    assert query == "ks(latency[1h], latency[1h] offset 1h) > 0.5"
    assert alerts == {("Mistral", "v1"): pytest.approx(1.0, abs=0.02)}
