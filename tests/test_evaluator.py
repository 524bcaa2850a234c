"""The evaluator on a real Postgres: each window once, each transition with its history and its notification."""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from modelmeter.alert import Reason
from modelmeter.config import Config
from modelmeter.evaluator import Evaluator
from modelmeter.recorder import Recorder
from modelmeter.rule_book import RuleBook
from modelmeter.store.queue import PostgresProducer
from modelmeter.window import MINUTE, SECOND, to_micros
from tests.history import NOON, Storing, event, labels_of, store

STEP = 15 * SECOND

Made = Callable[..., Evaluator]


@pytest.fixture
def make(database_url: str, tmp_path: Path) -> Iterator[Made]:
    """Makes evaluators of the rules in a file; the second time, of the same file."""
    made: list[Evaluator] = []

    def one(rules: str | None = None, **settings: Any) -> Evaluator:
        path = tmp_path / "rules.yml"
        if rules is not None:
            path.write_text(rules)
        book = RuleBook(path if path.exists() else None)
        book.read()
        config = Config(database_url=database_url, **settings)
        made.append(Evaluator(config, book, Recorder(PostgresProducer(database_url, connections=1))))
        return made[-1]

    yield one
    for evaluator in made:
        evaluator.close()


def rows(url: str, query: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(url) as connection:
        return connection.execute(query.encode()).fetchall()


def history(url: str) -> list[tuple[str, str, str]]:
    return rows(url, "SELECT from_state, to_state, reason FROM modelmeter.alert_history ORDER BY transition_id")


def notifications(url: str) -> list[tuple[str, int]]:
    found = rows(url, "SELECT status, at FROM modelmeter.notification ORDER BY transition_id")
    return [(status, to_micros(at)) for status, at in found]


def latency(url: str, at: int, value: float, name: str = "Mistral") -> None:
    store(url, event(at, labels=labels_of(name), inference_time=value))


SLOW = """
groups:
  - name: speed
    interval: 15s
    rules:
      - alert: Slow
        expr: avg_over_time(inference_time[1m]) > 100
        for: {hold}
        labels: {{severity: page}}
        annotations: {{summary: "{{{{ $labels.name }}}} takes {{{{ $value }}}} ms"}}
"""


def test_an_alert_goes_from_pending_to_firing_to_resolved_each_with_its_row(database_url: str, make: Made) -> None:
    evaluator = make(SLOW.format(hold="30s"))
    latency(database_url, NOON - SECOND, 200)
    for number in range(3):
        assert evaluator.run_once(NOON + number * STEP)
    assert history(database_url) == [("inactive", "pending", "condition"), ("pending", "firing", "held")]
    latency(database_url, NOON + 2 * STEP + SECOND, -1000)
    evaluator.run_once(NOON + 3 * STEP)
    assert history(database_url)[2:] == [("firing", "inactive", "cleared")]
    assert notifications(database_url) == [("firing", NOON + 2 * STEP), ("resolved", NOON + 3 * STEP)]
    (labels, annotations, starts_at, ends_at) = rows(
        database_url,
        "SELECT labels, annotations, starts_at, ends_at FROM modelmeter.notification WHERE status = 'resolved'",
    )[0]
    assert labels == {"alertname": "Slow", "name": "Mistral", "version": "v1", "severity": "page"}
    assert annotations == {"summary": "Mistral takes 200 ms"}
    assert (to_micros(starts_at), to_micros(ends_at)) == (NOON + 2 * STEP, NOON + 3 * STEP)
    assert rows(database_url, "SELECT * FROM modelmeter.alert") == []


def test_a_restart_forgets_no_for_and_fires_nothing_again(database_url: str, make: Made) -> None:
    latency(database_url, NOON - SECOND, 200)
    make(SLOW.format(hold="15s")).run_once(NOON)
    make().run_once(NOON + STEP)
    make().run_once(NOON + 2 * STEP)
    assert history(database_url) == [("inactive", "pending", "condition"), ("pending", "firing", "held")]
    assert len(notifications(database_url)) == 1


def test_windows_that_were_missed_are_evaluated_at_their_own_times(database_url: str, make: Made) -> None:
    evaluator = make(SLOW.format(hold="0s"))
    evaluator.run_once(NOON)
    latency(database_url, NOON + STEP - SECOND, 200)
    latency(database_url, NOON + 3 * STEP - SECOND, -1000)
    make().run_once(NOON + 5 * STEP + 3)  # another keeper takes over after a while
    assert [(status, (at - NOON) // STEP) for status, at in notifications(database_url)] == [
        ("firing", 1),
        ("resolved", 3),
    ]
    assert rows(database_url, "SELECT evaluated_at FROM modelmeter.rule_evaluation") == rows(
        database_url, f"SELECT to_timestamp({(NOON + 5 * STEP) // SECOND})"
    )


def test_no_more_windows_are_made_up_for_than_the_setting_says(database_url: str, make: Made) -> None:
    evaluator = make(SLOW.format(hold="0s"), catch_up_limit_seconds=30)
    evaluator.run_once(NOON)
    latency(database_url, NOON + STEP - SECOND, 200)
    evaluator.run_once(NOON + 100 * STEP)
    assert history(database_url) == []


def test_two_evaluators_at_once_judge_each_window_once(database_url: str, make: Made) -> None:
    values = [(NOON + number * STEP - SECOND, 200 if number % 2 else -1000) for number in range(20)]
    store(database_url, *(event(at, inference_time=value) for at, value in values))
    evaluators = [make(SLOW.format(hold="0s").replace("[1m]", "[15s]")), make(), make()]
    errors: list[BaseException] = []

    def run(evaluator: Evaluator) -> None:
        try:
            for number in range(20):
                evaluator.run_once(NOON + number * STEP)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(evaluator,)) for evaluator in evaluators]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert [to for _, to, _ in history(database_url)] == (["firing", "inactive"] * 10)[:19]
    assert [(status, (at - NOON) // STEP) for status, at in notifications(database_url)] == [
        ("firing" if number % 2 else "resolved", number) for number in range(1, 20)
    ]


def test_a_model_that_falls_silent_stays_firing(database_url: str, make: Made) -> None:
    evaluator = make(SLOW.format(hold="0s"))
    latency(database_url, NOON - SECOND, 200)
    for number in range(20):
        evaluator.run_once(NOON + number * STEP)
    assert history(database_url) == [("inactive", "firing", "condition")]
    assert rows(database_url, "SELECT state, reason, value FROM modelmeter.alert") == [
        ("firing", "no_data_kept", 200.0)
    ]


def test_a_model_that_falls_silent_alerts_where_the_rule_says_so(database_url: str, make: Made) -> None:
    rules = SLOW.format(hold="0s").replace("for: 0s", "no_data: alert")
    evaluator = make(rules)
    latency(database_url, NOON - SECOND, 1)
    latency(database_url, NOON + 10 * STEP, 1, name="Llama")
    evaluator.run_once(NOON)
    assert history(database_url) == []
    evaluator.run_once(NOON + 6 * STEP)
    assert history(database_url) == [("inactive", "firing", "no_data")]
    assert rows(database_url, "SELECT labels ->> 'name', value FROM modelmeter.alert") == [("Mistral", None)]
    latency(database_url, NOON + 7 * STEP, 1)
    evaluator.run_once(NOON + 7 * STEP)
    assert history(database_url)[1:] == [("firing", "inactive", "cleared")]


def test_few_events_are_no_evidence(database_url: str, make: Made) -> None:
    evaluator = make(SLOW.format(hold="0s").replace("for: 0s", "min_samples: 3"))
    latency(database_url, NOON - 3, 200)
    latency(database_url, NOON - 2, 200)
    evaluator.run_once(NOON)
    assert history(database_url) == []
    latency(database_url, NOON + 1, 200)
    evaluator.run_once(NOON + STEP)
    assert history(database_url) == [("inactive", "firing", "condition")]
    latency(database_url, NOON + 4 * STEP, -1000)
    evaluator.run_once(NOON + 5 * STEP)  # one event is left in the range, and it says that all is well
    assert len(history(database_url)) == 1
    assert rows(database_url, "SELECT reason FROM modelmeter.alert") == [(Reason.FEW_SAMPLES.value,)]


def test_recover_is_a_second_threshold(database_url: str, make: Made) -> None:
    rules = (
        SLOW.format(hold="0s")
        .replace("for: 0s", "recover: avg_over_time(inference_time[1m]) < 50")
        .replace("[1m]", "[15s]")
    )
    evaluator = make(rules)
    for number, value in enumerate((200, 80, 120, 60, 40)):
        latency(database_url, NOON + number * STEP, value)
        evaluator.run_once(NOON + number * STEP)
    assert history(database_url) == [("inactive", "firing", "condition"), ("firing", "inactive", "recovered")]


def test_a_rule_that_goes_away_ends_its_alerts(database_url: str, make: Made, tmp_path: Path) -> None:
    evaluator = make(SLOW.format(hold="0s"))
    latency(database_url, NOON - SECOND, 200)
    evaluator.run_once(NOON)
    make("groups: []").run_once(NOON + STEP)
    assert history(database_url)[1:] == [("firing", "inactive", "rule_removed")]
    assert [status for status, _ in notifications(database_url)] == ["firing", "resolved"]


def test_a_rule_that_fails_changes_nothing_and_says_why(database_url: str, make: Made) -> None:
    rules = SLOW.format(hold="0s").replace("expr: avg", "expr: avg_over_time(other[1m]) or avg")
    evaluator = make(rules)
    latency(database_url, NOON - SECOND, 200)
    evaluator.run_once(NOON)
    assert len(history(database_url)) == 1
    failing = SLOW.format(hold="0s").replace("> 100", "* on () group_left () inference_time > 0")
    latency(database_url, NOON, 7, name="Llama")
    make(failing).run_once(NOON + STEP)
    assert len(history(database_url)) == 1
    ((errors,),) = rows(database_url, "SELECT rule_errors FROM modelmeter.loaded_group")
    assert "many" in errors[0]


RECORD = """
groups:
  - name: recorded
    interval: 15s
    rules:
      - record: model:inference_time:mean
        expr: avg by (name) (avg_over_time(inference_time[1m]))
      - alert: Slow
        expr: model:inference_time:mean > 100
"""


def test_a_recording_rule_writes_an_ordinary_series_once(database_url: str, make: Made) -> None:
    latency(database_url, NOON - SECOND, 200)
    make(RECORD).run_once(NOON)
    assert history(database_url) == [("inactive", "firing", "condition")]  # seen by the next rule at once
    with psycopg.connect(database_url) as connection:
        connection.execute("DELETE FROM modelmeter.rule_evaluation")  # as if it had died before its commit
        connection.execute("DELETE FROM modelmeter.alert_history")
    make().run_once(NOON)
    with Storing(database_url) as storing:
        storing.run()
        found = [
            (dict(labels), int(batch.timestamp[0]), float(batch.metrics["model:inference_time:mean"][0]))
            for batch in storing.seen
            for labels in batch.streams
        ]
    assert found == [({"name": "Mistral", "version": "all"}, NOON, 200.0)]


def test_an_interval_is_aligned_to_1970(database_url: str, make: Made) -> None:
    evaluator = make(SLOW.format(hold="0s").replace("interval: 15s", "interval: 1m"))
    evaluator.run_once(NOON + 7 * SECOND)
    evaluator.run_once(NOON + 59 * SECOND)
    ((at,),) = rows(database_url, "SELECT evaluated_at FROM modelmeter.rule_evaluation")
    assert to_micros(at) == NOON
    evaluator.run_once(NOON + MINUTE)
    ((at,),) = rows(database_url, "SELECT evaluated_at FROM modelmeter.rule_evaluation")
    assert to_micros(at) == NOON + MINUTE
