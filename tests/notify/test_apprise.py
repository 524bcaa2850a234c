"""Mail through Apprise reaches a real SMTP server; what fails says why, and never what its URL hides."""

import asyncio
import email
import email.policy
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from aiosmtpd.controller import Controller
from tests.acceptance.yard import free_port
from tests.history import NOON
from tests.notifying import Dispatching, Evaluator, inbox, status

from modelmeter.config import Config
from modelmeter.errors import WrongSetting
from modelmeter.notification import Alert, Message
from modelmeter.notify.apprise import Apprise, check_url, secrets_of
from modelmeter.notify.file import read_notifications
from modelmeter.notify.outcome import Delivered, Failed, clean

SECRET = "hunter2-hunter2"


class Mailbox:
    """Keeps the mail; refuses with `refuses`, when it is set."""

    def __init__(self) -> None:
        self.mail: list[email.message.EmailMessage] = []
        self.refuses = ""

    async def handle_DATA(self, _server: Any, _session: Any, envelope: Any) -> str:
        if self.refuses:
            return self.refuses
        found = email.message_from_bytes(envelope.content, policy=email.policy.default)
        assert isinstance(found, email.message.EmailMessage)
        self.mail.append(found)
        return "250 taken"


@contextmanager
def mail_server() -> Iterator[tuple[Mailbox, int]]:
    box = Mailbox()
    controller = Controller(box, hostname="127.0.0.1", port=free_port(), loop=asyncio.new_event_loop())
    controller.start()
    try:
        yield box, controller.port
    finally:
        controller.stop()


def url_of(port: int) -> str:
    return f"mailto://127.0.0.1:{port}/?mode=insecure&from=modelmeter@example.org&to=team@example.org"


def message(count: int = 1) -> Message:
    alerts = tuple(
        Alert("0" * 32, {"alertname": "Drift", "name": f"M{number}"}, {"summary": "It drifts."}, 0.9, "", NOON)
        for number in range(count)
    )
    return Message("team", "{}:{}", {"alertname": "Drift"}, alerts, "new alert")


def test_an_alert_arrives_as_mail_and_its_resolution_too(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = (
        "route: {receiver: team, group_by: [alertname], group_wait: 0s, group_interval: 1m}\n"
        "receivers: [{name: team, apprise_configs: [{url_env: TEAM_MAIL}]}]\n"
    )
    with mail_server() as (box, port), Evaluator(database_url) as evaluator:
        monkeypatch.setenv("TEAM_MAIL", url_of(port))
        with Dispatching(database_url, tmp_path / "n.yml", text) as it:
            evaluator.fire(name="Mistral", version="v1")
            it.step()
            evaluator.resolve(name="Mistral", version="v1")
            it.step(60)
    first, second = box.mail
    assert first["Subject"] == "FIRING 1: Drift (name=Mistral, version=v1)"
    assert first["To"] == "team@example.org"
    body = first.get_body(("plain", "html"))
    assert body is not None
    words = body.get_content()
    for part in ("FIRING Drift, value 0.9, since 2026-03-01T12:00:00Z", "summary: Drift of Mistral", "name=Mistral"):
        assert part in words
    assert second["Subject"] == "resolved 1: Drift (name=Mistral, version=v1)"


def test_the_mail_of_many_alerts_is_bounded() -> None:
    with mail_server() as (box, port):
        assert Apprise("team/apprise/0", url_of(port)).send(message(50), "key", NOON) == Delivered()
    body = box.mail[0].get_body(("plain", "html"))
    assert body is not None
    assert body.get_content().count("FIRING") == 20
    assert "and 30 more" in body.get_content()
    assert "(key)" in body.get_content()


def test_a_server_that_refuses_is_a_failure_with_its_reason() -> None:
    with mail_server() as (box, port):
        box.refuses = "451 not now"
        outcome = Apprise("team/apprise/0", url_of(port)).send(message(), "key", NOON)
    assert isinstance(outcome, Failed)
    assert not outcome.permanent
    assert outcome.reason


@pytest.mark.parametrize(("code", "permanent"), [(401, True), (404, True), (429, False), (500, False)])
def test_the_status_tells_a_permanent_failure_from_a_passing_one(code: int, permanent: bool) -> None:
    with inbox(status(code)) as box:
        where = box.url.removeprefix("http://")
        outcome = Apprise("team/apprise/0", f"json://user:{SECRET}@{where}").send(message(), "key", NOON)
    assert isinstance(outcome, Failed)
    assert outcome.permanent == permanent
    assert SECRET not in outcome.reason
    assert str(code) in outcome.reason


def test_no_log_and_no_error_shows_a_secret(caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    caplog.set_level(logging.DEBUG)
    good = Apprise("team/apprise/0", f"json://user:{SECRET}@127.0.0.1:1/{SECRET}")
    outcome = good.send(message(), "key", NOON)
    assert isinstance(outcome, Failed)
    bad = f"nothing://{SECRET}"
    with pytest.raises(WrongSetting) as refused:
        check_url(bad)
    file = tmp_path / "n.yml"
    file.write_text("route: {receiver: t}\nreceivers:\n- name: t\n  apprise_configs: [{url_env: X}]\n")
    with pytest.raises(
        WrongSetting, match=r"n.yml:4: Apprise cannot use this URL \(its scheme is nothing://\)"
    ) as file_refused:
        read_notifications(Config(notifications=file), {"X": bad})
    for said in (repr(good), outcome.reason, caplog.text, str(refused.value), str(file_refused.value)):
        assert SECRET not in said


def test_secrets_are_cut_out_of_reasons() -> None:
    url = "slack://T1JJ3T3L2/A1BRTD4JD/TIiajkdnlazkcOXrIdevi7FQ/?password=p%40ss-word1"
    said = "could not reach https://hooks.slack.com/x/T1JJ3T3L2 with TIiajkdnlazkcOXrIdevi7FQ and p@ss-word1\nat all"
    cleaned = clean(said, secrets_of(url))
    assert cleaned == "could not reach https://… with … and … at all"
