"""A webhook is signed so that its receiver can tell who sent it and when; what goes wrong is told apart."""

import re
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import pytest
from tests.history import NOON
from tests.notifying import die, inbox, status

from modelmeter.notification import Alert, Message, message_of, payload, title
from modelmeter.notify.outcome import Delivered, Failed, is_permanent
from modelmeter.notify.post import post, retry_after
from modelmeter.notify.webhook import Webhook, sign

SECRET = "whsec-0123456789"
DOCS = Path(__file__).parents[2] / "docs"


def message(count: int = 1) -> Message:
    alerts = tuple(
        Alert(
            "0" * 32,
            {"alertname": "Drift", "name": f"M{number}"},
            {},
            float("nan"),
            "r",
            NOON,
            NOON + 1 if number else None,
        )
        for number in range(count)
    )
    return Message("team", "{}:{}", {"alertname": "Drift"}, alerts, "new alert", 2)


def snippet() -> str:
    """The receiver's side, as the page shows it."""
    text = (DOCS / "notifications.md").read_text("utf-8")
    found = re.search(r"```python\n(import hashlib.*?)```", text, re.DOTALL)
    assert found
    return found[1]


def test_the_documented_verification_takes_what_we_send_and_nothing_else() -> None:
    namespace: dict[str, object] = {}
    exec(snippet(), namespace)
    verify = namespace["verify"]
    assert callable(verify)
    with inbox() as box:
        now = time.time_ns() // 1000
        assert Webhook("t/webhook/0", box.url, SECRET).send(message(), "key", now) == Delivered()
        (request,) = box.requests
    header = request.headers["x-modelmeter-signature"]
    assert verify(SECRET, header, request.body)
    assert not verify("another", header, request.body)
    assert not verify(SECRET, header, request.body + b" ")
    old = sign(SECRET, request.body, now // 1_000_000 - 3600)
    assert not verify(SECRET, old, request.body), "an old one may have been overheard and sent again"
    assert not verify(SECRET, "nonsense", request.body)
    assert not verify(SECRET, "", request.body)


def test_openssl_makes_the_same_signature(tmp_path: Path) -> None:
    body = b'{"a": 1}'
    signed = tmp_path / "signed"
    signed.write_bytes(b"1772366400." + body)
    made = subprocess.run(
        ["openssl", "dgst", "-sha256", "-hmac", SECRET, "-hex", str(signed)], capture_output=True, text=True, check=True
    )
    assert sign(SECRET, body, 1_772_366_400) == f"t=1772366400,v1={made.stdout.split()[-1]}"


def test_without_a_secret_there_is_no_signature_and_a_token_goes_into_its_header() -> None:
    with inbox() as box:
        Webhook("t/webhook/0", box.url).send(message(), "key", NOON)
        Webhook("t/webhook/0", box.url, bearer="tok-123").send(message(), "key", NOON)
        first, second = box.requests
    assert "x-modelmeter-signature" not in first.headers
    assert "authorization" not in first.headers
    assert second.headers["authorization"] == "Bearer tok-123"


def test_max_alerts_cuts_and_counts() -> None:
    with inbox() as box:
        Webhook("t/webhook/0", box.url, alert_limit=2).send(message(5), "key", NOON)
        (request,) = box.requests
    assert (len(request.json["alerts"]), request.json["truncatedAlerts"]) == (2, 5)
    assert request.json["deduplicationKey"] == request.headers["idempotency-key"] == "key"


def test_a_message_is_the_same_after_a_stay_in_the_outbox() -> None:
    there = message(3)
    back = message_of(payload(there))
    assert payload(back) == payload(there)
    assert [alert.value for alert in back.alerts] == [None] * 3, "NaN is no JSON"
    assert title(there) == "FIRING 1, resolved 2: Drift"


@pytest.mark.parametrize(
    ("code", "permanent"),
    [
        (400, True),
        (401, True),
        (403, True),
        (404, True),
        (410, True),
        (408, False),
        (425, False),
        (429, False),
        (500, False),
        (503, False),
    ],
)
def test_each_status_is_passing_or_permanent(code: int, permanent: bool) -> None:
    assert is_permanent(code) == permanent
    with inbox(status(code)) as box:
        outcome = post(box.url, b"", {}, 5)
    assert outcome == Failed(f"HTTP {code}", permanent)


def test_nobody_there_dying_and_hanging_are_passing_failures_within_the_time() -> None:
    assert post("http://127.0.0.1:1/x", b"", {}, 5) == Failed("ConnectError: All connection attempts failed")
    with inbox(die) as box:
        outcome = post(box.url, b"", {}, 5)
        assert isinstance(outcome, Failed)
        assert "RemoteProtocolError" in outcome.reason
    for way in ("hang", "drip"):
        with inbox() as box:
            box.answer = getattr(box, way)
            began = time.monotonic()
            assert post(box.url, b"", {}, 0.2) == Failed("no answer within 0.2 s")
            assert time.monotonic() - began < 3


def test_an_endless_answer_is_not_read_to_its_end() -> None:
    with inbox(status(500, body="x" * 1_000_000)) as box:
        outcome = post(box.url, b"", {}, 5)
    assert isinstance(outcome, Failed)
    assert len(outcome.reason) <= 300


def test_a_reason_shows_neither_the_url_nor_the_secrets() -> None:
    with inbox(status(400, body=f"no such hook http://x/y?{SECRET} nor {SECRET}")) as box:
        outcome = Webhook("t/webhook/0", box.url, SECRET).send(message(), "key", NOON)
    assert isinstance(outcome, Failed)
    assert SECRET not in outcome.reason
    assert box.url not in outcome.reason
    assert SECRET not in repr(Webhook("t/webhook/0", box.url, SECRET, SECRET))


def test_retry_after_is_seconds_or_a_date() -> None:
    now = datetime(2026, 3, 1, 12, tzinfo=UTC)
    seconds = now.timestamp()
    assert retry_after("17", seconds) == 17
    assert retry_after(format_datetime(now + timedelta(seconds=90), usegmt=True), seconds) == 90
    assert retry_after(format_datetime(now - timedelta(seconds=90), usegmt=True), seconds) == 0
    for nonsense in ("", "soon", "-5", "1e9", "9" * 40):
        assert retry_after(nonsense, seconds) is None


def test_httpx_does_not_log_addresses() -> None:
    code = (
        "import logging, io; out = io.StringIO(); logging.basicConfig(level=logging.INFO, stream=out)\n"
        "from modelmeter.notify.post import post\n"
        "import sys; post(sys.argv[1], b'', {}, 5); assert not out.getvalue(), out.getvalue()"
    )
    with inbox() as box:
        subprocess.run([sys.executable, "-c", code, box.url], check=True)
        assert len(box.requests) == 1
