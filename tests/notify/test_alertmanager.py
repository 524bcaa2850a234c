"""A real Alertmanager takes our alerts, groups them, keeps them while they fire, and resolves them."""

import json
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.acceptance.yard import free_port
from tests.history import NOON
from tests.notifying import Dispatching, Evaluator, Inbox, alerts_of, inbox, rows, status

from modelmeter.config import Config
from modelmeter.dispatcher import Dispatcher
from modelmeter.notification import Alert, Message
from modelmeter.notify.alertmanager import Alertmanager, label_name
from modelmeter.notify.outcome import Delivered, Failed
from modelmeter.window import MINUTE, SECOND


@contextmanager
def alertmanager(home: Path, webhook: str) -> Iterator[httpx.Client]:
    """Debian's, with one receiver."""
    config = {
        "route": {"receiver": "r", "group_by": ["alertname"], "group_wait": "500ms", "group_interval": "1s"},
        "receivers": [{"name": "r", "webhook_configs": [{"url": webhook, "send_resolved": True}]}],
    }
    file = home / "alertmanager.yml"
    file.write_text(json.dumps(config))
    port = free_port()
    with (home / "alertmanager.log").open("wb") as log:
        process = subprocess.Popen(
            [
                "prometheus-alertmanager",
                f"--config.file={file}",
                f"--storage.path={home / 'data'}",
                f"--web.listen-address=127.0.0.1:{port}",
                "--cluster.listen-address=",
            ],
            stdout=log,
            stderr=log,
        )
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}") as client:
            until(lambda: _is_ready(client), lambda: None)
            yield client
    finally:
        process.terminate()
        process.wait(10)


def _is_ready(client: httpx.Client) -> bool:
    try:
        return client.get("/-/ready").is_success
    except httpx.TransportError:
        return False


def until(condition: Callable[[], object], step: Callable[[], object], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come to that"
        step()
        time.sleep(0.02)  # the pace of asking


def file_for(url: str, resend: str = "1s") -> str:
    route = {"receiver": "am", "group_by": ["..."], "group_wait": "0s", "group_interval": "1s"}
    return json.dumps(
        {
            "route": route,
            "receivers": [{"name": "am", "alertmanager_configs": [{"url": url, "resend_interval": resend}]}],
        }
    )


def states(client: httpx.Client) -> dict[str, dict[str, Any]]:
    return {one["labels"]["name"]: one for one in client.get("/api/v2/alerts").json()}


def test_alertmanager_groups_keeps_and_resolves_our_alerts(database_url: str, tmp_path: Path) -> None:
    file = tmp_path / "notifications.yml"
    with inbox() as box, alertmanager(tmp_path, box.url) as client, Evaluator(database_url) as evaluator:
        file.write_text(file_for(str(client.base_url)))
        dispatcher = Dispatcher(Config(database_url=database_url, notifications=file))
        began = time.time_ns() // 1000
        label = {"data-center": "x"}
        for name in ("A", "B"):
            evaluator.fire(began, 0.9, name=name, **label)
        until(lambda: len(_latest(box)) == 2, dispatcher.run_once)
        assert _latest(box) == {"A": "firing", "B": "firing"}
        (first, *_) = states(client).values()
        assert first["labels"]["data_center"] == "x"
        assert first["annotations"] == {"summary": f"Drift of {first['labels']['name']}"}

        # Told once it would be forgotten after four seconds: it is kept alive beyond.
        ends_at = {name: one["endsAt"] for name, one in states(client).items()}
        until(lambda: time.time_ns() // 1000 > began + 6 * SECOND, dispatcher.run_once)
        assert {*states(client)} == {"A", "B"}
        assert all(one["endsAt"] > ends_at[name] for name, one in states(client).items())

        evaluator.resolve(time.time_ns() // 1000, name="A", **label)
        until(lambda: _latest(box).get("A") == "resolved", dispatcher.run_once)
        assert _latest(box) == {"A": "resolved", "B": "firing"}
        dispatcher.close(5)
        # And when nobody speaks for it any more, Alertmanager lets go of it.
        until(lambda: _latest(box).get("B") == "resolved", lambda: None)
    assert [row[0] for row in rows(database_url, "SELECT why FROM modelmeter.delivery_history ORDER BY at")] == [
        "new alert",
        "new alert",
        "all resolved",
    ], "what only keeps alive leaves no line"


def _latest(box: Inbox) -> dict[str, str]:
    return {name: state for state, name in alerts_of(box.requests)}


def test_an_alert_is_sent_again_before_its_end_however_long_it_fires(database_url: str, tmp_path: Path) -> None:
    with inbox() as box, Evaluator(database_url) as evaluator:
        text = file_for(box.url.removesuffix("/hook"), "1m")
        with Dispatching(database_url, tmp_path / "n.yml", text) as it:
            evaluator.fire(name="A")
            ends: list[str] = []
            for _ in range(30):
                it.step(10)
                for request in box.take():
                    assert request.path == "/api/v2/alerts"
                    ends += [one["endsAt"] for one in json.loads(request.body)]
    assert ends == [f"2026-03-01T12:{minute:02}:10Z" for minute in (4, 5, 6, 7, 8)]


def test_while_alertmanager_is_away_only_one_message_waits_and_late_does_not_read_as_resolved(
    database_url: str, tmp_path: Path
) -> None:
    with (
        inbox(status(503)) as box,
        Evaluator(database_url) as evaluator,
        Dispatching(database_url, tmp_path / "n.yml", file_for(box.url, "1m")) as it,
    ):
        evaluator.fire(name="A")
        for _ in range(60):
            it.step(30)
        assert len(rows(database_url, "SELECT 1 FROM modelmeter.delivery")) == 1
        box.take()
        box.answer = status(200)
        it.step(300)
        (late, *_) = box.requests
    (alert,) = json.loads(late.body)
    assert (alert["startsAt"], alert["endsAt"]) == ("2026-03-01T12:00:00Z", "2026-03-01T12:39:00Z")


def test_many_alerts_go_in_pieces_and_none_is_left_out(database_url: str, tmp_path: Path) -> None:
    text = file_for("URL").replace('"..."', '"alertname"')
    with inbox() as box, Evaluator(database_url) as evaluator:
        text = text.replace("URL", box.url)
        with Dispatching(database_url, tmp_path / "n.yml", text, notification_limit_alerts=4) as it:
            for number in range(10):
                evaluator.fire(name=f"M{number}")
            it.step()
            sizes = [len(json.loads(request.body)) for request in box.requests]
    assert sizes == [4, 4, 2]


@pytest.mark.parametrize(
    ("name", "label"), [("name", "name"), ("data-center", "data_center"), ("9lives", "_9lives"), ("ä", "_")]
)
def test_a_label_gets_a_name_that_alertmanager_takes(name: str, label: str) -> None:
    assert label_name(name) == label


def test_a_refusal_and_a_wrong_address_say_so(tmp_path: Path) -> None:
    alert = Alert("0" * 32, {}, {}, None, "", NOON)  # without labels
    message = Message("r", "{}", {}, (alert,), "new alert")
    with inbox() as box, alertmanager(tmp_path, box.url) as client:
        outcome = Alertmanager("r/alertmanager/0", str(client.base_url)).send(message, "k", NOON)
        assert isinstance(outcome, Failed)
        assert outcome.permanent
        assert "HTTP 400" in outcome.reason
        good = Message("r", "{}", {}, (Alert("0" * 32, {"alertname": "X"}, {}, None, "", NOON),), "new alert")
        assert Alertmanager("r/alertmanager/0", str(client.base_url)).send(good, "k", NOON) == Delivered()
        assert Alertmanager("r/alertmanager/0", f"{client.base_url}/x").send(good, "k", NOON) == Failed(
            "HTTP 404: 404 page not found", permanent=True
        )


def test_an_event_is_an_alert_for_a_while() -> None:
    one = Alert("0" * 32, {"alertname": "X"}, {}, None, "", NOON, event=True)
    shown = Alertmanager("r/alertmanager/0", "http://x")._alert(one, NOON + MINUTE)
    assert (shown["startsAt"], shown["endsAt"]) == ("2026-03-01T12:00:00Z", "2026-03-01T12:05:00Z")
