"""From an event to who is told of it: real processes, a real rule, a webhook; and SIGHUP."""

import signal
import time

import httpx

from tests.acceptance.yard import Yard, until
from tests.notifying import inbox, webhooks

RULES = """
groups:
  - name: quality
    interval: 1s
    rules:
      - alert: LowAccuracy
        expr: prediction_accuracy < 0.5
        labels: {severity: critical}
        annotations: {summary: '{{ $labels.name }} is at {{ $value }}'}
"""


def quick(**urls: str) -> str:
    """A file with a receiver for each; news are told within a second."""
    return webhooks(**urls).replace('"1m"', '"1s"')


def post(url: str, name: str, value: float) -> None:
    event = {"name": name, "version": "v1", "prediction_accuracy": value}
    assert httpx.post(f"{url}/events", json=event, timeout=30).status_code == 202


def test_an_event_makes_an_alert_that_is_told_and_resolved(yard: Yard) -> None:
    rules, file = yard.home / "rules.yml", yard.home / "notifications.yml"
    rules.write_text(RULES)
    with inbox() as box:
        file.write_text(quick(a=box.url))
        serve = yard.serve(rules=rules, notifications=file)
        until(lambda: httpx.get(f"{serve.url}/readyz").status_code == 200, "serve is ready")
        began = time.monotonic()
        post(serve.url, "Mistral", 0.1)
        until(lambda: box.requests, "the webhook hears of the alert")
        seconds = time.monotonic() - began
        print(f"from the event to the webhook: {seconds:.2f} s")
        (alert,) = box.requests[0].json["alerts"]
        assert alert["labels"] == {
            "alertname": "LowAccuracy", "name": "Mistral", "version": "v1", "severity": "critical",
        }  # fmt: skip
        assert alert["annotations"] == {"summary": "Mistral is at 0.1"}
        assert (alert["status"], alert["value"]) == ("firing", 0.1)

        file.write_text(quick(b=box.url + "/new"))
        serve.signal(signal.SIGHUP)
        post(serve.url, "Other", 0.2)
        until(lambda: any(one.path == "/hook/new" for one in box.requests), "the new file holds")

        post(serve.url, "Mistral", 0.9)
        until(lambda: ("resolved", "Mistral") in [one for r in box.requests for one in r.alerts], "it is resolved")
        found = httpx.get(f"{serve.url}/notifications", timeout=30).json()
        assert {one["status"] for one in found["history"]} == {"delivered"}
        assert [one["destination"] for one in found["destinations"] if one["in_file"]] == ["b/webhook/0"]
        metrics = httpx.get(f"{serve.url}/metrics", timeout=30).text
        assert 'modelmeter_notifications_sent_total{kind="webhook"}' in metrics
        assert serve.code is None


def test_serve_refuses_a_bad_file_with_its_line(yard: Yard) -> None:
    file = yard.home / "notifications.yml"
    file.write_text("route: {receiver: nobody}\nreceivers: []\n")
    done = yard.command("serve", "--data-dir", str(yard.data_dir), "--notifications", str(file))
    assert done.returncode == 2
    assert f"{file}:1: there is no receiver 'nobody'" in done.stderr


def test_notify_shows_checks_and_sends_samples(yard: Yard) -> None:
    file = yard.home / "notifications.yml"
    shown = yard.command("notify", "example")
    file.write_text(shown.stdout)
    checked = yard.command("notify", "check", str(file))
    assert checked.returncode == 0
    assert "oncall: oncall/webhook/0" in checked.stdout
    routes = yard.command("notify", "routes", "severity=critical", "env=prod", notifications=file)
    assert [line for line in routes.stdout.splitlines() if not line.startswith(" ")] == ["oncall", "team"]
    assert "muted in nights" in routes.stdout
    with inbox() as box:
        file.write_text(webhooks(team=box.url))
        sent = yard.command("notify", "test", "team", "--notifications", str(file))
        assert (sent.returncode, sent.stdout) == (
            0,
            "team/webhook/0: firing: delivered\nteam/webhook/0: resolved: delivered\n",
        )
        assert [one.json["status"] for one in box.requests] == ["firing", "resolved"]
    failed = yard.command("notify", "test", "team/webhook/0", notifications=file)
    assert failed.returncode == 1
    assert "team/webhook/0: firing: failed (would be tried again): ConnectError" in failed.stderr
    unknown = yard.command("notify", "test", "teem", notifications=file)
    assert (unknown.returncode, unknown.stderr) == (
        2,
        "modelmeter: there is no destination 'teem'; there are team, team/webhook/0\n",
    )
    for argv, reason in (
        (["routes", "x"], "labels: 'x' is no LABEL=VALUE"),
        (["check", "/nowhere/n.yml"], "there is no file /nowhere/n.yml"),
    ):
        wrong = yard.command("notify", *argv)
        assert wrong.returncode == 2
        assert reason in wrong.stderr
    nothing = yard.command("notify", "routes", "a=b")
    assert "name the file with --notifications" in nothing.stderr
