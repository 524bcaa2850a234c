"""What the evaluator notes reaches who it is for, at least once, in order, and nobody waits for another."""

import json
import os
import random
import secrets
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psycopg
import pytest

from modelmeter.config import Config
from modelmeter.dispatcher import Dispatcher, delay_seconds
from modelmeter.errors import WrongSetting
from modelmeter.window import SECOND
from tests.history import NOON
from tests.notifying import Dispatching, Evaluator, Request, alerts_of, die, inbox, rows, status, webhooks


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "notifications.yml"


def tree(url: str, **route: object) -> str:
    """A file with one webhook; the root's fields."""
    root = {"receiver": "team", "group_by": ["alertname"], "group_wait": "30s", "group_interval": "5m", **route}
    return json.dumps({"route": root, "receivers": [{"name": "team", "webhook_configs": [{"url": url}]}]})


def test_an_alert_and_its_resolution_are_told_once_each(database_url: str, file: Path) -> None:
    with (
        inbox() as box,
        Evaluator(database_url) as evaluator,
        Dispatching(database_url, file, webhooks(a=box.url)) as it,
    ):
        evaluator.fire(name="A", severity="critical")
        it.step()
        evaluator.resolve(name="A", severity="critical")
        it.step(60)
        it.step(7200)
        first, second = box.requests
    assert first.json["status"] == "firing"
    assert first.json["version"] == "4"
    assert first.json["groupLabels"] == {"alertname": "Drift", "name": "A", "severity": "critical"}
    (alert,) = first.json["alerts"]
    assert alert["labels"] == first.json["commonLabels"] == first.json["groupLabels"]
    assert alert["annotations"] == first.json["commonAnnotations"] == {"summary": "Drift of A"}
    assert (alert["startsAt"], alert["endsAt"]) == ("2026-03-01T12:00:00Z", "0001-01-01T00:00:00Z")
    assert (alert["value"], alert["reason"]) == (0.9, "the condition holds")
    assert second.json["status"] == "resolved"
    assert second.json["alerts"][0]["endsAt"] == "2026-03-01T12:01:00Z"
    assert rows(database_url, "SELECT * FROM modelmeter.notification") == []
    assert rows(database_url, "SELECT * FROM modelmeter.notification_group") == []
    assert rows(database_url, "SELECT * FROM modelmeter.delivery") == []
    assert [row[0] for row in rows(database_url, "SELECT why FROM modelmeter.delivery_history ORDER BY at")] == [
        "new alert",
        "all resolved",
    ]


def test_alerts_of_a_group_wait_for_each_other_and_news_for_the_interval(database_url: str, file: Path) -> None:
    with inbox() as box, Evaluator(database_url) as evaluator, Dispatching(database_url, file, tree(box.url)) as it:
        evaluator.fire(name="A")
        it.step(0)
        evaluator.fire(NOON + 20 * SECOND, name="B")
        it.step(29)
        assert box.take() == []
        it.step(1)
        assert alerts_of(box.take()) == [("firing", "A"), ("firing", "B")]
        evaluator.fire(it.now, name="C")
        it.step(299)
        assert box.take() == []
        it.step(1)
        assert alerts_of(box.take()) == [("firing", "A"), ("firing", "B"), ("firing", "C")]
        evaluator.resolve(it.now, name="A")
        it.step(300)
        assert alerts_of(box.take()) == [("firing", "B"), ("firing", "C"), ("resolved", "A")]
        it.step(300)
        assert box.take() == []


def test_what_goes_on_is_told_again_after_the_repeat_interval(database_url: str, file: Path) -> None:
    text = tree(box_url := "http://127.0.0.1:1/", repeat_interval="1h")
    with (
        inbox() as box,
        Evaluator(database_url) as evaluator,
        Dispatching(database_url, file, text.replace(box_url, box.url)) as it,
    ):
        evaluator.fire(name="A")
        told_at = []
        for _ in range(30):
            it.step(300)
            if box.take():
                told_at.append((it.now - NOON) // SECOND)
    assert told_at == [300, 3900, 7500]


def test_an_alert_that_is_over_before_it_was_told_makes_no_message(database_url: str, file: Path) -> None:
    with inbox() as box, Evaluator(database_url) as evaluator, Dispatching(database_url, file, tree(box.url)) as it:
        evaluator.fire(name="A")
        evaluator.resolve(name="A")
        it.step(0)
        it.step(600)
        assert box.requests == []
    assert rows(database_url, "SELECT * FROM modelmeter.notification_group") == []


def test_an_event_is_told_once_and_two_of_the_same_labels_are_two(database_url: str, file: Path) -> None:
    with inbox() as box, Evaluator(database_url) as evaluator, Dispatching(database_url, file, tree(box.url)) as it:
        evaluator.event(name="A")
        evaluator.event(name="A")
        it.step(30)
        it.step(86_400)
        (request,) = box.requests
    assert [one["event"] for one in request.json["alerts"]] == [True, True]
    assert request.json["why"] == "event"


def test_events_beyond_the_limit_are_counted(database_url: str, file: Path) -> None:
    with (
        inbox() as box,
        Evaluator(database_url) as evaluator,
        Dispatching(database_url, file, tree(box.url), notification_limit_alerts=5) as it,
    ):
        for _ in range(9):
            evaluator.event(name="A")
        it.step()
        for _ in range(4):
            evaluator.event(name="A")
        it.step(30)
        (request,) = box.requests
    assert (len(request.json["alerts"]), request.json["truncatedAlerts"]) == (5, 8)


def test_alerts_beyond_the_limit_of_a_message_are_counted_and_told(database_url: str, file: Path) -> None:
    with (
        inbox() as box,
        Evaluator(database_url) as evaluator,
        Dispatching(database_url, file, tree(box.url), notification_limit_alerts=3) as it,
    ):
        for number in range(5):
            evaluator.fire(name=f"M{number}")
        it.step(30)
        (request,) = box.take()
        assert (len(request.json["alerts"]), request.json["truncatedAlerts"]) == (3, 2)
        it.step(300)
        assert box.take() == [], "nothing is new"


def test_a_failure_that_passes_is_tried_again_with_the_same_key_and_in_order(database_url: str, file: Path) -> None:
    with (
        inbox(status(500)) as box,
        Evaluator(database_url) as evaluator,
        Dispatching(database_url, file, webhooks(a=box.url)) as it,
    ):
        evaluator.fire(name="A")
        it.step()
        evaluator.resolve(name="A")
        it.step(60)
        assert len(box.requests) == 2, "the resolution waits for what comes before it"
        box.answer = status(200)
        it.step(2)
        it.step(1)
        assert [one.json["status"] for one in box.requests] == ["firing"] * 3 + ["resolved"]
        keys = [one.headers["idempotency-key"] for one in box.requests]
        assert len(set(keys[:3])) == 1
        assert keys[3] != keys[0]
        assert [one.json["deduplicationKey"] for one in box.requests] == keys


def test_retry_after_is_honoured(database_url: str, file: Path) -> None:
    with (
        inbox(status(429, "Retry-After: 120")) as box,
        Evaluator(database_url) as evaluator,
        Dispatching(database_url, file, webhooks(a=box.url)) as it,
    ):
        evaluator.fire(name="A")
        it.step()
        box.answer = status(200)
        it.step(119)
        assert len(box.requests) == 1
        it.step(1)
        assert len(box.requests) == 2


@pytest.mark.parametrize("code", [400, 401, 404, 302])
def test_a_permanent_failure_is_given_up_at_once_with_its_reason(database_url: str, file: Path, code: int) -> None:
    with (
        inbox(status(code, "Location: /elsewhere", body="no such token")) as box,
        Evaluator(database_url) as evaluator,
        Dispatching(database_url, file, webhooks(a=box.url)) as it,
    ):
        evaluator.fire(name="A")
        it.step()
        it.step(3600 * 24)
    ((state, attempts, reason),) = rows(
        database_url, "SELECT status, attempts, reason FROM modelmeter.delivery_history"
    )[:1]
    assert (state, attempts) == ("given up", 1)
    assert reason.startswith(f"HTTP {code}: {'it redirects' if code == 302 else 'no such token'}")


def test_what_fails_for_too_long_is_given_up_with_its_reason(database_url: str, file: Path) -> None:
    with (
        Evaluator(database_url) as evaluator,
        Dispatching(database_url, file, webhooks(a="http://127.0.0.1:1/"), notification_give_up_seconds=600) as it,
    ):
        evaluator.fire(name="A")
        evaluator.forget(name="A")  # so that it is told but once
        for _ in range(70):
            it.step(10)
    ((state, attempts, reason),) = rows(
        database_url, "SELECT status, attempts, reason FROM modelmeter.delivery_history"
    )
    assert state == "given up"
    assert attempts > 8
    assert "ConnectError" in reason


def test_a_destination_that_hangs_or_drips_holds_up_no_other(database_url: str, file: Path) -> None:
    with inbox() as hanging, inbox() as dripping, inbox() as well, Evaluator(database_url) as evaluator:
        hanging.answer, dripping.answer = hanging.hang, dripping.drip
        receivers = [
            {
                "name": "all",
                "webhook_configs": [
                    {"url": hanging.url, "timeout": "30s"},
                    {"url": dripping.url, "timeout": "300ms"},
                    {"url": well.url},
                ],
            }
        ]
        route = {"receiver": "all", "group_by": ["..."], "group_wait": "0s"}
        text = json.dumps({"route": route, "receivers": receivers})
        with Dispatching(database_url, file, text) as it:
            for number in range(20):
                evaluator.fire(name=f"M{number}")
            failed = "SELECT 1 FROM modelmeter.delivery WHERE reason = 'no answer within 0.3 s'"
            deadline = time.monotonic() + 20
            while len(well.requests) < 20 or not rows(database_url, failed):
                it.step(wait=False)
                assert time.monotonic() < deadline
            assert it.now == NOON
            assert len(hanging.requests) == 8, "no more at a time than a destination's share"


def test_a_server_that_dies_in_its_answer_is_told_again(database_url: str, file: Path) -> None:
    with (
        inbox(die) as box,
        Evaluator(database_url) as evaluator,
        Dispatching(database_url, file, webhooks(a=box.url)) as it,
    ):
        evaluator.fire(name="A")
        it.step()
        box.answer = status(200)
        it.step(1)
        assert len(box.requests) == 2
        assert box.requests[0].body == box.requests[1].body


def test_the_wait_doubles_to_a_limit_and_is_never_shorter_than_asked() -> None:
    assert [delay_seconds(attempts, None, 0.0) for attempts in (1, 2, 3, 9, 10, 99)] == [1, 2, 4, 256, 300, 300]
    assert delay_seconds(4, None, 1.0) == 4
    assert delay_seconds(1, 90.0, 1.0) == 90
    assert delay_seconds(10, 1.0, 0.5) == 225


def test_without_a_file_each_alert_is_a_line_in_the_log(database_url: str, capsys: pytest.CaptureFixture[str]) -> None:
    with Evaluator(database_url) as evaluator, Dispatching(database_url) as it:
        evaluator.fire(name="Mistral\n", version="v1")
        evaluator.event(name="Mistral")
        it.step()
        evaluator.resolve(name="Mistral\n", version="v1")
        it.step(300)
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith(
        r"ALERT Drift firing, {'name': 'Mistral\n', 'version': 'v1'}, value 0.9: 'Drift of Mistral\n' ("
    )
    assert second.startswith(r"ALERT Drift resolved, {'name': 'Mistral\n', 'version': 'v1'}, value 0.1")


def test_a_change_of_the_file_places_alerts_anew(database_url: str, file: Path) -> None:
    with (
        inbox() as old,
        inbox() as new,
        Evaluator(database_url) as evaluator,
        Dispatching(database_url, file, webhooks(a=old.url)) as it,
    ):
        evaluator.fire(name="A")
        it.step()
        assert len(old.take()) == 1
        text = json.loads(webhooks(a=old.url, b=new.url))
        text["route"]["routes"] = [{"matchers": ['name="A"'], "receiver": "b"}]
        file.write_text(json.dumps(text))
        it.step(1)
        it.step(60)
        assert (len(new.take()), len(old.take())) == (1, 0)
        evaluator.resolve(name="A")
        it.step(60)
        assert (len(new.take()), len(old.take())) == (1, 0)


def test_a_bad_file_changes_nothing_until_it_is_good_again(
    database_url: str, file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with (
        inbox() as box,
        Evaluator(database_url) as evaluator,
        Dispatching(database_url, file, webhooks(a=box.url)) as it,
    ):
        file.write_text("route: {receiver: nobody}\nreceivers: []\n")
        evaluator.fire(name="A")
        it.step()
        assert len(box.take()) == 1
        assert "notifications.yml:1: there is no receiver 'nobody'" in caplog.text
        caplog.clear()
        it.step(1)
        it.dispatcher.reload()
        it.step(1)
        assert "there is no receiver" in caplog.text, "asked for, it says so again"
        file.write_text(webhooks(a=box.url + "/other"))
        evaluator.fire(name="B")
        it.step(1)
        assert [one.path for one in box.take()] == ["/hook/other"]


def test_an_alert_that_goes_without_a_word_is_told_as_resolved(database_url: str, file: Path) -> None:
    with (
        inbox() as box,
        Evaluator(database_url) as evaluator,
        Dispatching(database_url, file, webhooks(a=box.url)) as it,
    ):
        evaluator.fire(name="A")
        it.step()
        evaluator.forget(name="A")
        it.step(61)
        assert alerts_of(box.requests) == [("firing", "A"), ("resolved", "A")]


def test_what_fires_when_the_dispatcher_comes_first_is_told(database_url: str, file: Path) -> None:
    with inbox() as box, Evaluator(database_url) as evaluator:
        evaluator.fire(name="A")
        with psycopg.connect(database_url) as connection:
            connection.execute("DELETE FROM modelmeter.notification")
        with Dispatching(database_url, file, webhooks(a=box.url)) as it:
            it.step()
            assert alerts_of(box.requests) == [("firing", "A")]


def test_a_destination_with_too_many_waiting_gets_no_more(database_url: str, file: Path) -> None:
    with Evaluator(database_url) as evaluator:
        text = webhooks(a="http://127.0.0.1:1/")
        with Dispatching(database_url, file, text, notification_limit_pending=3) as it:
            for number in range(5):
                evaluator.fire(name=f"M{number}")
            it.step()
    assert len(rows(database_url, "SELECT * FROM modelmeter.delivery")) == 3
    reasons = rows(database_url, "SELECT status, reason FROM modelmeter.delivery_history")
    assert len(reasons) == 2
    assert "MODELMETER_NOTIFICATION_LIMIT_PENDING" in reasons[0][1]


def test_what_waits_for_a_destination_that_left_the_file_is_given_up_in_the_end(database_url: str, file: Path) -> None:
    with (
        Evaluator(database_url) as evaluator,
        inbox() as box,
        Dispatching(database_url, file, webhooks(a="http://127.0.0.1:1/")) as it,
    ):
        evaluator.fire(name="A")
        it.step()
        file.write_text(webhooks(b=box.url))
        it.step(3600)
        assert len(rows(database_url, "SELECT * FROM modelmeter.delivery")) == 1
        it.step(6 * 3600)
    assert rows(database_url, "SELECT reason FROM modelmeter.delivery_history WHERE destination = 'a/webhook/0'") == [
        ("the notifications file has no such destination",)
    ]


def test_two_dispatchers_send_nothing_twice(database_url: str, file: Path) -> None:
    with (
        inbox() as box,
        Evaluator(database_url) as evaluator,
        Dispatching(database_url, file, webhooks(a=box.url)) as one,
        Dispatching(database_url, file) as other,
    ):
        for number in range(60):
            evaluator.fire(name=f"M{number}")
        for _ in range(2000):
            for it in (one, other):
                it.dispatcher.run_once(NOON)
            if len(rows(database_url, "SELECT 1 FROM modelmeter.delivery_history")) == 60:
                break
    keys = [request.headers["idempotency-key"] for request in box.requests]
    assert len(keys) == len(set(keys)) == 60


def test_what_was_sent_and_not_recorded_is_sent_again_with_the_same_key(database_url: str, file: Path) -> None:
    with inbox() as box, Evaluator(database_url) as evaluator:
        with Dispatching(database_url, file, webhooks(a=box.url)) as lost:
            evaluator.fire(name="A")
            lost.dispatcher.run_once(NOON)
            lost.dispatcher._courier.drain(10)  # it is sent, and the dispatcher dies here
        with Dispatching(database_url, file) as it:
            it.step(15)
            assert len(box.requests) == 1, "its lease is not over"
            it.step(10)
        first, second = box.requests
    assert first.headers["idempotency-key"] == second.headers["idempotency-key"]
    assert first.json == second.json


def test_closing_waits_for_what_is_under_way(database_url: str, file: Path) -> None:
    with inbox() as box, Evaluator(database_url) as evaluator:
        it = Dispatching(database_url, file, webhooks(a=box.url))
        evaluator.fire(name="A")
        it.dispatcher.run_once(NOON)
        it.dispatcher.close(10)
        assert rows(database_url, "SELECT status FROM modelmeter.delivery_history") == [("delivered",)]


def test_a_bad_file_at_the_start_is_a_wrong_setting(database_url: str, file: Path) -> None:
    file.write_text("rout: {}\n")
    with pytest.raises(WrongSetting, match="did you mean route"):
        Dispatcher(Config(database_url=database_url, notifications=file))


def test_a_warning_is_not_told_while_its_critical_twin_fires_and_is_resolved_afterwards(
    database_url: str, file: Path
) -> None:
    with inbox() as box, Evaluator(database_url) as evaluator:
        text = json.loads(webhooks(a=box.url))
        text["inhibit_rules"] = [
            {"source_matchers": ["severity=critical"], "target_matchers": ["severity=warning"], "equal": ["name"]}
        ]
        with Dispatching(database_url, file, json.dumps(text)) as it:
            evaluator.fire(name="A", severity="warning")
            it.step()
            assert alerts_of(box.take()) == [("firing", "A")]
            evaluator.fire(name="A", severity="critical")
            it.step(1)
            evaluator.fire(name="B", severity="warning")
            evaluator.resolve(it.now, name="A", severity="warning")
            it.step(60)
            told = [(one["status"], one["labels"]["severity"], one["labels"]["name"]) for one in _alerts(box.take())]
            assert told == [("firing", "critical", "A"), ("firing", "warning", "B")]
            evaluator.resolve(it.now, name="A", severity="critical")
            it.step(60)
            resolved = [(one["status"], one["labels"]["severity"]) for one in _alerts(box.take())]
            assert sorted(resolved) == [("resolved", "critical"), ("resolved", "warning")]


def _alerts(requests: Sequence[Request]) -> list[dict[str, Any]]:
    return [alert for request in requests for alert in request.json["alerts"]]


def test_in_mute_times_a_route_tells_nothing_and_afterwards_what_still_fires(database_url: str, file: Path) -> None:
    with inbox() as box, inbox() as other, Evaluator(database_url) as evaluator:
        text = json.loads(webhooks(a=other.url, b=box.url))
        text["route"]["routes"] = [
            {"matchers": ["severity=~.+"], "receiver": "b", "mute_time_intervals": ["noon"], "continue": True},
            {"matchers": ["severity=~.+"], "receiver": "a"},
        ]
        noon = {"times": [{"start_time": "12:00", "end_time": "13:00"}], "location": "UTC"}
        text["time_intervals"] = [{"name": "noon", "time_intervals": [noon]}]
        with Dispatching(database_url, file, json.dumps(text)) as it:
            evaluator.fire(name="A", severity="x")
            evaluator.fire(name="B", severity="x")
            it.step()
            evaluator.resolve(NOON + 600 * SECOND, name="B", severity="x")
            it.step(1800)
            assert box.take() == []
            assert len(other.take()) == 3, "another route is not muted"
            it.step(1800)
            assert alerts_of(box.take()) == [("firing", "A")]


KEEPER = """
import sys, time
from modelmeter.dispatcher import Dispatcher
from modelmeter.config import read_config

dispatcher = Dispatcher(read_config())
while True:
    dispatcher.run_once()
    time.sleep(0.005)
"""


def test_dispatchers_killed_at_random_lose_nothing_and_give_each_message_one_key(database_url: str, file: Path) -> None:
    """Two at once, without the lock that lets only one of them work, each killed again and again."""
    seed = int(os.environ.get("MODELMETER_TEST_SEED") or secrets.randbelow(2**32))
    print(f"MODELMETER_TEST_SEED={seed}")
    dice = random.Random(seed)
    environment = {
        **os.environ,
        "MODELMETER_DATABASE_URL": database_url,
        "MODELMETER_NOTIFICATIONS": str(file),
        "MODELMETER_NOTIFICATION_TIMEOUT_SECONDS": "2",
    }
    running: list[subprocess.Popen[bytes] | None] = [None, None]

    def start(number: int) -> None:
        running[number] = subprocess.Popen([sys.executable, "-c", KEEPER], env=environment)

    def answer(client: socket.socket) -> None:
        """Mostly well; now and then an error, or nothing until the dispatcher is tired of it."""
        chance = dice.random()
        if chance < 0.1:
            status(503)(client)
        elif chance < 0.2:
            die(client)
        else:
            status(200)(client)

    count = 30
    with inbox(answer) as box, Evaluator(database_url) as evaluator:
        text = webhooks(a=box.url).replace('"1m"', '"50ms"')
        file.write_text(text)
        alive = [f"M{number}" for number in range(count)]
        for number in (0, 1):
            start(number)
        try:
            began = time.time_ns() // 1000
            fired: list[str] = []
            deadline = time.monotonic() + 240
            kills = 0
            while not _all_are_resolved(box.requests, alive):
                assert time.monotonic() < deadline, f"seed {seed}: {_missing(box.requests, alive)}"
                if alive and len(fired) < count:
                    name = alive[len(fired)]
                    evaluator.fire(began, name=name)
                    fired.append(name)
                for name in [name for name in fired if name and ("firing", name) in alerts_of(box.requests)]:
                    evaluator.resolve(time.time_ns() // 1000, name=name)
                    fired[fired.index(name)] = ""
                process = running[number := dice.randint(0, 1)]
                if process is not None and kills < 6 and dice.random() < 0.03 and box.requests:
                    process.kill()
                    process.wait()
                    start(number)
                    kills += 1
                time.sleep(0.02)  # the pace of asking
        finally:
            for process in running:
                if process is not None:
                    process.kill()
                    process.wait()
    assert kills > 0
    contents: dict[str, set[bytes]] = {}
    keys: dict[tuple[str, str], set[str]] = {}
    for request in box.requests:
        key = request.headers["idempotency-key"]
        contents.setdefault(key, set()).add(request.body)
        for alert in request.alerts:
            keys.setdefault(alert, set()).add(key)
    assert {len(bodies) for bodies in contents.values()} == {1}, "one key, one message"
    assert {len(its) for its in keys.values()} == {1}, "each change was told in one message, however often it was sent"
    assert {*keys} == {(state, name) for state in ("firing", "resolved") for name in alive}
    print(f"{kills} kills, {len(box.requests)} requests for {len(contents)} messages")


def _missing(requests: Sequence[Request], names: Sequence[str]) -> list[str]:
    told = {*alerts_of(requests)}
    return [name for name in names if ("resolved", name) not in told]


def _all_are_resolved(requests: Sequence[Request], names: Sequence[str]) -> bool:
    return not _missing(list(requests), names)
