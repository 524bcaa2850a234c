"""What event rules find is told in the transaction that stores the event: once, to a real webhook, bounded."""

import io
import json
from pathlib import Path

import psycopg

from modelmeter import telemetry
from modelmeter.announcer import Announcer
from modelmeter.config import Config
from modelmeter.notify.log import AlertLog
from modelmeter.rule import EventRule, parse_event
from modelmeter.window import SECOND
from tests.history import NOON, Storing, event, message_of, send
from tests.notifying import Dispatching, Evaluator, inbox, rows, webhooks

NOTED = "SELECT labels, value FROM modelmeter.notification ORDER BY transition_id"


class Clock:
    """Seconds, moved by hand."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def rule(name: str = "Low", text: str = "accuracy < 0.3", **labels: str) -> EventRule:
    return EventRule(name, *parse_event(text), labels, {"summary": "{{ $labels.name }} is at {{ $value }}"})


class Announcing:
    """An announcer with a clock moved by hand, within a worker of its own."""

    def __init__(self, url: str, file: Path | None, *rules: EventRule, limit: int = 20, most: int = 1000) -> None:
        self.out, self.clock = io.StringIO(), Clock()
        if file is not None:
            file.touch()
        config = Config(
            database_url=url, notifications=file, alert_lines_per_second=limit, notification_limit_pending=most
        )
        its_rules = rules or (rule(),)
        self.announcer = Announcer(config, its_rules, AlertLog(its_rules, limit, self.out, self.clock), self.clock)
        self.storing = Storing(url, self.announcer.tell, self.announcer.judge)
        self.url = url

    def store(self, *values: float) -> None:
        send(self.url, message_of(*(event(NOON + at, accuracy=value) for at, value in enumerate(values))))
        with self.storing as storing:
            storing.run()

    @property
    def noted(self) -> list[float]:
        return [value for _, value in rows(self.url, NOTED)]


def test_an_event_that_fires_reaches_the_webhook_with_the_whole_event(database_url: str, tmp_path: Path) -> None:
    file = tmp_path / "notifications.yml"
    with inbox() as box, Dispatching(database_url, file, webhooks(a=box.url)) as dispatching:
        it = Announcing(database_url, file, rule(severity="page", team="{{ $labels.name }}-people"))
        send(database_url, message_of(event(NOON, accuracy=0.2, drift=0.7), event(NOON + SECOND, accuracy=0.9)))
        with it.storing as storing:
            storing.run()
        dispatching.step(3600 * 24 * 3650)
        dispatching.step(3600 * 24)
    (request,) = box.requests
    assert request.json["why"] == "event"
    (alert,) = request.json["alerts"]
    assert alert["labels"] == {
        "alertname": "Low", "name": "Mistral", "version": "v1", "severity": "page", "team": "Mistral-people",
    }  # fmt: skip
    assert alert["annotations"].pop("summary") == "Mistral is at 0.2"
    assert json.loads(alert["annotations"].pop("event")) == {
        "name": "Mistral", "version": "v1", "accuracy": 0.2, "drift": 0.7, "timestamp": "2026-03-01T12:00:00Z",
    }  # fmt: skip
    assert alert["annotations"] == {}
    assert (alert["value"], alert["reason"], alert["event"]) == (0.2, "event", True)
    assert (alert["startsAt"], alert["endsAt"]) == ("2026-03-01T12:00:00Z", "0001-01-01T00:00:00Z")
    assert rows(database_url, "SELECT * FROM modelmeter.alert_history") == [], "an event is no state"
    assert it.out.getvalue().count("ALERT") == 1


def test_a_batch_claimed_twice_is_told_once(database_url: str, tmp_path: Path) -> None:
    it = Announcing(database_url, tmp_path / "n.yml")
    message = message_of(event(NOON, accuracy=0.1))
    for _ in range(2):
        send(database_url, message, message)
        with it.storing as storing:
            storing.run()
    assert it.noted == [0.1]


def test_of_a_transaction_that_is_undone_nothing_is_told_nor_counted(database_url: str, tmp_path: Path) -> None:
    it = Announcing(database_url, tmp_path / "n.yml", limit=1)
    send(database_url, message_of(event(NOON, accuracy=0.1)))
    with it.storing as storing, psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("ALTER TABLE modelmeter.notification ADD CONSTRAINT never CHECK (value > 1)")
        storing.worker.run_once()
        assert rows(database_url, "SELECT * FROM modelmeter.chunk") == []
        connection.execute("ALTER TABLE modelmeter.notification DROP CONSTRAINT never")
        storing.run()
    assert it.noted == [0.1], "the room of its second was not used up"
    assert it.out.getvalue().count("ALERT") == 1


def test_a_flood_is_cut_to_so_many_a_second_for_each_rule_and_counted(database_url: str, tmp_path: Path) -> None:
    rules = (rule("FloodA"), rule("FloodB", "accuracy < 0.15"))
    it = Announcing(database_url, tmp_path / "n.yml", *rules, limit=3)
    before = left_out("FloodA")
    it.store(0.2, 0.21)
    it.store(0.1, 0.11, 0.12, 0.13)
    assert it.noted == [0.2, 0.21, 0.1, 0.1, 0.11, 0.12]
    assert left_out("FloodA") - before == 3
    it.clock.now += 1
    it.store(0.25)
    assert it.noted[-1] == 0.25
    assert left_out("FloodA") - before == 3


def test_no_more_wait_than_the_limit(database_url: str, tmp_path: Path) -> None:
    it = Announcing(database_url, tmp_path / "n.yml", rule("Full"), most=3)
    it.store(0.1, 0.2)
    it.store(0.11, 0.21)
    it.store(0.12)
    assert it.noted == [0.1, 0.2, 0.11]
    assert left_out("Full") == 2


def test_without_a_notifications_file_there_are_lines_only(database_url: str) -> None:
    it = Announcing(database_url, None)
    it.store(0.1)
    assert it.noted == []
    assert it.out.getvalue().startswith("ALERT accuracy lower than 0.3, {'name': 'Mistral'")


def test_an_event_with_the_labels_of_an_alert_that_fires_is_still_an_event(database_url: str, tmp_path: Path) -> None:
    file = tmp_path / "notifications.yml"
    with inbox() as box, Dispatching(database_url, file, webhooks(a=box.url)) as dispatching:
        it = Announcing(database_url, file)
        it.store(0.1)
        with Evaluator(database_url) as evaluator, psycopg.connect(database_url) as connection:
            # As an alert rule of the same name would leave it.
            evaluator.fire(alertname="Low", name="Mistral", version="v1")
            for table in ("alert", "notification"):
                same = "SET fingerprint = n.fingerprint FROM modelmeter.notification n WHERE n.reason = 'event'"
                connection.execute(f"UPDATE modelmeter.{table} AS it {same}".encode())
        dispatching.step(3600 * 24 * 3650)
    (request,) = box.requests
    assert sorted(one["event"] for one in request.json["alerts"]) == [False, True]


def left_out(name: str) -> float:
    return float(telemetry.EVENT_NOTIFICATIONS_SUPPRESSED.labels(name)._value.get())
